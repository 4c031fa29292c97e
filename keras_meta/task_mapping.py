"""How the tasks of a meta-batch are run: side by side, or one by one."""

import math
import os

import keras
import tensorflow as tf

from keras_meta import xla

CHOICES = ("auto", "vectorized", "sequential")

# Products of larger ones are faster one after another; see `resolve()`.
_LARGEST_WEIGHT = 448 * 448

# Fewer tasks are as fast side by side as in two halves; see there.
_TASKS_IN_HALVES = 16

# Layers whose per-task weights `tf.vectorized_map` turns into one batched
# matrix product, or that have no weights and work element by element.
_VECTORIZED_LAYERS = (
    keras.layers.Activation,
    keras.layers.Dense,
    keras.layers.ELU,
    keras.layers.Flatten,
    keras.layers.InputLayer,
    keras.layers.LayerNormalization,
    keras.layers.LeakyReLU,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.Reshape,
    keras.layers.Softmax,
)


def resolve(mapping, network):
    """Turns `"auto"` into what is faster for `network`.

    Networks of dense layers run vectorized: 25 small tasks then cost little
    more than one. On a CPU, with 512 units in a layer, not with 384, batched
    products are slower than products one after another, and take more memory.
    A convolution with weights of its own for every task has no such form and
    would fall back to a slow loop; it runs sequentially.

    Args:
        mapping: One of `"auto"`, `"vectorized"`, `"sequential"`.
        network: A `keras.Model`.

    Returns:
        `"vectorized"` or `"sequential"`.
    """
    if mapping != "auto":
        return mapping
    if not is_dense(network):
        return "sequential"
    if tf.config.list_physical_devices("GPU"):
        return "vectorized"
    small = all(
        math.prod(weight.shape) <= _LARGEST_WEIGHT
        for weight in network.trainable_variables
    )
    return "vectorized" if small else "sequential"


def is_dense(network):
    """Whether `network` is made of dense layers, and layers without products.

    Args:
        network: A `keras.Model`.

    Returns:
        Boolean.
    """
    return all(
        isinstance(layer, (keras.Model, *_VECTORIZED_LAYERS))
        for layer in network._flatten_layers()
    )


def map_tasks(function, tasks, mapping):
    """Applies `function` to every task of a meta-batch.

    Args:
        function: Takes the nested structure of one task and returns a nested
            structure of tensors.
        tasks: Nested structure of tensors with a leading axis of tasks.
        mapping: `"vectorized"` or `"sequential"`.

    Returns:
        What `function` returned, stacked along a leading axis of tasks.
    """
    count = tf.nest.flatten(tasks)[0].shape[0]
    if count == 1:
        return _run_one(function, tasks)
    if mapping == "vectorized":
        return tf.vectorized_map(function, tasks)
    if tf.executing_eagerly():
        # A Python loop, so that a debugger can step through.
        results = [
            function(tf.nest.map_structure(lambda leaf: leaf[index], tasks))
            for index in range(count)
        ]
        return tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *results)
    # `tf.map_fn` wants to know what the function returns before it runs it.
    # Traced once, the function tells, and is then what is mapped.
    function = tf.function(function, autograph=False)
    one_task = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), tasks
    )
    traced = function.get_concrete_function(one_task)
    signature = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype),
        traced.structured_outputs,
    )
    return tf.map_fn(
        function,
        tasks,
        parallel_iterations=_tasks_at_once(count),
        fn_output_signature=signature,
    )


def map_halves(function, tasks):
    """Applies `function` to both halves of a meta-batch, each side by side.

    XLA computes a program in order, if nothing in it is independent; so the
    halves are what two cores can share. It takes up to twice as long to
    compile.

    Args:
        function: See `map_tasks()`.
        tasks: See there.

    Returns:
        As `map_tasks()`.
    """
    # Halves of the same size are traced once.
    side_by_side = tf.function(
        lambda part: tf.vectorized_map(function, part), autograph=False
    )
    half = tf.nest.flatten(tasks)[0].shape[0] // 2
    halves = [
        side_by_side(tf.nest.map_structure(lambda leaf: leaf[part], tasks))
        for part in (slice(half), slice(half, None))
    ]
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *halves)


def halves_are_faster(tasks, mapping):
    """Whether `map_halves()` is faster than tasks that are all side by side.

    That is within XLA on a CPU, by 10 to 35 % with 16 to 128 tasks of one to
    32 inner steps and 40 to 256 units; and not with fewer tasks, or where
    operations have one thread each, which XLA then does not share.

    Args:
        tasks: See `map_tasks()`.
        mapping: See there.

    Returns:
        Boolean.
    """
    count = tf.nest.flatten(tasks)[0].shape[0] or 0
    return (
        mapping == "vectorized"
        and count >= _TASKS_IN_HALVES
        and xla.compiles_for_cpu()
        and (os.cpu_count() or 1) > 1
        and not has_one_thread_each()
    )


def _tasks_at_once(count):
    """Each takes memory of its own, and more than threads are no faster.

    Args:
        count: Integer, the number of all tasks, or `None`.
    """
    threads = tf.config.threading.get_inter_op_parallelism_threads()
    threads = threads or os.cpu_count() or 1
    # Where operations have one each, tasks are all that can fill them.
    if not has_one_thread_each():
        return min(threads, 10)
    # One would be left alone in the end, while other threads have nothing to
    # do. So all that are left share the threads.
    return threads + 1 if count and count % threads else threads


def has_one_thread_each():
    """Whether each operation has one thread, as the user may set it."""
    return tf.config.threading.get_intra_op_parallelism_threads() == 1


def map_one_or_more(function, tasks, mapping):
    """As `map_tasks()`, quicker for a single task of a number not known.

    That is for what is traced once and called for one task after another, as
    in a SavedModel. Tasks side by side have a graph that takes twice as long
    for one; so a graph of its own is made for that, too.

    Args:
        function: See `map_tasks()`.
        tasks: See there.
        mapping: See there.

    Returns:
        As `map_tasks()`.
    """
    leaf = tf.nest.flatten(tasks)[0]
    if mapping == "sequential" or leaf.shape[0] is not None:
        return map_tasks(function, tasks, mapping)

    return tf.cond(
        tf.equal(tf.shape(leaf)[0], 1),
        lambda: _run_one(function, tasks),
        lambda: map_tasks(function, tasks, mapping),
    )


def _run_one(function, tasks):
    """Runs the first task alone, without a loop or batched products."""
    result = function(tf.nest.map_structure(lambda leaf: leaf[0], tasks))
    return tf.nest.map_structure(
        lambda leaf: tf.convert_to_tensor(leaf)[None], result
    )
