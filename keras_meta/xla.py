import tensorflow as tf


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
