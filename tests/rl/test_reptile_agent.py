import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.ppo import ppo_kl_penalty_agent
from tf_agents.agents.reinforce import reinforce_agent
from tf_agents.networks import actor_distribution_network
from tf_agents.networks import value_network
from tf_agents.policies import policy_saver
from tf_agents.trajectories import time_step as time_steps
from tf_agents.utils import common

import keras_meta.rl
from keras_meta.rl import inner_training
from keras_meta.rl import inner_training_agent
from keras_meta.rl import replay_windows
from keras_meta.rl.environments import Bandits
from keras_meta.rl.environments import PointNavigation
from keras_meta.rl.environments import TabularMDPs

POINTS = PointNavigation(reward="distance", horizon=3, batch_size=2)
TABLES = TabularMDPs(states=2, actions=3, horizon=3, batch_size=2)
GOALS = POINTS.sample_tasks(2)


def reinforce():
    """An agent on policy with an optimizer that remembers."""
    keras.utils.set_random_seed(1)
    network = keras_meta.rl.KerasDistributionNetwork(
        POINTS.observation_spec(),
        POINTS.action_spec(),
        keras_meta.backbones.mlp((2,), (3,), None, activation="tanh"),
    )
    return reinforce_agent.ReinforceAgent(
        POINTS.time_step_spec(),
        POINTS.action_spec(),
        network,
        keras.optimizers.Adam(0.1),
        train_step_counter=tf.Variable(0, trainable=False, dtype=tf.int64),
    )


def dqn():
    model = keras_meta.backbones.mlp((2,), (4,), None)
    return keras_meta.rl.agents.dqn(TABLES, model, learning_rate=0.01)


def reptile(make=reinforce, rate=1.0, **settings):
    settings = {
        "rollouts": 2,
        "inner_iterations": 1,
        "gradient_steps": 3,
        "minibatch_size": 8,
        **settings,
    }
    optimizer = keras.optimizers.SGD(rate) if rate else None
    return keras_meta.rl.ReptileAgent(make, optimizer, **settings)


def learn(agent, environment, tasks):
    function = tf.function(
        lambda tasks: agent.learn(environment, tasks), autograph=False
    )
    return function(tasks)


def weights_of(agent):
    return [variable.numpy() for variable in agent.outer_variables]


def assert_all_close(ones, others, **tolerance):
    assert len(ones) == len(others)
    for one, other in zip(ones, others):
        np.testing.assert_allclose(one, other, **tolerance)


@pytest.fixture
def recorded(monkeypatch):
    """Rollouts that are the same for whoever collects in a task."""
    policy = reinforce().collect_policy
    rows = [tf.repeat(goal[None], 2, axis=0) for goal in GOALS]
    found = [inner_training.collect_rows(POINTS, policy, row) for row in rows]

    def collect_rows(environment, policy, rows):
        """Returns what was recorded for the goal of the first row."""
        first = tf.reduce_all(tf.equal(rows[0], GOALS[0]))
        return tf.nest.map_structure(
            lambda one, other: tf.where(first, one, other), *found
        )

    monkeypatch.setattr(inner_training, "collect_rows", collect_rows)
    return found


def trained_alone(experience, iterations):
    agent = reinforce()
    for _ in range(iterations):
        agent.train(experience)
    return [variable.numpy() for variable in agent._actor_network.weights]


def test_with_one_task_and_the_whole_way_it_is_the_agent_itself(recorded):
    agent = reptile(inner_iterations=2)
    info = agent.learn(POINTS, GOALS[:1])
    assert np.isfinite(info.loss)
    assert set(info.extra) == {"return_before", "return_after"}
    alone = trained_alone(recorded[0], iterations=2)
    assert_all_close(weights_of(agent), alone, rtol=1e-5, atol=1e-7)
    assert agent.train_step_counter == 1


def test_weights_go_a_part_of_the_way_to_the_mean_of_the_tasks(recorded):
    agent = reptile(rate=0.25, inner_iterations=2)
    start = weights_of(agent)
    agent.learn(POINTS, GOALS)
    # In the second task the optimizer remembers nothing of the first.
    ends = [trained_alone(found, iterations=2) for found in recorded]
    wanted = [
        old + 0.25 * ((one + other) / 2 - old)
        for old, one, other in zip(start, *ends)
    ]
    assert_all_close(weights_of(agent), wanted, rtol=1e-5, atol=1e-7)


