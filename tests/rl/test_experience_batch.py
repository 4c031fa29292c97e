import numpy as np
import tensorflow as tf

import keras_meta.rl  # noqa: F401  (makes TF-Agents usable)
from keras_meta.rl import advantages
from keras_meta.rl.experience_batch import experience_batch
from tests.rl import test_advantages

REWARD = np.array([[1.0, 2.0], [3.0, 9.0], [0.0, 5.0], [4.0, 4.0]])
# The second rollout ends after one step.
LAST = np.array([[0, 1], [1, 0], [0, 1], [0, 1]])


def experience_of(reward, last):
    experience = test_advantages.experience_of(reward, last)
    return tf.nest.map_structure(tf.convert_to_tensor, experience)


def test_a_batch_holds_the_rows_of_each_task_together():
    batch = experience_batch(experience_of(REWARD, LAST), 2, 0.5, 1.0)
    assert batch["observation"].shape == (2, 4, 1)
    np.testing.assert_array_equal(batch["weight"][0], [1, 1, 1, 0])
    np.testing.assert_array_equal(batch["weight"][1], [1, 1, 1, 1])
    for task in range(2):
        counted = batch["advantage"][task][batch["weight"][task] > 0]
        np.testing.assert_allclose(np.mean(counted), 0.0, atol=1e-6)
        np.testing.assert_allclose(np.std(counted), 1.0, rtol=1e-4)


def test_credit_is_what_a_task_got_more_than_the_others_for_each_action():
    experience = experience_of(REWARD, LAST)
    batch = experience_batch(experience, 2, 0.5, 1.0)
    returns = advantages.discounted_returns(experience, 0.5)
    weight = tf.reshape(batch["weight"], [4, 2])
    values = advantages.linear_baseline(
        experience.observation, returns, weight, 2
    )
    missed = (returns - values).numpy().reshape(2, 4)
    counted = np.reshape(weight, [2, 4]).astype(bool)
    got = np.array([(2.0 + 3.0) / 2, (2.5 + 6.0) / 2])
    lengths = np.array([1.5, 2.0])
    deviations = [m[c].std() for m, c in zip(missed, counted)]
    expected = (got - got[::-1]) / deviations / lengths
    assert np.all(np.abs(expected * lengths) < 10)
    np.testing.assert_allclose(batch["credit"], expected, rtol=1e-4)


def test_credit_is_bounded_where_all_rollouts_are_alike():
    reward = np.array([[1.0], [1.0], [0.0], [0.0]])
    batch = experience_batch(
        experience_of(reward, np.ones([4, 1])), 2, 1.0, 1.0
    )
    np.testing.assert_allclose(batch["credit"], [10.0, -10.0])
