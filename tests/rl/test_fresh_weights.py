import keras
import numpy as np
import tensorflow as tf

from keras_meta.rl.fresh_weights import fresh_weights


def test_they_are_the_same_numbers_in_another_order():
    tf.random.set_seed(0)
    kernel = tf.random.normal([7, 5])
    drawn = fresh_weights([kernel, tf.zeros([5])], 4)
    assert drawn[0].shape == (4, 7, 5)
    flat = drawn[0].numpy().reshape(4, -1)
    np.testing.assert_array_equal(
        np.sort(flat, axis=1), [np.sort(kernel.numpy().ravel())] * 4
    )
    assert len({row.tobytes() for row in flat}) == 4
    np.testing.assert_array_equal(drawn[1], np.zeros([4, 5]))


def test_each_run_of_a_graph_draws_others():
    weights = [keras.random.normal([20])]
    draw = tf.function(lambda: fresh_weights(weights, 1)[0])
    assert not np.array_equal(draw(), draw())
