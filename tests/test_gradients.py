import numpy as np
import tensorflow as tf

from keras_meta.gradients import dense_gradients


def test_slices_and_what_is_not_there_become_tensors():
    table, other = tf.ones([4, 2]), tf.ones([3])
    with tf.GradientTape() as tape:
        tape.watch([table, other])
        total = tf.reduce_sum(tf.gather(table, [1, 1, 3]))
    found = dense_gradients(tape, total, [table, other])
    assert all(tf.is_tensor(gradient) for gradient in found)
    np.testing.assert_array_equal(found[0], [[0, 0], [2, 2], [0, 0], [1, 1]])
    np.testing.assert_array_equal(found[1], np.zeros(3))
