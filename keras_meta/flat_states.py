"""What a model keeps of tasks as one tensor, `[tasks, size]`, and back.

So a server hands it out and takes it in as a row of numbers, whatever the
algorithm keeps.
"""

import math

import tensorflow as tf


def can_be_flat(spec):
    """Whether all of a state can be written as numbers.

    Args:
        spec: Structure of `tf.TensorSpec`.

    Returns:
        Boolean.
    """
    leaves = tf.nest.flatten(spec)
    return bool(leaves) and all(leaf.dtype != tf.string for leaf in leaves)


def flat_size(spec):
    """Returns the size of a flat state, `None` where it differs by request.

    Args:
        spec: Structure of `tf.TensorSpec` `[tasks, ...]`.

    Returns:
        Integer or `None`.
    """
    shapes = [leaf.shape[1:] for leaf in tf.nest.flatten(spec)]
    if not all(shape.is_fully_defined() for shape in shapes):
        return None
    return sum(math.prod(shape) for shape in shapes)


def flatten(state, dtype):
    """Puts a state into one tensor.

    Args:
        state: Structure of tensors `[tasks, ...]`.
        dtype: String, the dtype of the result, floating.

    Returns:
        Tensor `[tasks, size]`. A part whose shape is only known at run time
        comes after its number of axes and their sizes.
    """
    leaves = tf.nest.flatten(state)
    tasks = tf.shape(leaves[0])[0]
    parts = []
    for leaf in leaves:
        if not leaf.shape[1:].is_fully_defined():
            sizes = tf.concat([[tf.rank(leaf) - 1], tf.shape(leaf)[1:]], axis=0)
            parts.append(tf.tile(tf.cast(sizes, dtype)[None], [tasks, 1]))
        parts.append(tf.reshape(tf.cast(leaf, dtype), [tasks, -1]))
    return tf.concat(parts, axis=1)


def unflatten(flat, spec):
    """Turns what `flatten()` returned into the state again.

    Args:
        flat: Tensor `[tasks, size]`.
        spec: Structure of `tf.TensorSpec` `[tasks, ...]`.

    Returns:
        Structure of tensors like `spec`.
    """
    start = 0
    leaves = []
    for leaf in tf.nest.flatten(spec):
        shape = leaf.shape[1:]
        if shape.is_fully_defined():
            sizes = tf.constant(shape.as_list(), "int32")
            count = math.prod(shape.as_list())
        else:
            axes = tf.cast(flat[0, start], "int32")
            sizes = flat[0, start + 1 : start + 1 + axes]
            sizes = tf.cast(sizes, "int32")
            count = tf.reduce_prod(sizes)
            start += 1 + axes
        part = flat[:, start : start + count]
        part = tf.reshape(part, tf.concat([[-1], sizes], axis=0))
        if shape.rank is not None:
            part.set_shape([flat.shape[0], *shape])
        leaves.append(tf.cast(part, leaf.dtype))
        start += count
    return tf.nest.pack_sequence_as(spec, leaves)
