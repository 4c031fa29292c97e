import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.trajectories import time_step as time_steps

import keras_meta
import keras_meta.rl
from keras_meta.rl import outer_problem
from keras_meta.rl.fast_weights_policy import forward
from tests.rl.test_maml_agent import adapted
from tests.rl.test_maml_agent import assert_close
from tests.rl.test_maml_agent import central_differences
from tests.rl.test_maml_agent import collect
from tests.rl.test_maml_agent import learn
from tests.rl.test_maml_agent import navigation

TASKS, SIZE = 3, 4


def features(size=2 + SIZE):
    return keras_meta.backbones.mlp((size,), (4,), None, activation="tanh")


def make_agent(environment, **settings):
    return keras_meta.rl.CAVIAAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        features(),
        **{
            "optimizer": keras.optimizers.SGD(0.1),
            "context_size": SIZE,
            "rollouts": 4,
            "outer_update": "reinforce",
            **settings,
        },
    )


def context_of(agent):
    """Returns the variable of the context, and its place among the weights."""
    variables = agent.network.model.trainable_variables
    (place,) = [n for n, v in enumerate(variables) if v.name == "context"]
    return variables[place], place


def make_it_matter(agent):
    """A new policy hardly listens to anything."""
    for variable in agent.outer_variables:
        variable.assign(variable + tf.random.normal(variable.shape, stddev=0.5))


def test_an_inner_step_moves_the_context_alone_along_the_policy_gradient():
    environment = navigation()
    agent = make_agent(environment, inner_learning_rate=0.5)
    make_it_matter(agent)
    experience = collect(agent, environment).adaptation[0]
    start, _ = agent.start(TASKS)
    moved, _ = adapted(agent, experience)
    _, place = context_of(agent)
    for number, (one, other) in enumerate(zip(moved, start)):
        if number != place:
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(start[place], np.zeros([TASKS, SIZE]))
    # By hand, where the context is an input of the user's model.
    batch = agent._batch(experience, TASKS)
    with_context, mean, log_deviation = agent.network.model.layers[-3:]
    of_user = with_context.layers[-1]
    assert of_user.input_shape == (None, 2 + SIZE)
    for task in range(TASKS):
        context = tf.zeros([20, SIZE])
        with tf.GradientTape() as tape:
            tape.watch(context)
            seen = tf.concat([batch["observation"][task], context], axis=1)
            found = of_user(seen)
            answer = agent.network.read([mean(found), log_deviation(found)])
            gains = answer.log_prob(batch["action"][task])
            gain = tf.reduce_mean(gains * batch["advantage"][task])
        slope = tf.reduce_sum(tape.gradient(gain, context), axis=0)
        assert np.abs(slope).max() > 1e-3
        np.testing.assert_allclose(moved[place][task], 0.5 * slope, atol=1e-5)


def test_outer_steps_train_all_but_the_context():
    environment = navigation()
    agent = make_agent(environment, every_step=True)
    make_it_matter(agent)
    context, place = context_of(agent)
    assert len(agent.outer_variables) == 5
    assert not any(v is context for v in agent.outer_variables)
    before = agent.network.model.get_weights()
    learn(agent, environment)
    for number, (one, other) in enumerate(
        zip(agent.network.model.get_weights(), before)
    ):
        assert np.any(one != other) == (number != place)
    np.testing.assert_array_equal(context, np.zeros(SIZE))


