import numpy as np
import pytest
import tensorflow as tf

from keras_meta import divergence


def test_counts_the_tasks_of_each_name_and_adds_nothing_to_the_logs():
    tracker = divergence.DivergenceTracker(["kernel", "bias"])
    tracker.update_state(tf.constant([[True, False, True], [True, True, True]]))
    tracker.update_state(tf.constant([[True, False, False]]))
    np.testing.assert_array_equal(tracker.counts, [0, 2, 1])
    assert tracker.result() == {}
    with pytest.raises(
        divergence.DivergenceError,
        match="bias .in 2 tasks., the query loss .* .in 1 tasks.*rate=3",
    ):
        tracker.raise_if_diverged("rate=3")
    tracker.reset_state()
    tracker.raise_if_diverged("rate=3")


def test_all_finite_tells_each_weight_and_the_rest_together():
    weights = [tf.ones(3), tf.constant([1.0, float("nan")])]
    others = [tf.constant(1.0), tf.constant(float("inf"))]
    finite = divergence.all_finite
    np.testing.assert_array_equal(finite(weights, []), [True, False, True])
    np.testing.assert_array_equal(finite(weights, others), [True, False, False])
