import numpy as np
import tensorflow as tf

import keras_meta.rl  # noqa: F401  (makes TF-Agents usable)
from keras_meta.rl import advantages
from keras_meta.rl import rollouts


def experience_of(reward, last):
    reward = np.asarray(reward, "float32")
    return rollouts.from_parts(
        np.zeros((*reward.shape, 1), "float32"),
        np.zeros(reward.shape, "int32"),
        tf.constant(reward),
        np.asarray(last),
    )


def test_returns_are_cut_where_a_rollout_ends():
    experience = experience_of([[1, 2, 4, 8]], [[0, 1, 0, 1]])
    returns = advantages.discounted_returns(experience, 0.5)
    np.testing.assert_allclose(returns, [[2.0, 2.0, 8.0, 8.0]])
    np.testing.assert_allclose(
        rollouts.first_rollout(experience), [[1, 1, 0, 0]]
    )
    np.testing.assert_allclose(rollouts.first_returns(experience), [3.0])


def test_generalized_advantages_are_those_of_the_sum():
    numbers = np.random.default_rng(0)
    reward = numbers.normal(size=(1, 5)).astype("float32")
    values = numbers.normal(size=(1, 5)).astype("float32")
    last_value = numbers.normal(size=1).astype("float32")
    experience = experience_of(reward, [[0, 0, 0, 0, 0]])
    found = advantages.generalized_advantages(
        experience, tf.constant(values), tf.constant(last_value), 0.9, 0.7
    )
    following = np.concatenate([values[0, 1:], last_value])
    errors = reward[0] + 0.9 * following - values[0]
    expected = [
        sum((0.9 * 0.7) ** n * error for n, error in enumerate(errors[t:]))
        for t in range(5)
    ]
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    # Trusting the rewards alone, they are the returns less the values.
    ended = experience_of(reward, [[0, 0, 0, 0, 1]])
    found = advantages.generalized_advantages(
        ended, tf.constant(values), tf.constant(last_value), 0.9, 1.0
    )
    returns = advantages.discounted_returns(ended, 0.9)
    np.testing.assert_allclose(found, returns - values, rtol=1e-4, atol=1e-5)


def test_the_baseline_is_a_least_squares_fit_of_each_task():
    numbers = np.random.default_rng(0)
    rows, steps = 6, 10
    observations = numbers.normal(size=(rows, steps, 2)).astype("float32")
    returns = numbers.normal(size=(rows, steps)).astype("float32")
    weight = np.ones((rows, steps), "float32")
    weight[0, 7:] = 0
    fitted = advantages.linear_baseline(
        tf.constant(observations), tf.constant(returns), weight, 2
    ).numpy()
    time = np.broadcast_to(np.arange(steps)[:, None] / steps, (rows, steps, 1))
    features = np.concatenate(
        [observations, observations**2, time, time**2, time**3, time**0], -1
    )
    for task in (slice(0, 3), slice(3, 6)):
        counted = weight[task].astype(bool)
        solution, *_ = np.linalg.lstsq(
            features[task][counted], returns[task][counted], rcond=None
        )
        expected = features[task] @ solution
        np.testing.assert_allclose(
            fitted[task][counted], expected[counted], atol=6e-2
        )
        residual = np.mean((returns[task] - fitted[task])[counted] ** 2)
        best = np.mean((returns[task] - expected)[counted] ** 2)
        assert residual < best * 1.001


def test_normalized_advantages_have_mean_0_and_deviation_1_in_each_task():
    numbers = np.random.default_rng(0)
    values = numbers.normal(3.0, 5.0, size=(4, 8)).astype("float32")
    weight = np.ones((4, 8), "float32")
    weight[1, 4:] = 0
    found = advantages.normalized(tf.constant(values), weight, 2).numpy()
    for task in (slice(0, 2), slice(2, 4)):
        counted = found[task][weight[task].astype(bool)]
        np.testing.assert_allclose(counted.mean(), 0.0, atol=1e-6)
        np.testing.assert_allclose(counted.std(), 1.0, rtol=1e-5)
