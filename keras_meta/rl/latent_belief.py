"""What is believed of a task: normal distributions of a latent variable."""

import collections

import tensorflow as tf

# The mean and the variance of a latent variable, each `[tasks, latent_size]`.
Belief = collections.namedtuple("Belief", ["mean", "variance"])


def prior(count, latent_size):
    """Returns what is believed of tasks of which nothing was seen.

    Args:
        count: Integer, the number of tasks.
        latent_size: Integer, the size of the latent variable.

    Returns:
        A `Belief`: the unit normal distribution.
    """
    zeros = tf.zeros([count, latent_size])
    return Belief(zeros, tf.ones_like(zeros))


def updated(belief, means, variances, weights):
    """Multiplies a belief by normal factors, one for each transition.

    Such a product is normal, and takes its factors in any order, at once or
    one after the other: precisions add up.

    Args:
        belief: A `Belief` of tensors `[tasks, latent_size]`.
        means: Tensor `[tasks, transitions, latent_size]`.
        variances: Tensor like `means`.
        weights: Float tensor `[tasks, transitions]`, 0 where there is no
            transition, and else 1.

    Returns:
        A `Belief` of tensors `[tasks, latent_size]`.
    """
    precisions = weights[..., None] / variances
    precision = 1.0 / belief.variance + tf.reduce_sum(precisions, axis=1)
    total = belief.mean / belief.variance
    total += tf.reduce_sum(precisions * means, axis=1)
    return Belief(total / precision, 1.0 / precision)


def draw(belief):
    """Draws latent variables, through which gradients pass.

    Args:
        belief: A `Belief` of tensors `[tasks, latent_size]`.

    Returns:
        Tensor `[tasks, latent_size]`.
    """
    noise = tf.random.normal(tf.shape(belief.mean))
    return belief.mean + tf.sqrt(belief.variance) * noise


def divergence(belief):
    """Returns the Kullback-Leibler divergence of a belief from the prior.

    Args:
        belief: A `Belief` of tensors `[tasks, latent_size]`.

    Returns:
        Tensor `[tasks]`.
    """
    mean, variance = belief
    terms = variance + tf.square(mean) - 1.0 - tf.math.log(variance)
    return 0.5 * tf.reduce_sum(terms, axis=-1)