def kl_penalty_agent():
    """Networks and optimizer of Keras 2, and all the state there can be."""
    spec = POINTS.observation_spec()
    return ppo_kl_penalty_agent.PPOKLPenaltyAgent(
        POINTS.time_step_spec(),
        POINTS.action_spec(),
        actor_net=actor_distribution_network.ActorDistributionNetwork(
            spec, POINTS.action_spec(), fc_layer_params=(3,)
        ),
        value_net=value_network.ValueNetwork(spec, fc_layer_params=(3,)),
        # One of Keras 2: `tf.keras`, while TF-Agents is in use.
        optimizer=getattr(tf, "keras").optimizers.Adam(0.01),
        num_epochs=1,
        initial_adaptive_kl_beta=1.0,
        adaptive_kl_target=1e-4,
        adaptive_kl_tolerance=0.1,
        kl_cutoff_factor=0.0,
        kl_cutoff_coef=0.0,
        train_step_counter=tf.Variable(0, trainable=False, dtype=tf.int64),
    )


@pytest.mark.parametrize("make", [kl_penalty_agent, dqn])
def test_a_task_begins_with_everything_as_it_was_built(make):
    environment = TABLES if make is dqn else POINTS
    training = inner_training.InnerTraining(make(), 3, 8)
    own = [*training.weights, *training._others]
    start = training.values()
    training.begin(start)
    before = [variable.numpy() for variable in own]
    rows = tf.nest.map_structure(
        lambda leaf: tf.repeat(leaf, 2, axis=0), environment.sample_tasks(1)
    )
    run = tf.function(
        lambda: training.run(environment, rows, 2, 2), autograph=False
    )
    run()
    changed = [
        variable.name
        for variable, old in zip(own, before)
        if not np.array_equal(variable, old)
    ]
    # Moments of the optimizer, counters, normalizers, target networks.
    assert len(changed) > 2 * len(training.weights)
    training.begin(start)
    for variable, old in zip(own, before):
        np.testing.assert_array_equal(variable, old, variable.name)


def test_a_task_does_not_depend_on_the_one_before_it():
    agent = reptile(dqn, inner_iterations=2)
    tasks = TABLES.sample_tasks(2)
    one, other = [
        tf.nest.map_structure(lambda leaf: leaf[n : n + 1], tasks)
        for n in range(2)
    ]
    train = tf.function(
        lambda task: agent.train_in_tasks(TABLES, task, 2), autograph=False
    )
    tf.random.set_seed(3)
    alone = train(one)
    train(other)
    tf.random.set_seed(3)
    after = train(one)
    assert any(np.ptp(value, axis=None) > 0 for value in alone.values)
    tf.nest.map_structure(np.testing.assert_array_equal, alone, after)


def test_windows_stay_in_their_row_and_their_rollout():
    spec = reinforce().collect_data_spec
    iterations, rows, steps, length = 3, 2, 5, 3
    number = np.arange(iterations * rows * steps).reshape(3, 2, 5)
    memory = tf.nest.map_structure(
        lambda leaf: tf.zeros([3, 2, 5, *leaf.shape], leaf.dtype), spec
    )
    step_type = np.ones_like(number)
    step_type[0, 1, 2] = time_steps.StepType.LAST
    memory = memory.replace(
        reward=tf.constant(number, tf.float32),
        step_type=tf.constant(step_type, tf.int32),
    )
    starts = replay_windows.starts(memory, 2, length)
    found = replay_windows.gather(memory, starts, length).reward.numpy()
    wanted = [
        [first, first + 1, first + 2]
        for first in number[:2, :, :3].ravel()
        # The end of a rollout may be the last step of a window.
        if first not in (number[0, 1, 1], number[0, 1, 2])
    ]
    np.testing.assert_array_equal(found, wanted)


@pytest.fixture(scope="module")
def fitted():
    """A DQN in an `AgentModel`, trained by `fit()`."""
    agent = reptile(dqn, rate=None)
    model = keras_meta.rl.AgentModel(agent, TABLES)
    model.compile(keras.optimizers.SGD(0.5))
    start = weights_of(agent)
    history = model.fit(
        TABLES.tasks(2),
        steps_per_epoch=2,
        validation_data=TABLES.tasks(2, "validation", batches=1),
        verbose=0,
    )
    return agent, model, start, history.history


def test_fit_logs_returns_before_and_after(fitted):
    agent, model, start, logs = fitted
    names = {"loss", "return_before", "return_after"}
    assert names | {"val_return_before", "val_return_after"} == set(logs)
    assert all(np.isfinite(values).all() for values in logs.values())
    moved = [
        not np.array_equal(*pair) for pair in zip(start, weights_of(agent))
    ]
    assert all(moved)
    assert agent.train_step_counter == 2


