"""How much better actions were than expected: returns and baselines."""

import tensorflow as tf
from tf_agents.trajectories import time_step as time_steps

from keras_meta import ridge_regression
from keras_meta.rl import vectors


def backwards(rewards, factors):
    """Adds up from the end: `total = reward + factor * total_after`.

    Args:
        rewards: Tensor `[rows, steps]`.
        factors: Tensor `[rows, steps]`, of what follows a step.

    Returns:
        Tensor `[rows, steps]`.
    """
    rewards, factors = tf.transpose(rewards), tf.transpose(factors)
    totals = tf.scan(
        lambda after, step: step[0] + step[1] * after,
        (rewards, factors),
        tf.zeros_like(rewards[0]),
        reverse=True,
    )
    return tf.transpose(totals)


def continues(experience):
    """Returns 1 where a step is followed by one of the same rollout.

    Args:
        experience: A TF-Agents `Trajectory` of tensors `[rows, steps, ...]`.

    Returns:
        Float tensor `[rows, steps]`.
    """
    last = tf.equal(experience.next_step_type, time_steps.StepType.LAST)
    return tf.cast(~last, tf.float32)


def discounted_returns(experience, discount):
    """Returns what follows each step in its rollout, discounted.

    Args:
        experience: A TF-Agents `Trajectory` of tensors `[rows, steps, ...]`.
        discount: Float from 0 to 1, for each step.

    Returns:
        Float tensor `[rows, steps]`.
    """
    return backwards(experience.reward, discount * continues(experience))


def generalized_advantages(experience, values, last_value, discount, decay):
    """Returns the generalized advantages.

    Args:
        experience: A TF-Agents `Trajectory` of tensors `[rows, steps, ...]`.
        values: Float tensor `[rows, steps]`, the expected returns.
        last_value: Float tensor `[rows]`, the expected return after the last
            step.
        discount: Float from 0 to 1, for each step.
        decay: Float from 0 to 1: 0 trusts the values, 1 the rewards.

    Returns:
        Float tensor `[rows, steps]`.

    Reference:
        - [Schulman et al., 2016](https://arxiv.org/abs/1506.02438)
    """
    following = tf.concat([values[:, 1:], last_value[:, None]], axis=1)
    going_on = discount * continues(experience)
    errors = experience.reward + going_on * following - values
    return backwards(errors, decay * going_on)


def linear_baseline(observations, returns, weight, tasks):
    """Fits returns by a linear model of the observation and the time.

    One model for each task, of the observation, its square, and three powers
    of the time.

    Args:
        observations: Nested structure of tensors `[rows, steps, ...]`; the
            rows of one task stand together.
        returns: Float tensor `[rows, steps]`.
        weight: Float tensor `[rows, steps]`, 0 for what does not count.
        tasks: Integer, the number of tasks.

    Returns:
        Float tensor `[rows, steps]`, the expected returns.

    Reference:
        - [Duan et al., 2016](https://arxiv.org/abs/1604.06778)
    """
    rows, length = tf.unstack(tf.shape(returns))
    seen = tf.clip_by_value(vectors.of_steps(observations), -10.0, 10.0)
    time = tf.cast(tf.range(length) / length, tf.float32)
    time = tf.broadcast_to(time[None, :, None], [rows, length, 1])
    features = tf.concat(
        [seen, seen**2, time, time**2, time**3, tf.ones_like(time)], axis=-1
    )
    # Powers of the time are so much alike that single precision would add
    # noise of its own.
    x, y, weight = (
        tf.cast(tf.reshape(part, [tasks, -1, *part.shape[2:]]), tf.float64)
        for part in (features, returns[..., None], weight)
    )
    solution = ridge_regression.solve(x, y, weight, 1e-5)
    values = tf.reshape(tf.matmul(x, solution), [rows, length])
    return tf.cast(values, returns.dtype)


def normalized(advantages, weight, tasks):
    """Scales advantages to mean 0 and deviation 1 within each task.

    Args:
        advantages: Float tensor `[rows, steps]`; the rows of one task stand
            together.
        weight: Float tensor `[rows, steps]`, 0 for what does not count.
        tasks: Integer, the number of tasks.

    Returns:
        Float tensor `[rows, steps]`.
    """
    center, deviation = moments(advantages, weight, tasks)
    by_task = tf.reshape(advantages, [tasks, -1])
    scaled = (by_task - center) / (deviation + 1e-8)
    return tf.reshape(scaled, tf.shape(advantages))


def moments(values, weight, tasks):
    """Returns the means and the deviations of values within each task.

    Args:
        values: Float tensor `[rows, steps]`; the rows of one task stand
            together.
        weight: Float tensor `[rows, steps]`, 0 for what does not count.
        tasks: Integer, the number of tasks.

    Returns:
        A tuple of float tensors `[tasks, 1]`.
    """
    values = tf.reshape(values, [tasks, -1])
    weight = tf.reshape(weight, [tasks, -1])
    count = tf.maximum(tf.reduce_sum(weight, axis=1, keepdims=True), 1.0)

    def mean(values):
        return tf.reduce_sum(values * weight, axis=1, keepdims=True) / count

    center = mean(values)
    return center, tf.sqrt(mean((values - center) ** 2))


def mean(values, weight):
    """Returns the weighted mean of `values`."""
    total = tf.reduce_sum(values * weight)
    return total / tf.maximum(tf.reduce_sum(weight), 1.0)
