import numpy as np
import pytest
import tensorflow as tf

import tests.rl  # noqa: F401  (skips where TF-Agents is not installed)
from keras_meta.rl import vectors

SPEC = {
    "a": tf.TensorSpec([2, 2], tf.float32),
    "b": tf.TensorSpec([], tf.float32),
}


def test_a_structure_becomes_one_vector_under_any_leading_axes():
    numbers = np.arange(30, dtype="float32").reshape(2, 3, 5)
    structure = {
        "a": tf.reshape(numbers[..., :4], [2, 3, 2, 2]),
        "b": tf.constant(numbers[..., 4]),
    }
    assert vectors.size(SPEC) == 5
    np.testing.assert_array_equal(vectors.joined(structure, SPEC), numbers)


def test_integers_are_refused():
    with pytest.raises(ValueError, match="must be real. Received.*one-hot"):
        vectors.size((SPEC, tf.TensorSpec([], tf.int32)))
