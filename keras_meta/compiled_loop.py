"""Several training steps as one program of XLA.

With `steps_per_execution` and `jit_compile` Keras compiles a step, and starts
it anew for each batch. For small networks a start takes about as long as the
step. Here the batches are gathered first, and their loop is compiled as well.
"""

import tensorflow as tf

# The batches of an execution are held together; more are not worth it.
_MOST_BYTES = 2**26


def can_loop(iterator, count):
    """Whether `make()` serves the batches of an iterator.

    Args:
        iterator: What Keras hands to its train function.
        count: Integer, the batches of an execution.

    Returns:
        Boolean: whether it is an iterator of `tf.data` whose batches have
        fixed shapes, and are small.
    """
    if not isinstance(iterator, tf.data.Iterator):
        return False
    leaves = tf.nest.flatten(iterator.element_spec)
    if not all(
        isinstance(leaf, tf.TensorSpec)
        and leaf.shape.is_fully_defined()
        and leaf.dtype != tf.string
        for leaf in leaves
    ):
        return False
    size = sum(leaf.shape.num_elements() * leaf.dtype.size for leaf in leaves)
    return size * count <= _MOST_BYTES


def make(step, count):
    """Returns a function of an iterator that takes up to `count` steps.

    Args:
        step: Function of a batch that returns logs: a nested structure of
            tensors. What it changes are variables.
        count: Integer, the most steps to take.

    Returns:
        A function of an iterator that returns the logs of the last step, and
        raises `StopIteration` where no batch is left.
    """

    @tf.function(autograph=False, jit_compile=True)
    def loop(batches, taken):
        one = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), batches
        )
        # Traced once, it tells what it returns, and is then what is run.
        traced = tf.function(step, autograph=False).get_concrete_function(one)
        logs = tf.nest.map_structure(
            lambda leaf: tf.zeros(leaf.shape, leaf.dtype),
            traced.structured_outputs,
        )

        def body(number, _):
            batch = tf.nest.map_structure(lambda leaf: leaf[number], batches)
            return number + 1, traced(batch)

        _, logs = tf.while_loop(
            lambda number, _: number < taken, body, (0, logs)
        )
        return logs

    @tf.function(autograph=False)
    def gather_and_loop(iterator):
        spec = iterator.element_spec
        arrays = [
            tf.TensorArray(leaf.dtype, count, element_shape=leaf.shape)
            for leaf in tf.nest.flatten(spec)
        ]

        def body(taken, batch, arrays):
            leaves = tf.nest.flatten(batch.get_value())
            arrays = [a.write(taken, leaf) for a, leaf in zip(arrays, leaves)]
            taken += 1
            following = tf.cond(
                taken < count, iterator.get_next_as_optional, lambda: batch
            )
            return taken, following, arrays

        taken, _, arrays = tf.while_loop(
            lambda taken, batch, _: (taken < count) & batch.has_value(),
            body,
            (0, iterator.get_next_as_optional(), arrays),
        )
        batches = [array.stack() for array in arrays]
        return loop(tf.nest.pack_sequence_as(spec, batches), taken), taken

    def function(iterator):
        logs, taken = gather_and_loop(iterator)
        if not taken:
            raise StopIteration
        return logs

    return function
