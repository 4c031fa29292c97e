"""How inner steps are taken: one by one, in a loop, or in one that recomputes.

These are functions of a step, of the range of the steps, and of the values
before them: the weights, the state of the update rule, and the state of the
network. They yield the values after each step, and its loss.
"""

import keras
import tensorflow as tf

from keras_meta import masks
from keras_meta.gradients import dense_gradients


def one_by_one(take_step, steps, values):
    """Takes the steps one after another, all of them written out."""
    for step in steps:
        *values, support_loss = take_step(step, *values)
        yield values, support_loss


def apart(function):
    """Makes `function` one of the graph, which stays apart from what calls it.

    Among the edges of a loop, TensorFlow does not find which pooling a gradient
    belongs to, and takes a gradient that is ten times as slow. Eagerly there
    is no graph, and a debugger can step through.
    """
    if tf.executing_eagerly():
        return function
    return tf.function(
        function,
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def rolled(take_step, steps, values):
    """Takes the steps in a loop of the graph, which remembers none of them.

    Yields once: the values in the end, and the loss before the first step.
    """

    taken = apart(take_step)

    def body(step, values, first_loss):
        *values, loss = taken(step, *values)
        loss = tf.cast(loss, first_loss.dtype)
        first_loss = tf.where(tf.equal(step, steps.start), loss, first_loss)
        return step + 1, tuple(values), first_loss

    _, values, first_loss = tf.while_loop(
        lambda step, *_: step < steps.stop,
        body,
        (steps.start, tuple(values), tf.zeros([], keras.config.floatx())),
    )
    yield values, first_loss


def recomputed(take_step, steps, values):
    """Takes the steps in a loop of the graph that has a gradient of its own.

    What is remembered are the values between the steps. The gradient goes
    back over them, and takes each step again.
    """
    if not steps:
        return
    count = len(steps)
    flat = tf.nest.flatten(values)
    # Only these have a gradient.
    floating = [part.dtype.is_floating for part in flat]

    def compute(index, parts):
        *results, loss = take_step(
            steps.start + index, *tf.nest.pack_sequence_as(values, parts)
        )
        return tf.nest.flatten(results), tf.cast(loss, keras.config.floatx())

    @tf.custom_gradient
    def loop(*floats):
        def forwards(index, parts, between, losses):
            between = [_put(*pair, index) for pair in zip(between, parts)]
            parts, loss = compute(index, parts)
            return index + 1, parts, between, _put(losses, loss, index)

        start = masks.with_chosen(flat, floating, floats)
        # Not arrays of TensorFlow, which XLA does not take here.
        between = [tf.stack([tf.zeros_like(part)] * count) for part in start]
        losses = tf.zeros([count], keras.config.floatx())
        _, end, between, losses = tf.while_loop(
            lambda index, *_: index < count,
            forwards,
            (0, start, between, losses),
        )
        outputs = end, between, losses

        def pull(*upstream, variables=()):
            variables = list(variables)
            upstream = tf.nest.pack_sequence_as(outputs, upstream)
            by_end, by_between, by_losses = upstream
            by_between = masks.chosen(by_between, floating)

            def backwards(index, by_values, by_variables):
                parts = [part[index] for part in between]
                sources = masks.chosen(parts, floating)
                with tf.GradientTape() as tape:
                    tape.watch(sources)
                    results, loss = compute(index, parts)
                gradients = dense_gradients(
                    tape,
                    [*masks.chosen(results, floating), loss],
                    [*sources, *variables],
                    [*by_values, by_losses[index]],
                )
                of_values = gradients[: len(sources)]
                of_variables = gradients[len(sources) :]
                by_values = [
                    one + other[index]
                    for one, other in zip(of_values, by_between)
                ]
                return index - 1, by_values, _sums(by_variables, of_variables)

            _, by_values, by_variables = tf.while_loop(
                lambda index, *_: index >= 0,
                backwards,
                (
                    count - 1,
                    masks.chosen(by_end, floating),
                    [tf.zeros_like(variable) for variable in variables],
                ),
            )
            return (by_values, by_variables) if variables else by_values

        return tf.nest.flatten(outputs), pull

    results = loop(*masks.chosen(flat, floating))
    end, between = results[: len(flat)], results[len(flat) : -1]
    losses = results[-1]
    for index in range(count):
        parts = end
        if index < count - 1:
            parts = [part[index + 1] for part in between]
        yield tf.nest.pack_sequence_as(values, parts), losses[index]


def _put(values, value, index):
    return tf.tensor_scatter_nd_update(values, [[index]], value[None])


def _sums(ones, others):
    return [one + other for one, other in zip(ones, others)]
