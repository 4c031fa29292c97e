import numpy as np
import pytest
import tensorflow as tf

from keras_meta.rl import environments
from keras_meta.rl.environments import trials as trials_module
from tests.rl.environments import contract


class TestTrials(contract.TaskFamilyContract):
    last_discount = 0.0

    def make_family(self, **settings):
        bandits = environments.Bandits(arms=3, horizon=2, batch_size=4)
        return environments.Trials(bandits, rollouts=3, **settings)

    def test_rows_can_be_restarted_at_once(self, family):
        with pytest.raises(NotImplementedError, match="`Trials` within"):
            family.restart(None, None, None)


class TestTrialsThatEndEarly(contract.TaskFamilyContract):
    last_discount = 0.0

    def make_family(self, **settings):
        mazes = environments.Mazes(size=3, horizon=3, batch_size=4)
        return environments.Trials(mazes, rollouts=2, **settings)

    def test_rows_can_be_restarted_at_once(self, family):
        pass


def step_of(family, carry, actions):
    carry, time_step = family.advance(carry, tf.constant(actions))
    return carry, tf.nest.map_structure(np.asarray, time_step)


def test_what_is_joined_with_an_observation():
    # Moves of a point: continuous, and a rollout may end early.
    points = environments.PointNavigation(horizon=2)
    family = environments.Trials(points, rollouts=2)
    goal = tf.constant([[0.5, 0.5], [0.1, 0.1]])
    carry, time_step = family.start(goal, tf.constant([1, 2]))
    np.testing.assert_array_equal(time_step.observation, np.zeros([2, 6]))
    move = [[0.1, 0.1], [0.1, 0.1]]
    carry, step = step_of(family, carry, move)
    # The second row is at its goal: the next rollout begins with this step.
    np.testing.assert_allclose(
        step.observation,
        [[0.1, 0.1, 0.1, 0.1, -0.32, 0], [0, 0, 0.1, 0.1, 0, 1]],
        atol=1e-6,
    )
    np.testing.assert_array_equal(step.step_type, [1, 1])
    np.testing.assert_array_equal(step.discount, [1, 1])
    carry, step = step_of(family, carry, move)
    # The second row has ended both rollouts, the first row one.
    np.testing.assert_array_equal(step.step_type, [1, 2])
    np.testing.assert_array_equal(step.discount, [1, 0])
    np.testing.assert_array_equal(step.observation[:, -1], [1, 1])
    carry, step = step_of(family, carry, move)
    np.testing.assert_array_equal(step.step_type, [1, 0])
    np.testing.assert_array_equal(step.observation[1], np.zeros(6))
    assert step.reward[1] == 0


def test_integer_actions_are_joined_one_hot():
    bandits = environments.Bandits(arms=3, horizon=1)
    family = environments.Trials(bandits, rollouts=2)
    tasks = tf.constant([[1.0, 0.0, 1.0]] * 2)
    carry, _ = family.start(tasks, tf.constant([1, 2]))
    _, step = step_of(family, carry, [2, 1])
    np.testing.assert_array_equal(
        step.observation, [[0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 1]]
    )


def test_returns_by_rollout():
    points = environments.PointNavigation("distance", horizon=2)
    family = environments.Trials(points, rollouts=2)
    goal = tf.constant([[0.5, 0.0], [0.1, 0.0]])
    carry, before = family.start(goal, tf.constant([1, 2]))
    observations, rewards, types = [], [], []
    for _ in range(4):
        carry, step = step_of(family, carry, [[0.1, 0.0]] * 2)
        observations.append(before.observation)
        types.append(step.step_type)
        rewards.append(step.reward)
        before = step

    class Experience:
        observation = tf.stack(observations, axis=1)
        reward = tf.stack(rewards, axis=1)
        # As in a trajectory: the type of the step before the action.
        step_type = tf.stack([[0, 0], *types[:-1]], axis=1)

    returns = trials_module.returns_by_rollout(Experience, 2)
    np.testing.assert_allclose(returns, [[-0.7, -0.7], [0, 0]], atol=1e-6)


def test_bad_input():
    bandits = environments.Bandits()
    with pytest.raises(TypeError, match="must be a `TaskFamily`. Received"):
        environments.Trials("bandits", 2)
    with pytest.raises(ValueError, match="`rollouts` must be an integer of 1"):
        environments.Trials(bandits, 0)
    with pytest.raises(ValueError, match="`batch_size` must be an integer"):
        environments.Trials(bandits, 2, batch_size=0)
