import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.reinforce import reinforce_agent
from tf_agents.utils import common

import keras_meta.rl
from keras_meta.rl import fine_tuning_agent
from keras_meta.rl.environments import PointNavigation

POINTS = PointNavigation(reward="distance", horizon=3, batch_size=2)
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


def ddpg():
    actor = keras_meta.backbones.mlp((2,), (3,), None)
    critic = keras_meta.backbones.mlp((4,), (3,), None)
    return keras_meta.rl.agents.ddpg(POINTS, actor, critic)


def fine_tuning(make=reinforce):
    return keras_meta.rl.FineTuningAgent(
        make,
        rollouts=2,
        inner_iterations=2,
        gradient_steps=3,
        minibatch_size=4,
    )


def weights_of(agent):
    return [variable.numpy() for variable in agent.outer_variables]


def assert_all_close(ones, others, **tolerance):
    assert len(ones) == len(others)
    for one, other in zip(ones, others):
        np.testing.assert_allclose(one, other, **tolerance)


@pytest.fixture
def recorded(monkeypatch):
    """Rollouts of both tasks that are the same in every step."""
    rows = tf.repeat(GOALS, 2, axis=0)
    found = fine_tuning_agent.collect_rows(
        POINTS, reinforce().collect_policy, rows
    )
    asked = []

    def collect_rows(environment, policy, rows):
        asked.append(rows)
        return found

    monkeypatch.setattr(fine_tuning_agent, "collect_rows", collect_rows)
    yield found
    for wanted in asked:
        np.testing.assert_array_equal(wanted, rows)


def test_it_is_ordinary_training_on_all_tasks_together(recorded):
    agent = fine_tuning()
    alone = reinforce()
    for _ in range(3):
        info = agent.learn(POINTS, GOALS)
        # The optimizer remembers the steps before.
        alone.train(recorded)
    assert set(info.extra) == {"return"}
    returns = tf.reduce_sum(recorded.reward[:, :3], axis=1)
    np.testing.assert_allclose(
        info.extra["return"], tf.reduce_mean(returns), rtol=1e-6
    )
    wanted = [variable.numpy() for variable in alone._actor_network.weights]
    assert_all_close(weights_of(agent), wanted, rtol=1e-6)
    assert agent.train_step_counter == 3


def test_off_policy_each_task_has_its_minibatches():
    agent = fine_tuning(ddpg)
    learn = tf.function(
        lambda tasks: agent.learn(POINTS, tasks), autograph=False
    )
    start = weights_of(agent)
    info = learn(GOALS)
    assert np.isfinite(info.loss)
    assert agent.agent.train_step_counter == 2 * 3
    for old, new in zip(start, weights_of(agent)):
        assert not np.array_equal(old, new)


def test_it_goes_on_from_a_checkpoint(recorded, tmp_path):
    agent = fine_tuning()
    checkpoint = common.Checkpointer(str(tmp_path), agent=agent)
    agent.learn(POINTS, GOALS)
    checkpoint.save(0)
    agent.learn(POINTS, GOALS)
    resumed = fine_tuning()
    common.Checkpointer(str(tmp_path), agent=resumed)
    # With what its own optimizer remembers, too.
    resumed.learn(POINTS, GOALS)
    assert_all_close(weights_of(resumed), weights_of(agent), rtol=1e-6)


def test_training_goes_on_as_if_it_had_not_been_evaluated(recorded):
    one, other = fine_tuning(), fine_tuning()
    one.learn(POINTS, GOALS)
    one.learn(POINTS, GOALS)
    other.learn(POINTS, GOALS)
    curve = other.evaluate(POINTS, tasks=2)
    assert curve.rollouts == [0, 2, 4]
    other.learn(POINTS, GOALS)
    assert_all_close(weights_of(other), weights_of(one), rtol=1e-6)


def test_fit_trains_and_evaluate_adapts():
    agent = fine_tuning()
    model = keras_meta.rl.AgentModel(agent, POINTS)
    model.compile()
    logs = model.fit(POINTS.tasks(2), steps_per_epoch=2, verbose=0).history
    assert set(logs) == {"loss", "return"}
    found = model.evaluate(
        POINTS.tasks(2, "test", batches=1), return_dict=True, verbose=0
    )
    assert {"return_before", "return_after"} <= set(found)


def test_untrained_it_is_training_from_scratch():
    agent = fine_tuning()
    built = reinforce()._actor_network.weights
    assert_all_close(weights_of(agent), built, rtol=0)
    POINTS.set_tasks(GOALS[0])
    policy = agent.adapt(POINTS)
    own = policy.variables()
    assert len(own) == len(built)
    assert not np.array_equal(own[0], built[0])
    assert_all_close(weights_of(agent), built, rtol=0)


def test_an_outer_optimizer_is_an_error_that_says_what_trains():
    agent = fine_tuning()
    model = keras_meta.rl.AgentModel(agent, POINTS)
    with pytest.raises(ValueError, match="with the optimizers of its agent"):
        model.compile("adam")
