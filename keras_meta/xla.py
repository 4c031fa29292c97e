import contextvars
import functools
import platform

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.ops.parallel_for import pfor

# Where XLA is taken on a CPU; see `is_faster()`.
_MOST_INNER_STEPS = 32

_COMPILING_FOR_CPU = contextvars.ContextVar("compiling_for_cpu", default=False)


def register_slice_gradient():
    """Lets second-order gradients pass through slices under XLA.

    Under XLA, TensorFlow writes the gradient of a slice with the op
    `XlaDynamicUpdateSlice`, which has no gradient of its own, so that a
    gradient through a gradient fails with a `LookupError`. The op copies
    `update` into `input` at `start`; what flows back to `update` is the
    slice of the gradient at that place, and to `input` all the rest.
    """

    def gradient(operation, upstream):
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


def is_faster(network, dense, inner_steps, steps_per_execution):
    """Whether XLA is what `jit_compile="auto"` should mean on a CPU.

    Keras takes it where there is a GPU, and nowhere else. Networks of dense
    layers alone are faster with it on a CPU, too, and take some seconds longer
    to start. Who wants several steps in each execution means to take many. 32
    inner steps take more than a minute to compile, and are then four times as
    fast; more take too long.

    Args:
        network: A `keras.Model`.
        dense: Boolean, `task_mapping.is_dense(network)`.
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
    return (
        there
        and dense
        and inner_steps <= _MOST_INNER_STEPS
        and steps_per_execution > 1
    )


def compiled(step):
    """Marks a function that XLA compiles; see `compiles_for_cpu()`.

    Args:
        step: Function that is about to be traced.

    Returns:
        A function of the same arguments and results.
    """

    @functools.wraps(step)
    def marked(*args):
        on_cpu = not tf.config.list_physical_devices("GPU")
        token = _COMPILING_FOR_CPU.set(on_cpu)
        try:
            return step(*args)
        finally:
            _COMPILING_FOR_CPU.reset(token)

    return marked


def compiles_for_cpu():
    """Whether what is traced is part of a program of XLA for a CPU.

    There, operations are XLA's own, and some ways to say the same are faster.
    """
    return _COMPILING_FOR_CPU.get()


def barrier(x):
    """Keeps XLA from making what gives `x` part of what takes it.

    Args:
        x: Tensor.

    Returns:
        The same. It has no gradient, and no meaning outside of XLA.
    """
    return gen_xla_ops.xla_optimization_barrier([x])[0]


def register_vectorized_barrier():
    """Lets `tf.vectorized_map()` pass a `barrier()`."""

    def side_by_side(conversion):
        return pfor.wrap(barrier(conversion.stacked_input(0)), True)

    try:
        pfor.RegisterPFor("XlaOptimizationBarrier")(side_by_side)
    except AssertionError:
        # Another package, or a later TensorFlow, has registered one.
        pass


@tf.custom_gradient
def summed_once(x):
    """Returns `x`, whose gradient XLA sums up once, and not for each user.

    The gradient by the weights before an inner step is that by the weights
    after it, and some more. XLA takes it to be cheaper to add up all steps
    anew for each than to keep the sum: with 32 steps, a third of the time goes
    there. It does not so with divisions, and does not know that this is one
    by 1.

    Args:
        x: Tensor.

    Returns:
        The same, with gradients of any order.
    """

    def gradient(upstream):
        return upstream / barrier(tf.ones([], upstream.dtype))

    return tf.identity(x), gradient
