import math
import platform

import tensorflow as tf

# Where XLA is taken on a CPU; see `is_faster()`.
_MOST_INNER_STEPS = 32
_LARGEST_WEIGHT = 256 * 256


def register_slice_gradient():
    """Lets second-order gradients pass through slices under XLA.

    Under XLA, TensorFlow writes the gradient of a slice with the op
    `XlaDynamicUpdateSlice`, which has no gradient of its own, so that a
    gradient through a gradient fails with a `LookupError`. The op copies
    `update` into `input` at `start`; what flows back to `update` is the
    slice of the gradient at that place, and to `input` all the rest.
    """

    def gradient(operation, upstream):
        from tensorflow.compiler.tf2xla.ops import gen_xla_ops

        _, update, start = operation.inputs
        to_input = gen_xla_ops.xla_dynamic_update_slice(
            upstream, tf.zeros_like(update), start
        )
        to_update = tf.slice(
            upstream, start, tf.shape(update, out_type=start.dtype)
        )
        return to_input, to_update, None

    try:
        tf.RegisterGradient("XlaDynamicUpdateSlice")(gradient)
    except KeyError:
        # Another package, or a later TensorFlow, has registered one.
        pass


def is_faster(network, mapping, inner_steps, steps_per_execution):
    """Whether XLA is what `jit_compile="auto"` should mean on a CPU.

    Keras takes it where there is a GPU, and nowhere else. Networks of dense
    layers alone, whose tasks run side by side, are faster with it on a CPU,
    too, and take some seconds longer to start. Who wants several steps in each
    execution means to take many. 32 inner steps take a minute to compile, and
    are then twice as fast; more take too long. With 640 units in a layer, not
    with 160, its products of matrices are slower than TensorFlow's.

    Args:
        network: A `keras.Model`.
        mapping: String, how tasks are run: `"vectorized"` or `"sequential"`.
        inner_steps: Integer, of the model.
        steps_per_execution: Integer, of `compile()`.

    Returns:
        Boolean.
    """
    # Where there is no XLA, Keras warns of who asks for it.
    there = platform.system() != "Darwin" and all(
        getattr(layer, "supports_jit", True)
        for layer in network._flatten_layers()
    )
    small = all(
        math.prod(weight.shape) <= _LARGEST_WEIGHT
        for weight in network.trainable_variables
    )
    return (
        there
        and small
        and mapping == "vectorized"
        and inner_steps <= _MOST_INNER_STEPS
        and steps_per_execution > 1
    )
