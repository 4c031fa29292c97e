import numpy as np
import tensorflow as tf

from keras_meta.update_rules import coordinates


def test_join_and_split_are_inverse():
    tensors = [
        tf.reshape(tf.range(6.0), [2, 3]),
        tf.constant(7.0),
        tf.constant([8.0, 9.0], tf.float64),
        tf.zeros([2, 0]),
    ]
    assert coordinates.count(tensors) == 9
    vector = coordinates.join(tensors, "float32")
    np.testing.assert_array_equal(vector, [0, 1, 2, 3, 4, 5, 7, 8, 9])
    assert vector.dtype == tf.float32
    for given in (vector, vector[:, None]):
        for part, tensor in zip(coordinates.split(given, tensors), tensors):
            assert part.dtype == tensor.dtype
            np.testing.assert_array_equal(part, tensor)
