import math

import numpy as np
import pytest
import tensorflow as tf

from keras_meta.update_rules import gradient_preprocessing

SWITCH = math.exp(-10)
VALUES = [0, -0.0, 1e-40, 1e-30, 1e-9, 4e-5, 1e-3, 0.7, 1, 30, 1e9, 3e38]
VALUES += [-value for value in VALUES]


def reference(values, p):
    pairs = []
    for value in values:
        if abs(value) >= math.exp(-p):
            pairs.append((math.log(abs(value)) / p, math.copysign(1, value)))
        else:
            pairs.append((-1, math.exp(p) * value))
    return np.array(pairs)


@pytest.mark.parametrize("p", [10.0, 3.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_numpy(dtype, p):
    values = tf.constant(VALUES, dtype)
    numbers = gradient_preprocessing.log_and_sign(values, p)
    assert numbers.dtype == dtype
    # Numbers below 1e-38 may be taken for zeros in single precision.
    np.testing.assert_allclose(
        numbers, reference(values.numpy(), p), rtol=1e-5, atol=1e-33
    )
    # Any shape, and a last axis more.
    column = gradient_preprocessing.log_and_sign(values[:, None], p)
    np.testing.assert_array_equal(column[:, 0], numbers)


def test_is_continuous_at_the_switch():
    below, above = SWITCH * (1 - 1e-9), SWITCH * (1 + 1e-9)
    for sign in (1, -1):
        ends = gradient_preprocessing.log_and_sign(
            tf.constant([sign * below, sign * above], tf.float64)
        )
        np.testing.assert_allclose(ends, [[-1, sign]] * 2, rtol=1e-8)


def derivatives(values):
    values = tf.constant(values)
    results = []
    for column in (0, 1):
        with tf.GradientTape() as outer:
            outer.watch(values)
            with tf.GradientTape() as inner:
                inner.watch(values)
                numbers = gradient_preprocessing.log_and_sign(values)
                total = tf.reduce_sum(numbers[:, column])
            first = inner.gradient(total, values)
        second = outer.gradient(first, values, unconnected_gradients="zero")
        results.append((first, second))
    return results


def test_derivatives_are_those_of_the_formula():
    values = np.array([0, 1e-7, -1e-7, 1e-2, -3], "float64")
    (log_first, log_second), (sign_first, sign_second) = derivatives(values)
    with np.errstate(divide="ignore"):
        inverse = np.where(abs(values) > SWITCH, 1 / values, 0)
    np.testing.assert_allclose(log_first, inverse / 10)
    np.testing.assert_allclose(log_second, -(inverse**2) / 10)
    slope = math.exp(10)
    np.testing.assert_allclose(sign_first, [slope, slope, slope, 0, 0])
    np.testing.assert_array_equal(sign_second, np.zeros(5))


def test_derivatives_are_finite_everywhere():
    switch = np.float32(SWITCH)
    at_switch = [switch, np.nextafter(switch, 0), np.nextafter(switch, 1)]
    values = np.array([*VALUES, *at_switch, *(-v for v in at_switch)])
    for derivative in tf.nest.flatten(derivatives(values.astype("float32"))):
        assert np.all(np.isfinite(derivative))


def test_what_is_not_a_number_stays_so():
    # Or a diverged inner loop would go unnoticed.
    numbers = gradient_preprocessing.log_and_sign(tf.constant([math.nan]))
    assert np.isnan(numbers).any()
