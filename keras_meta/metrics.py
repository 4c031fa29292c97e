"""Metrics of answers that are normal distributions.

They are functions, for `compile(metrics=[...])` of any Keras model and for
`keras_meta.evaluate_episodes(metric=...)`.
"""

import keras
import tensorflow as tf

__all__ = ["gaussian_coverage", "gaussian_mean_squared_error"]

# Of a normal distribution, 95 % are nearer to the mean, in deviations.
_TWO_SIDED = 1.959964


@keras.saving.register_keras_serializable(package="keras_meta")
def gaussian_mean_squared_error(y_true, y_pred):
    """Returns the squared error of the means, the deviations left aside.

    Args:
        y_true: Tensor `[..., size]`, the targets.
        y_pred: Tensor `[..., 2 * size]`, the means, and then the standard
            deviations.

    Returns:
        Tensor `[...]`, the mean over the parts of a target.

    Raises:
        ValueError: Where there are not two numbers for each target.

    Example:

    ```python
    error = keras_meta.metrics.gaussian_mean_squared_error
    error([[1.0]], [[3.0, 0.5]])  # [4.0]
    ```
    """
    mean, _ = split_gaussian(y_true, y_pred)
    error = tf.cast(y_true, mean.dtype) - mean
    return tf.reduce_mean(tf.square(error), axis=-1)


@keras.saving.register_keras_serializable(package="keras_meta")
def gaussian_coverage(y_true, y_pred):
    """Returns how many of the targets lie in the 95 % band.

    The band reaches 1.96 standard deviations to either side of the mean. Where
    the deviations are right, 95 % of the targets lie in it.

    Args:
        y_true: Tensor `[..., size]`, the targets.
        y_pred: Tensor `[..., 2 * size]`, the means, and then the standard
            deviations.

    Returns:
        Tensor `[...]`, the share of the parts of a target.

    Raises:
        ValueError: Where there are not two numbers for each target.

    Example:

    ```python
    coverage = keras_meta.metrics.gaussian_coverage
    coverage([[1.0], [1.0]], [[1.5, 0.5], [3.0, 0.5]])  # [1.0, 0.0]
    ```
    """
    mean, deviation = split_gaussian(y_true, y_pred)
    error = tf.abs(tf.cast(y_true, mean.dtype) - mean)
    inside = tf.cast(error <= _TWO_SIDED * deviation, mean.dtype)
    return tf.reduce_mean(inside, axis=-1)


def split_gaussian(y_true, y_pred):
    """Returns the means and the standard deviations, each like the targets."""
    y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
    if not y_pred.dtype.is_floating:
        y_pred = tf.cast(y_pred, "float32")
    one, other = y_true.shape, y_pred.shape
    known = None not in (one.rank, other.rank) and None not in (
        one[-1],
        other[-1],
    )
    if known and (one.rank != other.rank or other[-1] != 2 * one[-1]):
        raise ValueError(
            "There must be a mean and a standard deviation for each target, "
            "`[..., 2 * size]` for targets `[..., size]`. Received: y_true of "
            f"shape {one} and y_pred of shape {other}."
        )
    mean, deviation = tf.split(y_pred, 2, axis=-1)
    return mean, deviation
