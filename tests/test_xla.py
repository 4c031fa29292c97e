import numpy as np
import tensorflow as tf

import keras_meta  # noqa: F401  (registers the gradient)


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
