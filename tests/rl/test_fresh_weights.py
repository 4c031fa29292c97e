import numpy as np
import tensorflow as tf

import keras_meta.rl  # noqa: F401  (makes TF-Agents usable)
from keras_meta.rl.fresh_weights import fresh_weights


def test_the_same_numbers_come_in_another_order_for_each_set():
    weights = [tf.random.normal([3, 5]), tf.zeros([5]), tf.constant(2.0)]
    fresh = tf.function(lambda: fresh_weights(weights, 4), autograph=False)()
    assert [leaf.shape for leaf in fresh] == [(4, 3, 5), (4, 5), (4,)]
    kernels = fresh[0].numpy()
    for kernel in kernels:
        np.testing.assert_array_equal(
            np.sort(kernel.ravel()), np.sort(weights[0].numpy().ravel())
        )
    assert len({kernel.tobytes() for kernel in kernels}) == 4
    np.testing.assert_array_equal(fresh[1], np.zeros([4, 5]))
    np.testing.assert_array_equal(fresh[2], np.full([4], 2.0))


def test_every_number_comes_to_every_place():
    weights = [tf.range(3.0)]
    (fresh,) = fresh_weights(weights, 6000)
    for place in range(3):
        counts = np.bincount(fresh.numpy()[:, place].astype(int), minlength=3)
        # Within five standard deviations of a third.
        assert np.abs(counts - 2000).max() < 5 * np.sqrt(6000 * 2 / 9)