def test_weights_of_the_model_are_those_of_the_agent(fitted, tmp_path):
    agent, model, start, _ = fitted
    trained = weights_of(agent)
    model.save_weights(tmp_path / "model.weights.h5")
    for variable, value in zip(agent.outer_variables, start):
        variable.assign(value)
    model.load_weights(tmp_path / "model.weights.h5")
    assert_all_close(weights_of(agent), trained, rtol=0)


def test_the_curve_counts_rollouts(fitted):
    agent, _, _, _ = fitted
    before = weights_of(agent)
    curve = agent.evaluate(TABLES, tasks=3, rollouts=4)
    assert curve.rollouts == [0, 2, 4]
    assert curve.values.shape == (3, 3)
    assert curve.intervals.shape == (3,)
    # To evaluate is not to learn.
    assert_all_close(weights_of(agent), before, rtol=0)


def test_an_adapted_policy_acts_in_plain_tensorflow(fitted, tmp_path):
    agent, _, _, _ = fitted
    before = weights_of(agent)
    TABLES.set_tasks(TABLES.sample_task("test"))
    policy = agent.adapt(TABLES, rollouts=4)
    assert_all_close(weights_of(agent), before, rtol=0)
    own = {variable.ref() for variable in policy.variables()}
    assert own.isdisjoint(v.ref() for v in agent.outer_variables)
    assert not np.array_equal(policy.variables()[0], before[0])
    policy_saver.PolicySaver(policy).save(str(tmp_path / "policy"))
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    step = TABLES.reset()
    np.testing.assert_array_equal(
        loaded.action(step).action, policy.action(step).action
    )


def test_training_goes_on_from_a_checkpoint(recorded, tmp_path):
    def make():
        agent = keras_meta.rl.ReptileAgent(
            reinforce, keras.optimizers.Adam(0.1), 2, 1
        )
        checkpoint = common.Checkpointer(str(tmp_path), agent=agent)
        return agent, checkpoint

    agent, checkpoint = make()
    agent.learn(POINTS, GOALS)
    checkpoint.save(0)
    agent.learn(POINTS, GOALS)
    resumed, _ = make()
    assert resumed.train_step_counter == 1
    resumed.learn(POINTS, GOALS)
    assert_all_close(weights_of(resumed), weights_of(agent), rtol=1e-6)


def test_networks_of_keras_2_are_trained_but_not_saved_by_keras(recorded):
    agent = reptile(kl_penalty_agent)
    info = [leaf.shape for leaf in agent.outer_variables]
    assert (2, 3) in [tuple(shape) for shape in info]
    with pytest.raises(TypeError, match="must be of Keras 3. Received"):
        keras_meta.rl.AgentModel(agent, POINTS)


def test_what_it_cannot_take_is_an_error_that_says_so():
    with pytest.raises(TypeError, match="function without arguments.*Received"):
        reptile(make=3)
    with pytest.raises(TypeError, match="returns an agent of TF-Agents. Rec"):
        reptile(make=lambda: 3)
    with pytest.raises(ValueError, match="`inner_iterations` must be an int"):
        reptile(inner_iterations=0)
    with pytest.raises(ValueError, match="`gradient_steps` must be an integer"):
        reptile(gradient_steps=0.5)
    shared = dqn()
    with pytest.raises(ValueError, match="must make new networks and optimi"):
        reptile(lambda: shared)
    optimizer = keras.optimizers.Adam()
    with pytest.raises(ValueError, match="whose agents share some. Make all"):
        reptile(lambda: with_optimizer(dqn(), optimizer))
    agent = reptile(dqn, rate=None, rollouts=2)
    with pytest.raises(ValueError, match="must have the specifications of the"):
        agent.learn(POINTS, GOALS)
    with pytest.raises(ValueError, match="must have the specifications of the"):
        agent.adapt(Bandits(arms=3))
    with pytest.raises(ValueError, match="a multiple of those of an inner it"):
        agent.evaluate(TABLES, tasks=2, rollouts=3)
    with pytest.raises(ValueError, match="must have an optimizer"):
        agent.train(
            inner_training_agent.TaskTrainings(0.0, tf.zeros([1, 2]), [])
        )


def test_an_agent_without_weights_is_refused():
    def weightless():
        agent = dqn()
        agent.__class__ = type(
            "Weightless", (type(agent),), {"trainable_variables": ()}
        )
        return agent

    with pytest.raises(ValueError, match="must have weights. Received"):
        reptile(weightless)
    with pytest.raises(TypeError, match="must be those of Keras. Rec"):
        optimizer = tf.compat.v1.train.AdamOptimizer(0.1)
        reptile(lambda: with_optimizer(dqn(), optimizer))


def with_optimizer(agent, optimizer):
    agent._optimizer = optimizer
    return agent