def test_the_meta_gradient_equals_central_differences(float64):
    observation = tf.TensorSpec([2], tf.float64)
    agent = keras_meta.rl.CAVIAAgent(
        time_steps.time_step_spec(observation),
        tf.TensorSpec([2], tf.float64),
        features(2 + 3),
        context_size=3,
        inner_steps=2,
        update_rule=keras_meta.update_rules.MetaSGD(0.3),
        outer_update="reinforce",
    )
    for variable in agent.outer_variables[:-1]:
        noise = tf.random.normal(variable.shape, stddev=0.3, dtype=tf.float64)
        variable.assign(variable + noise)
    numbers = np.random.default_rng(0)

    def batch():
        shape = (TASKS, 6)
        return {
            "observation": tf.constant(numbers.normal(size=(*shape, 2))),
            "action": tf.constant(numbers.normal(size=(*shape, 2))),
            "advantage": tf.constant(numbers.normal(size=shape)),
            "weight": tf.ones(shape, tf.float64),
            "credit": tf.zeros([TASKS], tf.float64),
        }

    start, _ = agent.start(TASKS)
    problem = outer_problem.OuterProblem(
        agent, [batch(), batch()], batch(), start
    )
    values = problem.values()
    gradient = tf.function(problem.loss_and_gradients, autograph=False)
    _, gradients = gradient(values)
    expected = central_differences(
        lambda values: problem.loss_and_divergence(values)[0], values
    )
    assert_close(gradients, expected, 1e-6)
    # The rates of the context are learned.
    assert values[-1].shape == (3,) and np.abs(gradients[-1]).max() > 1e-4


def test_adapt_gives_a_policy_that_keeps_the_context():
    environment = keras_meta.rl.environments.PointNavigation(
        horizon=5, batch_size=2
    )
    environment.set_tasks(environment.sample_task("test"))
    agent = make_agent(environment)
    make_it_matter(agent)
    policy = agent.adapt(environment, rollouts=4)
    time_step = environment.reset()
    found = policy.distribution(time_step).action.mean()
    shared, _ = agent.network(time_step.observation)
    assert not np.allclose(found, shared.mean(), atol=1e-6)
    weights = policy._actor_network.model.get_weights()
    _, place = context_of(agent)
    for number, (one, other) in enumerate(
        zip(weights, agent.network.model.get_weights())
    ):
        assert np.any(one != other) == (number == place)


def test_the_saved_model_adapts_as_the_agent_does(tmp_path):
    environment = navigation()
    agent = make_agent(environment)
    make_it_matter(agent)
    agent.export(tmp_path)
    loaded = tf.saved_model.load(str(tmp_path))
    experience = collect(agent, environment, 1).adaptation[0]
    state = loaded.signatures["adapt"](
        **loaded.signatures["start"](),
        observation=experience.observation,
        action=experience.action,
        reward=experience.reward,
        last=tf.cast(experience.next_step_type == 2, tf.float32),
    )
    weights, _ = adapted(agent, experience)
    observation = tf.random.normal([7, 2])
    outputs = forward(agent.network, [w[0] for w in weights], observation)
    np.testing.assert_allclose(
        loaded.signatures["act"](**state, observation=observation)["action"],
        agent.network.read(outputs).mode(),
        atol=1e-5,
    )


def test_fit_trains_and_weights_go_through_a_file(tmp_path):
    environment = navigation()
    agent = make_agent(environment)
    model = keras_meta.rl.AgentModel(agent, environment)
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(environment.tasks(2), steps_per_epoch=2, verbose=0)
    assert set(history.history) >= {"loss", "return_before", "return_after"}
    path = tmp_path / "agent.weights.h5"
    model.save_weights(path)
    keras.utils.set_random_seed(1)
    other = keras_meta.rl.AgentModel(make_agent(environment), environment)
    other.compile(keras.optimizers.Adam(0.01))
    other.load_weights(path)
    for one, two in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(one, two)
    assert other.agent.optimizer.iterations == 2


def test_bad_arguments_are_refused():
    environment = navigation()
    specs = environment.time_step_spec(), environment.action_spec()
    for error, message, call in (
        (
            ValueError,
            r"vectors of 7 numbers.*shape \(7,\)",
            lambda: keras_meta.rl.CAVIAAgent(*specs, features(2)),
        ),
        (
            ValueError,
            "`context_size`",
            lambda: make_agent(environment, context_size=0),
        ),
        (
            TypeError,
            "`model` must be a `keras.Model`",
            lambda: keras_meta.rl.CAVIAAgent(*specs, "model"),
        ),
        (
            ValueError,
            "Only one of",
            lambda: make_agent(
                environment,
                inner_learning_rate=0.1,
                update_rule=keras_meta.update_rules.MetaSGD(),
            ),
        ),
    ):
        with pytest.raises(error, match=message):
            call()
