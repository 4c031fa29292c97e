"""Dense layers within a program of XLA on a CPU.

The gradient of a layer's kernel is the product of its inputs, transposed, with
what comes back. XLA makes the transposition part of the product, which takes
small matrices with weights of each task's own three times as long as a product
of a transposed copy. Here the copy is made, and kept apart.
"""

import contextlib
import functools

import keras
import tensorflow as tf

from keras_meta import layer_calls
from keras_meta import xla


def fast_layers(network):
    """Has dense layers multiply by `matmul()` for the length of one call.

    Outside of what is marked as `xla.compiled()` it does nothing.

    Args:
        network: A `keras.Model`.

    Returns:
        A context manager.
    """
    if not xla.compiles_for_cpu():
        return contextlib.nullcontext()
    return layer_calls.replaced(
        [
            (layer, functools.partial(_call, layer))
            for layer in network._flatten_layers()
            if type(layer).call is keras.layers.Dense.call
        ]
    )


def _call(layer, inputs, **kwargs):
    kernel = tf.convert_to_tensor(layer.kernel)
    if not (
        isinstance(inputs, tf.Tensor)
        and inputs.shape.rank == 2
        and inputs.dtype == kernel.dtype
    ):
        return type(layer).call(layer, inputs, **kwargs)
    outputs = matmul(inputs, kernel)
    if layer.bias is not None:
        outputs = keras.ops.add(outputs, layer.bias)
    if layer.activation is not None:
        outputs = layer.activation(outputs)
    return outputs


# Each of the three has the two others for its gradient, of whatever order.


@tf.custom_gradient
def matmul(x, kernel):
    """Returns `x @ kernel`, whose gradient by `kernel` XLA takes faster.

    Args:
        x: Tensor `[examples, inputs]`.
        kernel: Tensor `[inputs, outputs]`, of the same dtype.

    Returns:
        Tensor `[examples, outputs]`.
    """

    def gradient(upstream):
        return _by_inputs(upstream, kernel), _by_kernel(x, upstream)

    return tf.matmul(x, kernel), gradient


@tf.custom_gradient
def _by_inputs(upstream, kernel):
    def gradient(second):
        return matmul(second, kernel), _by_kernel(second, upstream)

    return tf.matmul(upstream, kernel, transpose_b=True), gradient


@tf.custom_gradient
def _by_kernel(x, upstream):
    def gradient(second):
        return _by_inputs(upstream, second), matmul(x, second)

    if 1 in (x.shape[1], upstream.shape[1]):
        # A product with a vector takes no time to transpose.
        return tf.matmul(x, upstream, transpose_a=True), gradient
    return tf.matmul(xla.barrier(tf.transpose(x)), upstream), gradient
