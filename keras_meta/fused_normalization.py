"""Batch normalization of images as one operation of TensorFlow.

Keras writes it as some ten operations, each of which passes over memory;
forwards and backwards they take longer than the convolutions around them. The
one operation takes a quarter of their time. TensorFlow knows its gradient, but
not the gradient of that, which is here.
"""

import keras
import tensorflow as tf

_AXES = [0, 1, 2]


def can_normalize(layer, inputs):
    """Whether `normalize_batch()` does what `layer` does with `inputs`.

    Args:
        layer: A `keras.layers.BatchNormalization`.
        inputs: Tensor, what the layer is called with.

    Returns:
        Boolean.
    """
    return (
        type(layer).call is keras.layers.BatchNormalization.call
        and not getattr(layer, "renorm", False)
        and not layer.synchronized
        and layer.compute_dtype == layer.variable_dtype == "float32"
        and isinstance(inputs, tf.Tensor)
        and inputs.dtype == tf.float32
        and inputs.shape.rank == 4
        and layer.axis in (-1, 3)
    )


def normalize_batch(layer, inputs):
    """Does what `layer` does in training, moving statistics included.

    Args:
        layer: A `keras.layers.BatchNormalization`.
        inputs: Tensor `[examples, height, width, channels]`.

    Returns:
        Tensor of the same shape.
    """
    channels = inputs.shape[-1]
    outputs, mean, variance = normalize(
        inputs,
        tf.convert_to_tensor(layer.gamma)
        if layer.scale
        else tf.ones([channels]),
        tf.convert_to_tensor(layer.beta)
        if layer.center
        else tf.zeros([channels]),
        layer.epsilon,
    )
    for moving, used in (
        (layer.moving_mean, mean),
        (layer.moving_variance, variance),
    ):
        # In an episode the statistics replace those before.
        if layer.momentum:
            used = moving * layer.momentum + used * (1.0 - layer.momentum)
        moving.assign(used)
    return outputs


def normalize(x, scale, offset, epsilon):
    """Normalizes a batch of images by its own statistics.

    Args:
        x: Tensor `[examples, height, width, channels]`, float32.
        scale: Tensor `[channels]`.
        offset: Tensor `[channels]`.
        epsilon: Float, what is added to the variance.

    Returns:
        A tuple of the normalized tensor, the mean and the variance of `x`. All
        three have gradients, and these have, too.
    """
    statistics = []

    @tf.custom_gradient
    def fused(x, scale, offset):
        outputs, mean, variance, *reserved = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=offset,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=epsilon,
        )
        statistics.extend([mean, variance])

        def gradient(upstream):
            return _gradient(upstream, x, scale, reserved, epsilon)

        return outputs, gradient

    outputs = fused(x, scale, offset)
    mean, variance = statistics
    # The operation gives the estimate for all that the batch was drawn from.
    count = tf.cast(tf.size(x) // tf.size(scale), x.dtype)
    variance *= tf.maximum(count - 1.0, 1.0) / count
    return outputs, *_differentiable(x, mean, variance)


def _gradient(upstream, x, scale, reserved, epsilon):
    """Returns the gradient of `normalize()` by its three tensors."""

    @tf.custom_gradient
    def gradient(upstream, x, scale):
        results = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=upstream,
            x=x,
            scale=scale,
            reserve_space_1=reserved[0],
            reserve_space_2=reserved[1],
            reserve_space_3=reserved[2],
            epsilon=epsilon,
        )[:3]

        def gradient_of_gradient(*of_results):
            return _gradient_of_gradient(
                *of_results, upstream, x, scale, epsilon
            )

        return results, gradient_of_gradient

    return gradient(upstream, x, scale)


def _gradient_of_gradient(
    by_x, by_scale, by_offset, upstream, x, scale, epsilon
):
    """Goes back through `_gradient()`, from three tensors to three.

    In closed form, since what TensorFlow derives passes over memory some
    forty times. With means over the batch `E`, `z = (x - E x) / s` and
    `s^2 = E (x - E x)^2 + epsilon`, the gradient of the normalization by `x` is
    `scale / s * (u - E u - z E uz)` of the upstream gradient `u`, by the scale
    it is `n E uz` and by the offset `n E u`. The sum of the three, each times
    what comes back to it, has the derivatives below.
    """
    count = tf.cast(tf.size(x) // tf.size(scale), x.dtype)
    centered = x - tf.reduce_mean(x, _AXES)
    inverse = tf.math.rsqrt(tf.reduce_mean(centered**2, _AXES) + epsilon)
    mean_by_x = tf.reduce_mean(by_x, _AXES)
    mean_upstream = tf.reduce_mean(upstream, _AXES)
    slope_by_x = tf.reduce_mean(by_x * centered, _AXES) * inverse
    slope_upstream = tf.reduce_mean(upstream * centered, _AXES) * inverse
    covariance = (
        tf.reduce_mean(by_x * upstream, _AXES)
        - mean_by_x * mean_upstream
        - slope_by_x * slope_upstream
    )
    # Coefficients of each channel, so that a whole tensor is read, scaled and
    # added as few times as can be.
    factor = scale * inverse
    of_upstream = by_scale - factor * slope_by_x
    of_by_x = -factor * slope_upstream
    to_upstream = (
        factor * by_x
        + (of_upstream * inverse) * centered
        + (by_offset - factor * mean_by_x)
    )
    mean = of_by_x * mean_by_x + of_upstream * mean_upstream
    slope = of_by_x * slope_by_x + of_upstream * slope_upstream
    to_x = (
        (inverse * of_by_x) * by_x
        + (inverse * of_upstream) * upstream
        - (inverse**2 * (slope + factor * covariance)) * centered
        - inverse * mean
    )
    return to_upstream, to_x, count * inverse * covariance


@tf.custom_gradient
def _differentiable(x, mean, variance):
    """Gives the mean and the variance of `x` their gradients by `x`."""

    def gradient(by_mean, by_variance):
        count = tf.cast(tf.size(x) // tf.size(mean), x.dtype)
        centered = x - tf.reduce_mean(x, _AXES)
        by_x = (by_mean + 2.0 * centered * by_variance) / count
        return tf.broadcast_to(by_x, tf.shape(x)), None, None

    return (tf.identity(mean), tf.identity(variance)), gradient
