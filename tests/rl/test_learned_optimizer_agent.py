import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.trajectories import time_step as time_steps

import keras_meta
import keras_meta.rl
from keras_meta import update_rules
from keras_meta.rl import outer_problem
from tests.rl.test_maml_agent import assert_close
from tests.rl.test_maml_agent import central_differences
from tests.rl.test_maml_agent import collect
from tests.rl.test_maml_agent import learn
from tests.rl.test_maml_agent import navigation

TASKS = 3


def make_agent(environment, **settings):
    network = keras_meta.rl.KerasDistributionNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        keras_meta.backbones.mlp((2,), (4,), None, activation="tanh"),
    )
    return keras_meta.rl.LearnedOptimizerAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        network,
        **{
            "optimizer": keras.optimizers.SGD(0.1),
            "inner_steps": 2,
            "rollouts": 4,
            "outer_update": "reinforce",
            **settings,
        },
    )


def test_an_outer_step_trains_the_rule_alone():
    environment = navigation()
    agent = make_agent(environment)
    rule = agent.update_rule
    assert isinstance(rule, update_rules.CoordinatewiseLSTM)
    network = agent.network.model.get_weights()
    before = rule.get_weights()
    info = learn(agent, environment)
    assert info.extra["gradient_norm"] > 0
    for one, other in zip(agent.network.model.get_weights(), network):
        np.testing.assert_array_equal(one, other)
    assert all(np.any(a != b) for a, b in zip(rule.get_weights(), before))


def test_each_task_starts_from_weights_of_its_own():
    environment = navigation()
    agent = make_agent(environment)
    kernels = collect(agent, environment).start[0].numpy()
    assert kernels.shape == (TASKS, 2, 4)
    own = agent.network.model.get_weights()[0]
    for kernel in kernels:
        np.testing.assert_array_equal(
            np.sort(kernel.ravel()), np.sort(own.ravel())
        )
    assert len({kernel.tobytes() for kernel in kernels}) == TASKS


@pytest.mark.parametrize("every_step", [True, False])
def test_the_meta_gradient_equals_central_differences(float64, every_step):
    observation = action = tf.TensorSpec([2], tf.float64)
    network = keras_meta.rl.KerasDistributionNetwork(
        observation,
        action,
        keras_meta.backbones.mlp((2,), (4,), None, activation="tanh"),
    )
    agent = keras_meta.rl.LearnedOptimizerAgent(
        time_steps.time_step_spec(observation),
        action,
        network,
        update_rule=update_rules.LSTMMetaLearner(units=2),
        inner_steps=2,
        first_order=False,
        every_step=every_step,
        outer_update="reinforce",
    )
    for variable in agent.outer_variables:
        noise = tf.random.normal(variable.shape, stddev=0.1, dtype=tf.float64)
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
    assert_close(gradients, expected, 1e-5)


def test_evaluate_and_adapt_train_from_scratch():
    environment = navigation()
    agent = make_agent(environment)
    curve = agent.evaluate(environment, tasks=4)
    assert curve.rollouts == [0, 4, 8] and curve.values.shape == (4, 3)
    environment.set_tasks(environment.sample_task("test"))
    kernels = [
        agent.adapt(environment)._actor_network.model.get_weights()[0]
        for _ in range(2)
    ]
    # Drawn anew, and not only moved: both of them, and unlike the network's.
    own = agent.network.model.get_weights()[0]
    for one, other in ((kernels[0], kernels[1]), (kernels[0], own)):
        assert np.abs(one - other).max() > 0.3


def test_a_rule_without_weights_can_be_compared_with_and_not_trained():
    environment = navigation()
    agent = make_agent(
        environment, update_rule=update_rules.Adam(0.1), optimizer=None
    )
    curve = agent.evaluate(environment, tasks=2)
    assert np.all(np.isfinite(curve.values))
    agent.optimizer = None
    with pytest.raises(ValueError, match="must have trainable weights"):
        learn(agent, environment)


def test_fit_trains_and_the_rule_goes_through_a_file(tmp_path):
    environment = navigation()
    model = keras_meta.rl.AgentModel(make_agent(environment), environment)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(environment.tasks(2), steps_per_epoch=2, verbose=0)
    path = tmp_path / "agent.weights.h5"
    model.save_weights(path)
    keras.utils.set_random_seed(1)
    other = keras_meta.rl.AgentModel(make_agent(environment), environment)
    other.compile(keras.optimizers.Adam(0.01))
    other.load_weights(path)
    for one, two in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(one, two)
    assert other.agent.optimizer.iterations == 2


def test_a_rate_of_its_own_is_refused():
    with pytest.raises(ValueError, match="Only one of `inner_learning_rate`"):
        make_agent(navigation(), inner_learning_rate=0.1)
