import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import policy_saver
from tf_agents.trajectories import time_step as time_steps
from tf_agents.utils import common

import keras_meta
import keras_meta.rl
from keras_meta.gradients import dense_gradients
from keras_meta.rl import fast_weights_policy
from keras_meta.rl import outer_problem
from keras_meta.rl import outer_updates
from keras_meta.rl import rollouts

TASKS = 3


def navigation(horizon=5):
    return keras_meta.rl.environments.PointNavigation(horizon=horizon)


def bandits():
    return keras_meta.rl.environments.Bandits(arms=3, horizon=4)


def make_agent(environment, **settings):
    size = environment.observation_spec().shape[0]
    network = keras_meta.rl.KerasDistributionNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        keras_meta.backbones.mlp((size,), (4,), None, activation="tanh"),
    )
    settings = {
        "optimizer": keras.optimizers.SGD(0.1),
        "rollouts": 4,
        "inner_learning_rate": 0.5,
        # Of all outer updates, it is traced in the shortest time.
        "outer_update": "reinforce",
        **settings,
    }
    if "update_rule" in settings:
        del settings["inner_learning_rate"]
    return keras_meta.rl.MAMLAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        network,
        **settings,
    )


def collect(agent, environment, tasks=TASKS):
    """Collects in the graph, since each new function is traced anew."""
    tasks = environment.sample_tasks(tasks)
    function = tf.function(
        lambda: agent.collect(environment, tasks), autograph=False
    )
    return function()


def learn(agent, environment, number=0):
    function = tf.function(
        lambda tasks: agent.learn(environment, tasks), autograph=False
    )
    tf.random.set_seed(number)
    return function(environment.sample_tasks(TASKS, seed=number))


def adapted(agent, experience, step=0, start=None):
    count = experience.reward.shape[0] // agent.rollouts
    weights, rule_state = start or agent.start(count)
    function = tf.function(agent.take_inner_step, autograph=False)
    return function(weights, rule_state, experience, step)


def wide_problem(discrete=False, seed=0, **settings):
    """An outer problem in double precision, of random numbers."""
    observation = tf.TensorSpec([2], tf.float64)
    action = tf.TensorSpec([2], tf.float64)
    if discrete:
        action = bandits().action_spec()
    network = keras_meta.rl.KerasDistributionNetwork(
        observation,
        action,
        keras_meta.backbones.mlp((2,), (4,), None, activation="tanh"),
    )
    agent = keras_meta.rl.MAMLAgent(
        time_steps.time_step_spec(observation), action, network, **settings
    )
    for variable in agent.outer_variables:
        variable.assign(
            variable
            + tf.random.normal(variable.shape, stddev=0.3, dtype=tf.float64)
        )
    numbers = np.random.default_rng(seed)

    def batch():
        shape = (TASKS, 6)
        actions = numbers.normal(size=(*shape, 2))
        if discrete:
            actions = numbers.integers(0, 3, size=shape).astype("int32")
        return {
            "observation": tf.constant(numbers.normal(size=(*shape, 2))),
            "action": tf.constant(actions),
            "advantage": tf.constant(numbers.normal(size=shape)),
            "weight": tf.constant(numbers.uniform(0.5, 1.0, size=shape)),
            "credit": tf.constant(numbers.normal(size=TASKS)),
        }

    adaptation = [batch() for _ in range(agent.inner_steps)]
    problem = outer_problem.OuterProblem(agent, adaptation, batch())
    return agent, problem, problem.values()


