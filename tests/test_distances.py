import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_meta import distances

FORMULAS = {
    "squared_euclidean": lambda a, b: np.sum((a - b) ** 2),
    "euclidean": lambda a, b: np.sqrt(np.sum((a - b) ** 2)),
    "cosine": lambda a, b: 1 - a @ b / np.sqrt((a @ a) * (b @ b)),
}


def vectors(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("name", FORMULAS)
def test_all_pairs_equal_the_formula(name):
    queries, references = vectors((2, 5, 3)), vectors((2, 4, 3), seed=1)
    expected = [
        [[FORMULAS[name](q, r) for r in task_references] for q in task_queries]
        for task_queries, task_references in zip(queries, references)
    ]
    actual = distances.get(name)(queries, references)
    assert actual.shape == (2, 5, 4)
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_finite_twice_where_vectors_coincide_or_vanish(name):
    x = tf.constant([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0]])
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = tf.reduce_sum(distances.get(name)(x, x) ** 2)
        gradient = inner.gradient(value, x)
        length = tf.reduce_sum(gradient**2)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient))
    assert np.all(np.isfinite(outer.gradient(length, x)))


@pytest.mark.parametrize("name", FORMULAS)
def test_gradient_equals_central_differences(name):
    queries, references = vectors((4, 3)), vectors((2, 3), seed=1)
    weights = vectors((4, 2), seed=2)

    def value(shifted):
        return tf.reduce_sum(weights * distances.get(name)(shifted, references))

    x = tf.constant(queries)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = value(x)
    gradient = tape.gradient(y, x)
    for place in np.ndindex(4, 3):
        shift = np.zeros((4, 3))
        shift[place] = 1e-5
        slope = (value(queries + shift) - value(queries - shift)) / 2e-5
        np.testing.assert_allclose(gradient[place], slope, rtol=1e-6, atol=1e-8)


def test_squared_distance_is_never_negative():
    x = vectors((50, 64)).astype("float32") * 100
    assert np.min(distances.squared_euclidean(x, x)) >= 0.0


def test_learned_distance_weighs_the_features():
    layer = distances.LearnedDistance(3)
    a, b = vectors((4, 3)).astype("float32"), vectors((2, 3), 1).astype("f")
    np.testing.assert_allclose(
        layer(a, b), distances.squared_euclidean(a, b), rtol=1e-4, atol=1e-5
    )
    raw = np.array([-1.0, 0.0, 2.0], "float32")
    layer.set_weights([raw])
    weights = np.log1p(np.exp(raw))
    expected = [[np.sum(weights * (q - r) ** 2) for r in b] for q in a]
    np.testing.assert_allclose(layer(a, b), expected, rtol=1e-4)


def test_learned_distance_is_in_full_precision_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = distances.LearnedDistance(3)
        x = np.array([[0.0, 0.0, 0.0], [300.0, 400.0, 0.0]], "float32")
        answers = layer(x, x)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(answers, [[0, 250000], [250000, 0]], rtol=1e-5)


def test_serialization():
    for name in FORMULAS:
        config = distances.serialize(distances.get(name))
        assert config == name
        assert distances.deserialize(config) is distances.get(name)
    copy = distances.deserialize(
        distances.serialize(distances.LearnedDistance(3, name="mine"))
    )
    assert (copy.size, copy.name) == (3, "mine")


def test_refuses_unknown_names():
    with pytest.raises(ValueError, match="one of 'squared_euclidean'.*'l1'"):
        distances.get("l1")


@pytest.mark.parametrize(
    "distance",
    [
        functools.partial(distances.euclidean),
        tf.function(distances.euclidean),
        distances.LearnedDistance,
        ["euclidean"],
        None,
    ],
)
def test_refuses_what_could_not_be_saved(distance):
    with pytest.raises(TypeError, match="name, a function or a layer.*Receiv"):
        distances.get(distance)
