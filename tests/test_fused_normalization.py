import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_meta import fused_normalization
from keras_meta import normalization

SHAPE = (3, 4, 5, 2)


def tensors():
    generator = np.random.default_rng(0)
    x = generator.normal(1.0, 2.0, SHAPE)
    return [tf.constant(a, "float32") for a in (x, [1.3, -0.7], [0.1, 0.2])]


def weigh(*tensors):
    """Joins tensors to a number that depends on each in its own way."""
    generator = np.random.default_rng(1)
    parts = []
    for tensor in tensors:
        weights = generator.normal(size=tensor.shape).astype("float32")
        parts.append(tf.reduce_sum(tf.sin(tensor) * weights))
    return tf.add_n(parts)


def normalized_in_parts(x, scale, offset, epsilon):
    mean = tf.reduce_mean(x, [0, 1, 2])
    variance = tf.reduce_mean((x - mean) ** 2, [0, 1, 2])
    y = (x - mean) * tf.math.rsqrt(variance + epsilon) * scale + offset
    return y, mean, variance


def two_gradients(normalize):
    """What is normalized, its gradients, and the gradients of these."""
    inputs = tensors()
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            results = normalize(*inputs, 1e-3)
            value = weigh(*results)
        gradients = inner.gradient(value, inputs)
        value = weigh(*gradients)
    return [*results, *gradients, *outer.gradient(value, inputs)]


@pytest.mark.parametrize("how", ["eager", "graph", "XLA"])
def test_gradients_of_both_orders_equal_those_of_the_parts(how):
    def run(normalize):
        function = two_gradients
        if how != "eager":
            function = tf.function(
                two_gradients, autograph=False, jit_compile=how == "XLA"
            )
        return function(normalize)

    expected = run(normalized_in_parts)
    for one, other in zip(run(fused_normalization.normalize), expected):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


def images_and_layer(**settings):
    keras.utils.set_random_seed(0)
    layer = keras.layers.BatchNormalization(**settings)
    x = tensors()[0]
    layer.build(x.shape)
    for variable in layer.trainable_variables:
        variable.assign(variable + 0.3)
    return x, layer


@pytest.mark.parametrize(
    "settings", [{}, {"scale": False}, {"center": False, "momentum": 0.5}]
)
def test_a_layer_does_what_it_does_in_keras(settings):
    x, layer = images_and_layer(**settings)
    _, other = images_and_layer(**settings)
    assert fused_normalization.can_normalize(layer, x)
    outputs = fused_normalization.normalize_batch(layer, x)
    np.testing.assert_allclose(outputs, other(x, training=True), atol=1e-5)
    for one, expected in zip(layer.get_weights(), other.get_weights()):
        np.testing.assert_allclose(one, expected, rtol=1e-5)


class Doubled(keras.layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training, mask)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (keras.layers.BatchNormalization(axis=1), SHAPE),
        (keras.layers.BatchNormalization(), (3, 4)),
        (keras.layers.BatchNormalization(dtype="mixed_bfloat16"), SHAPE),
        (Doubled(), SHAPE),
    ],
)
def test_what_it_cannot_do_is_left_to_keras(layer, shape):
    network = keras.Sequential([keras.Input(shape[1:]), layer])
    x = tf.random.stateless_normal(shape, (0, 1))
    assert not fused_normalization.can_normalize(layer, x)
    before = network.get_weights()
    expected = network(x, training=True)
    moved = network.get_weights()
    network.set_weights(before)
    outputs = normalization.call_network(network, x, training=True)
    np.testing.assert_array_equal(outputs, expected)
    for one, other in zip(network.get_weights(), moved):
        np.testing.assert_array_equal(one, other)


def test_networks_of_images_are_normalized_in_one_operation():
    network = keras.Sequential(
        [
            keras.Input(SHAPE[1:]),
            keras.layers.Conv2D(3, 3),
            keras.layers.BatchNormalization(),
        ]
    )

    @tf.function(autograph=False)
    def call(x):
        return normalization.call_network(network, x, training=True)

    graph = call.get_concrete_function(tf.TensorSpec(SHAPE)).graph
    kinds = {operation.type for operation in graph.get_operations()}
    inner = {node.op for f in graph._functions.values() for node in f.node_def}
    assert "FusedBatchNormV3" in kinds | inner


def test_the_gradient_of_the_gradient_has_one_too():
    x, scale, offset = tensors()

    def third(normalize):
        with tf.GradientTape() as outermost:
            outermost.watch([x, scale])
            with tf.GradientTape() as outer:
                outer.watch([x, scale])
                with tf.GradientTape() as inner:
                    inner.watch([x, scale])
                    y, _, _ = normalize(x, scale, offset, 1e-3)
                    value = weigh(y)
                value = weigh(*inner.gradient(value, [x, scale]))
            value = weigh(*outer.gradient(value, [x, scale]))
        return outermost.gradient(value, [x, scale])

    one, other = (
        third(fused_normalization.normalize),
        third(normalized_in_parts),
    )
    for gradient, expected in zip(one, other):
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)
