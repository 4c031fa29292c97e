import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta


def second_order_through_a_slice(x):
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.reduce_sum(tf.slice(x**3, [1], [2]) ** 2)
        gradient = inner.gradient(y, x)
        z = tf.reduce_sum(gradient**2)
    return outer.gradient(z, x)


def test_second_order_through_slices_under_xla():
    x = tf.constant([1.0, 2.0, 3.0, 4.0])
    compiled = tf.function(
        second_order_through_a_slice, jit_compile=True, autograph=False
    )
    # y = x^6 on the slice, so that z = 36 x^10 and its gradient 360 x^9.
    expected = [0.0, 360 * 2.0**9, 360 * 3.0**9, 0.0]
    np.testing.assert_allclose(compiled(x), expected, rtol=1e-5)
    np.testing.assert_allclose(
        second_order_through_a_slice(x), expected, rtol=1e-5
    )


def test_registering_twice_does_no_harm():
    keras_meta.xla.register_slice_gradient()


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"steps_per_execution": 10}, True),
        ({}, False),
        ({"steps_per_execution": 10, "jit_compile": False}, False),
        ({"steps_per_execution": 10, "run_eagerly": True}, False),
        ({"jit_compile": True}, True),
    ],
)
def test_auto_is_xla_for_many_steps_of_dense_networks(settings, expected):
    model = keras_meta.MAML(keras_meta.backbones.mlp(), 1, 0.1)
    model.compile("adam", "mse", **settings)
    assert model.jit_compile is expected


def test_auto_is_not_xla_where_that_is_slow():
    network = keras_meta.backbones.conv4((8, 8, 1), outputs=2, filters=4)
    for model in (
        keras_meta.MAML(network, 1, 0.1),
        keras_meta.MAML(
            keras_meta.backbones.mlp(), 1, 0.1, task_mapping="sequential"
        ),
        keras_meta.MAML(keras_meta.backbones.mlp(), 11, 0.1),
    ):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, steps_per_execution=10)
        assert model.jit_compile is False
