import numpy as np
import pytest
import tensorflow as tf

from keras_meta.rl import environments
from tests.rl.environments import contract


class TestPointNavigation(contract.TaskFamilyContract):
    def make_family(self, **settings):
        return environments.PointNavigation(
            **dict(horizon=6, batch_size=4) | settings
        )


@pytest.mark.parametrize("reward", ["squared_distance", "distance"])
def test_the_point_moves_as_it_is_told(reward):
    family = environments.PointNavigation(reward)
    goals = family.sample_tasks(5).numpy()
    assert (np.abs(goals) <= 0.5).all()
    generator = np.random.default_rng(0)
    carry, time_step = family.start(tf.constant(goals), tf.constant([1, 2]))
    where = np.zeros([5, 2], "float32")
    np.testing.assert_array_equal(time_step.observation, where)
    for _ in range(20):
        # Some of them out of bounds.
        action = generator.uniform(-0.15, 0.15, [5, 2]).astype("float32")
        carry, time_step = family.advance(carry, tf.constant(action))
        where = where + np.clip(action, -0.1, 0.1)
        np.testing.assert_allclose(time_step.observation, where, atol=1e-6)
        squared = np.sum((where - goals) ** 2, axis=1)
        expected = -squared if reward == "squared_distance" else -(squared**0.5)
        np.testing.assert_allclose(time_step.reward, expected, atol=1e-6)


def test_a_rollout_ends_near_the_goal():
    family = environments.PointNavigation()
    goals = tf.constant([[0.1, 0.05], [0.1, 0.3]])
    carry, _ = family.start(goals, tf.constant([1, 2]))
    carry, time_step = family.advance(carry, tf.constant([[0.095, 0.05]] * 2))
    np.testing.assert_array_equal(time_step.step_type, [2, 1])
    np.testing.assert_array_equal(time_step.discount, [0.0, 1.0])
    carry, time_step = family.advance(carry, tf.constant([[0.1, 0.1]] * 2))
    np.testing.assert_array_equal(time_step.step_type, [0, 1])
    np.testing.assert_array_equal(time_step.observation[0], [0.0, 0.0])


def test_a_point_that_stays_gets_what_the_description_says():
    for reward, expected in (("squared_distance", -17), ("distance", -38)):
        family = environments.PointNavigation(reward)
        goals = family.sample_tasks(5000)
        carry, _ = family.start(goals, tf.constant([1, 2]))
        _, time_step = family.advance(carry, tf.zeros([5000, 2]))
        assert abs(100 * np.mean(time_step.reward) - expected) < 1


def test_unknown_rewards_are_refused():
    with pytest.raises(ValueError, match="`reward` must be one of .*Received"):
        environments.PointNavigation("sparse")
    with pytest.raises(ValueError, match="`radius` must be a finite number"):
        environments.PointNavigation(radius=-1.0)
