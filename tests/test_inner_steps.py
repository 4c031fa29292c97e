import numpy as np
import pytest
import tensorflow as tf

from keras_meta import inner_steps

WAYS = [inner_steps.one_by_one, inner_steps.rolled, inner_steps.recomputed]


def take_step(step, weights, count):
    """Halves the weights, and a little less in each step."""
    loss = tf.reduce_sum(weights[0])
    factor = 0.5 + 0.1 * tf.cast(step, tf.float32)
    return [weights[0] * factor], count + 1, loss


def end_of(way, start):
    """Returns the values after steps 1 to 3, and the losses on the way."""
    ends = list(way(take_step, range(1, 4), ([start], tf.constant(0))))
    return ends[-1][0], [loss for _, loss in ends]


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_all_ways_take_the_same_steps(way, graph):
    def run(start):
        return end_of(way, start)

    if graph:
        run = tf.function(run, autograph=False)
    (weights, count), losses = run(tf.ones([2]))
    np.testing.assert_allclose(weights[0], np.full(2, 0.6 * 0.7 * 0.8))
    assert int(count) == 3
    expected = [2.0, 2 * 0.6, 2 * 0.6 * 0.7]
    np.testing.assert_allclose(losses, expected[: len(losses)], rtol=1e-6)
    assert len(losses) == (1 if way is inner_steps.rolled else 3)


@pytest.mark.parametrize("way", [WAYS[0], WAYS[2]])
def test_a_gradient_passes_through_steps_and_losses(way):
    start = tf.ones([2])
    with tf.GradientTape() as tape:
        tape.watch(start)
        (weights, _), losses = end_of(way, start)
        total = tf.reduce_sum(weights[0]) + 3 * losses[1]
    expected = 0.6 * 0.7 * 0.8 + 3 * 0.6
    np.testing.assert_allclose(
        tape.gradient(total, start), np.full(2, expected), rtol=1e-6
    )


def test_a_rolled_step_stays_apart_from_its_loop():
    # Within a loop, TensorFlow takes a slow gradient of pooling.
    run = tf.function(
        lambda start: end_of(inner_steps.rolled, start), autograph=False
    )
    graph = run.get_concrete_function(tf.ones([2])).graph
    functions = graph.as_graph_def().library.function
    assert any(function.attr["_noinline"].b for function in functions)