def central_differences(function, values, step=1e-5):
    """Returns the derivatives of a scalar function of a list of tensors."""
    arrays = [value.numpy() for value in values]
    evaluate = tf.function(function, autograph=False)
    gradients = []
    for array in arrays:
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            kept = array[index]
            ends = []
            for side in (step, -step):
                array[index] = kept + side
                ends.append(evaluate([tf.constant(a) for a in arrays]))
            array[index] = kept
            gradient[index] = (ends[0] - ends[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def assert_close(found, expected, tolerance):
    scale = max(np.abs(part).max() for part in expected)
    assert scale > 0
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one / scale, other / scale, atol=tolerance)


RULES = {
    "one rate": keras_meta.update_rules.GradientDescent,
    "learned rates": keras_meta.update_rules.MetaSGD,
}


@pytest.mark.parametrize(
    "rule, every_step, discrete",
    [("one rate", False, True), ("learned rates", True, False)],
)
def test_the_meta_gradient_equals_central_differences(
    float64, rule, every_step, discrete
):
    agent, problem, values = wide_problem(
        discrete,
        update_rule=RULES[rule](0.5),
        inner_steps=2,
        every_step=every_step,
        outer_update="reinforce",
    )
    gradient = tf.function(problem.loss_and_gradients, autograph=False)
    _, gradients = gradient(values)
    expected = central_differences(
        lambda values: problem.loss_and_divergence(values)[0], values
    )
    assert_close(gradients, expected, 1e-6)
    # And it is not that of first order.
    agent.first_order = True
    gradient = tf.function(problem.loss_and_gradients, autograph=False)
    _, constant = gradient(values)
    scale = max(np.abs(part).max() for part in expected)
    differences = [
        np.abs(one - other).max() / scale
        for one, other in zip(constant, expected)
    ]
    assert max(differences) > 1e-2


def test_products_with_the_divergence_equal_differences_of_its_slope(float64):
    _, problem, values = wide_problem(
        inner_learning_rate=0.5, outer_update="trpo"
    )
    generator = np.random.default_rng(1)
    vector = [tf.constant(generator.normal(size=v.shape)) for v in values]

    @tf.function(autograph=False)
    def slope(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            _, divergence = problem.loss_and_divergence(values)
        return dense_gradients(tape, divergence, values)

    def moved(step):
        return slope([v + step * part for v, part in zip(values, vector)])

    expected = [
        ((one - other) / 2e-5).numpy()
        for one, other in zip(moved(1e-5), moved(-1e-5))
    ]
    product = tf.function(problem.divergence_product, autograph=False)
    assert_close(product(values, vector), expected, 1e-5)


def test_tasks_one_by_one_teach_what_they_teach_together(float64, monkeypatch):
    found = []
    monkeypatch.setattr(
        tf.config.threading, "get_intra_op_parallelism_threads", lambda: 1
    )
    for many, mapping in ((7, "vectorized"), (6, "sequential")):
        monkeypatch.setattr(outer_problem, "_MANY_ACTIONS", many)
        keras.utils.set_random_seed(0)
        _, problem, values = wide_problem(
            inner_learning_rate=0.5, outer_update="trpo"
        )
        assert problem._mapping == mapping
        vector = [tf.ones_like(value) for value in values]
        function = tf.function(
            lambda values, problem=problem, vector=vector: (
                problem.loss_and_gradients(values),
                problem.loss_and_divergence(values),
                problem.divergence_product(values, vector),
            ),
            autograph=False,
        )
        found.append(tf.nest.flatten(function(values)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_threads_for_each_operation_keep_tasks_together(float64, monkeypatch):
    monkeypatch.setattr(outer_problem, "_MANY_ACTIONS", 1)
    _, problem, _ = wide_problem()
    assert problem._mapping == "vectorized"


def test_a_task_adapts_in_the_batch_as_it_does_alone():
    environment = navigation()
    agent = make_agent(environment)
    experience = collect(agent, environment).adaptation[0]
    together, _ = adapted(agent, experience)
    for task in range(TASKS):
        rows = slice(4 * task, 4 * (task + 1))
        own = tf.nest.map_structure(lambda leaf: leaf[rows], experience)
        alone, _ = adapted(agent, own)
        for one, other in zip(together, alone):
            np.testing.assert_allclose(one[task], other[0], atol=1e-6)
    # Unlike another task.
    assert not np.allclose(together[-1][0], together[-1][1], atol=1e-4)


def test_rollouts_before_and_after_an_inner_step_draw_noise_of_their_own():
    environment = navigation()
    # Next to no step, so that the policies are alike.
    agent = make_agent(environment, inner_steps=2, inner_learning_rate=1e-9)
    tf.random.set_seed(0)
    experience = collect(agent, environment)
    stages = (*experience.adaptation, experience.query)
    noise = [np.ravel(stage.action) for stage in stages]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(np.corrcoef(noise[one], noise[other])[0, 1]) < 0.4
    # And so do the steps of a rollout.
    steps = experience.query.action
    assert np.abs(steps[:, 0] - steps[:, 1]).max() > 0.05


def test_an_inner_step_is_the_policy_gradient_by_hand():
    environment = bandits()
    agent = make_agent(environment)
    experience = collect(agent, environment, 1).adaptation[0]
    batch = agent._batch(experience, 1)
    weights, _ = agent.start(1)
    moved, _ = adapted(agent, experience)
    # The last bias alone: the slope of the logits is 1{action} - chance.
    logits = agent.network.model(batch["observation"][0])
    taken = tf.one_hot(batch["action"][0], 3)
    slope = tf.reduce_mean(
        (taken - tf.nn.softmax(logits)) * batch["advantage"][0][:, None], axis=0
    )
    np.testing.assert_allclose(
        moved[-1][0], weights[-1][0] + 0.5 * slope, atol=1e-6
    )


@pytest.mark.parametrize("make", [navigation, bandits])
def test_the_head_is_what_the_policy_puts_on_the_features(make):
    environment = make()
    weights = {}
    for adapts in ("head", "body"):
        keras.utils.set_random_seed(0)
        agent = make_agent(environment, adapts=adapts)
        for variable in agent.outer_variables:
            variable.assign(variable + tf.random.normal(variable.shape))
        experience = collect(agent, environment).adaptation[0]
        start, _ = agent.start(TASKS)
        moved, _ = adapted(agent, experience)
        weights[adapts] = [np.any(a != b) for a, b in zip(moved, start)]
    # Kernel and bias of the features, then those of the last layers: for real
    # actions, the deviation, too.
    last = len(weights["head"]) - 2
    assert last == (3 if make is navigation else 2)
    assert weights["head"] == [False, False] + [True] * last
    # Bandits show nothing but zero, so that a kernel has no gradient.
    seen = make is navigation
    assert weights["body"] == [seen, True] + [False] * last


def test_with_a_head_alone_the_outer_step_trains_all():
    environment = navigation()
    agent = make_agent(environment, adapts="head")
    before = agent.network.model.get_weights()
    learn(agent, environment)
    for one, other in zip(agent.network.model.get_weights(), before):
        assert np.any(one != other)


def test_each_row_acts_by_the_weights_of_its_task():
    environment = navigation()
    agent = make_agent(environment)
    weights = [
        tf.random.normal([TASKS, *weight.shape[1:]])
        for weight in agent.start(1)[0]
    ]
    time_step = environment.start(tf.zeros([6, 2]), tf.constant([0, 0]))[
        1
    ]._replace(observation=tf.random.normal([6, 2]))
    found = agent.policy.action(time_step, tuple(weights)).action
    model = agent.network.model
    for row in range(6):
        for variable, weight in zip(model.trainable_variables, weights):
            variable.assign(weight[row // 2])
        distribution, _ = agent.network(time_step.observation[row : row + 1])
        np.testing.assert_allclose(
            found[row], distribution.mode()[0], atol=1e-5
        )


@pytest.mark.parametrize("name", ["reinforce", "ppo", "trpo"])
def test_an_outer_step_lowers_the_loss_on_its_rollouts(name):
    update = outer_updates.get(name)
    update.epochs = 2 if name == "ppo" else 1
    update.conjugate_steps = 1
    environment = navigation()
    agent = make_agent(
        environment, outer_update=update, optimizer=keras.optimizers.SGD(0.01)
    )
    experience = collect(agent, environment)
    batches = [
        agent._batch(part, TASKS)
        for part in (*experience.adaptation, experience.query)
    ]
    problem = outer_problem.OuterProblem(agent, batches[:-1], batches[-1])
    measure = tf.function(problem.loss_and_divergence, autograph=False)
    before, _ = measure(problem.values())
    info = tf.function(agent.train, autograph=False)(experience)
    after, divergence = measure(problem.values())
    assert after < before
    assert info.extra["gradient_norm"] > 0
    assert agent.train_step_counter == 1
    if name == "trpo":
        assert 0 < divergence <= 0.01


def test_fit_logs_the_returns_and_trains():
    environment = navigation()
    agent = make_agent(environment)
    model = keras_meta.rl.AgentModel(agent, environment)
    model.compile(keras.optimizers.Adam(0.01))
    before = agent.network.model.get_weights()
    traces = []
    train = agent._train
    agent._train_fn = lambda **given: traces.append(0) or train(**given)
    history = model.fit(
        environment.tasks(TASKS),
        steps_per_epoch=2,
        epochs=2,
        validation_data=environment.tasks(TASKS, "validation", batches=1),
        verbose=0,
    )
    assert {
        "loss",
        "gradient_norm",
        "return_before",
        "return_after",
        "val_return_before",
        "val_return_after",
    } == set(history.history)
    assert agent.train_step_counter == 4
    assert len(traces) == 1
    changed = [
        np.any(one != other)
        for one, other in zip(agent.network.model.get_weights(), before)
    ]
    assert all(changed)
    tasks = environment.sample_tasks(TASKS, "test")
    assert model.predict(tasks, verbose=0).shape == (TASKS, 2)


def test_training_resumes_where_it_was(tmp_path):
    environment = navigation()

    def make():
        keras.utils.set_random_seed(0)
        agent = make_agent(environment, optimizer=keras.optimizers.Adam(0.01))
        model = keras_meta.rl.AgentModel(agent, environment)
        model.compile()
        learn = tf.function(
            lambda tasks: agent.learn(environment, tasks), autograph=False
        )
        return model, learn

    tasks = environment.sample_tasks(TASKS)
    path = tmp_path / "half.weights.h5"
    model, learn = make()
    learn(tasks)
    model.save_weights(path)
    # What is random begins anew in each function that is traced.
    model, learn = make()
    model.load_weights(path)
    tf.random.set_seed(1)
    learn(tasks)
    straight = model.get_weights()
    model.load_weights(path)
    np.testing.assert_array_less(0, model.agent.optimizer.iterations)
    tf.random.set_seed(1)
    learn(tasks)
    for one, other in zip(model.get_weights(), straight):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_checkpoint_of_tf_agents_holds_all_that_is_trained(tmp_path):
    environment = navigation()

    def make():
        return make_agent(
            environment,
            optimizer=keras.optimizers.Adam(0.01),
            update_rule=keras_meta.update_rules.MetaSGD(0.5),
        )

    agent = make()
    learn(agent, environment)
    checkpoint = common.Checkpointer(str(tmp_path), agent=agent)
    checkpoint.save(0)
    keras.utils.set_random_seed(1)
    other = make()
    common.Checkpointer(str(tmp_path), agent=other)
    for one, two in zip(agent.outer_variables, other.outer_variables):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(agent.optimizer.variables, other.optimizer.variables):
        np.testing.assert_array_equal(one, two)
    assert other.train_step_counter == 1


def test_adapt_gives_an_ordinary_policy(tmp_path):
    environment = keras_meta.rl.environments.PointNavigation(
        horizon=5, batch_size=2
    )
    environment.set_tasks(environment.sample_task("test"))
    agent = make_agent(environment, inner_steps=2)
    before = agent.network.model.get_weights()
    policy = agent.adapt(environment, rollouts=6)
    for one, other in zip(agent.network.model.get_weights(), before):
        np.testing.assert_array_equal(one, other)
    time_step = environment.reset()
    action = policy.action(time_step).action
    assert action.shape == (2, 2)
    mean = policy.distribution(time_step).action.mean()
    policy_saver.PolicySaver(policy, batch_size=None).save(str(tmp_path))
    # The mean is what a greedy policy does; the saved one draws.
    loaded = tf.saved_model.load(str(tmp_path))
    drawn = loaded.action(time_step, ()).action
    assert drawn.shape == (2, 2) and np.all(np.abs(drawn) <= 0.1)
    start, _ = agent.network(time_step.observation)
    assert not np.allclose(mean, start.mean(), atol=1e-6)


def test_adapt_needs_to_know_how_long_a_rollout_is():
    environment = navigation()
    agent = make_agent(environment)
    environment.set_tasks(environment.sample_task())
    del environment.horizon
    with pytest.raises(ValueError, match="as `steps=`"):
        agent.adapt(environment)
    with pytest.raises(ValueError, match="at least one step"):
        agent.adapt(environment, steps=0)


def test_the_saved_model_adapts_as_the_agent_does(tmp_path):
    environment = navigation()
    agent = make_agent(
        environment,
        inner_steps=2,
        update_rule=keras_meta.update_rules.Momentum(0.5),
    )
    agent.export(tmp_path)
    loaded = tf.saved_model.load(str(tmp_path))
    start, explore, act, adapt = (
        loaded.signatures[name] for name in ("start", "explore", "act", "adapt")
    )
    state = start()
    weights, rule_state = agent.start(1)
    observation = tf.random.normal([7, 2])
    assert explore(**state, observation=observation)["action"].shape == (7, 2)
    for step in range(2):
        experience = collect(agent, environment, 1).adaptation[0]
        last = tf.cast(experience.next_step_type == 2, tf.float32)
        state = adapt(
            **state,
            observation=experience.observation,
            action=experience.action,
            reward=experience.reward,
            last=last,
        )
        weights, rule_state = adapted(
            agent, experience, step, (weights, rule_state)
        )
        distribution = fast_weights_policy.distribution_by_task(
            agent.network, weights, observation
        )
        found = act(**state, observation=observation)["action"]
        np.testing.assert_allclose(found, distribution.mode(), atol=1e-5)


def test_evaluate_measures_unseen_tasks_with_an_interval():
    environment = navigation()
    agent = make_agent(environment, inner_steps=2)
    curve = agent.evaluate(environment, tasks=6, rollouts=4)
    assert curve.rollouts == [0, 2, 4]
    assert curve.values.shape == (6, 3)
    np.testing.assert_allclose(curve.means, curve.values.mean(0), rtol=1e-6)
    error = curve.values.std(0, ddof=1) / np.sqrt(6)
    np.testing.assert_allclose(curve.intervals, 1.959964 * error, rtol=1e-5)
    assert "after 4 rollouts" in str(curve) and "over 6 tasks" in str(curve)


def test_rewards_that_are_not_finite_are_an_error():
    class Broken(keras_meta.rl.environments.PointNavigation):
        def transition(self, state, actions, tasks, seed):
            state, reward, near = super().transition(
                state, actions, tasks, seed
            )
            return state, reward * float("nan"), near

    environment = Broken(horizon=3)
    agent = make_agent(environment)
    model = keras_meta.rl.AgentModel(agent, environment)
    model.compile("sgd")
    before = agent.network.model.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        model.fit(environment.tasks(2), steps_per_epoch=1, verbose=0)
    assert "must be finite. Received: NaN or Inf from Broken" in str(
        error.value
    )
    for one, other in zip(agent.network.model.get_weights(), before):
        np.testing.assert_array_equal(one, other)


def test_bad_arguments_are_refused():
    environment = navigation()
    value = keras_meta.rl.KerasValueNetwork(
        environment.observation_spec(),
        keras_meta.backbones.mlp((2,), (4,), None),
    )
    agent = make_agent(environment)
    specs = environment.time_step_spec(), environment.action_spec()
    for error, message, call in (
        (
            TypeError,
            "KerasDistributionNetwork",
            lambda: keras_meta.rl.MAMLAgent(*specs, value),
        ),
        (
            ValueError,
            "`inner_steps`",
            lambda: make_agent(environment, inner_steps=0),
        ),
        (ValueError, "`rollouts`", lambda: make_agent(environment, rollouts=0)),
        (
            ValueError,
            "`outer_update`",
            lambda: make_agent(environment, outer_update="a2c"),
        ),
        (ValueError, "`discount`", lambda: make_agent(environment, discount=2)),
        (
            TypeError,
            "UpdateRule",
            lambda: make_agent(environment, update_rule="sgd"),
        ),
        (
            TypeError,
            "`keras.optimizers.Optimizer`",
            lambda: make_agent(environment, optimizer="adam"),
        ),
        (
            ValueError,
            "must have an optimizer",
            lambda: make_agent(environment, optimizer=None).train(
                collect(agent, environment)
            ),
        ),
        (
            ValueError,
            "Each inner step must have a rollout",
            lambda: make_agent(environment, inner_steps=3).evaluate(
                environment, 2, rollouts=2
            ),
        ),
        (
            ValueError,
            "multiple of the inner",
            lambda: make_agent(environment, inner_steps=2).evaluate(
                environment, 2, rollouts=3
            ),
        ),
        (ValueError, "`tasks`", lambda: agent.evaluate(environment, 0)),
        (
            TypeError,
            "`agent` must be",
            lambda: keras_meta.rl.AgentModel(value, environment),
        ),
        (
            TypeError,
            "`environment` must be",
            lambda: keras_meta.rl.AgentModel(agent, "env"),
        ),
        (
            ValueError,
            "`steps`",
            lambda: keras_meta.rl.RolloutDriver(environment, agent.policy, 0),
        ),
    ):
        with pytest.raises(error, match=message):
            call()


def test_a_driver_hands_its_rollouts_to_observers():
    environment = navigation()
    agent = make_agent(environment)
    seen = []
    driver = keras_meta.rl.RolloutDriver(
        environment, agent.collect_policy, steps=3, observers=[seen.append]
    )
    experience, _ = driver.run(environment.sample_tasks(4))
    assert experience.reward.shape == (4, 3)
    np.testing.assert_array_equal(seen[0].reward, experience.reward)
    assert rollouts.first_rollout(experience).shape == (4, 3)
