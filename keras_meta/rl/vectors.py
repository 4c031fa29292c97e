"""Structures of tensors as vectors, which dense layers take."""

import tensorflow as tf


def size(spec):
    """Returns the size of the vector that `joined()` makes.

    Args:
        spec: Nested structure of `tf.TypeSpec`.

    Returns:
        Integer.

    Raises:
        ValueError: Where something in it is not real.
    """
    leaves = tf.nest.flatten(spec)
    if not all(leaf.dtype.is_floating for leaf in leaves):
        raise ValueError(
            "Observations and actions that are joined to one vector must be "
            f"real. Received: {spec}. Let the environment show them as "
            "floats, integers by one-hot vectors."
        )
    return sum(leaf.shape.num_elements() for leaf in leaves)


def joined(structure, spec):
    """Joins what is in a structure to vectors.

    Args:
        structure: Nested structure of tensors `[..., *shape]`, all with the
            same leading axes.
        spec: Nested structure of `tf.TypeSpec` of these shapes.

    Returns:
        Tensor `[..., size(spec)]`.
    """
    parts = []
    for leaf, leaf_spec in zip(
        tf.nest.flatten(structure), tf.nest.flatten(spec)
    ):
        leading = tf.shape(leaf)[: leaf.shape.rank - leaf_spec.shape.rank]
        length = [leaf_spec.shape.num_elements()]
        parts.append(tf.reshape(leaf, tf.concat([leading, length], axis=0)))
    return tf.concat(parts, axis=-1)


def of_steps(structure):
    """Joins what is in a structure to vectors of floats, one for each step.

    Args:
        structure: Nested structure of tensors `[rows, steps, ...]`.

    Returns:
        Float tensor `[rows, steps, numbers]`.
    """

    def flat(leaf):
        rows, steps = tf.unstack(tf.shape(leaf)[:2])
        numbers = leaf.shape[2:].num_elements()
        return tf.reshape(tf.cast(leaf, tf.float32), [rows, steps, numbers])

    return tf.concat([flat(leaf) for leaf in tf.nest.flatten(structure)], -1)


def check_takes(name, model, count):
    """Raises a `ValueError` where a model does not take such vectors.

    Args:
        name: String, what the model is called.
        model: A built `keras.Model`.
        count: Integer, the size of the vectors.
    """
    if tuple(model.input_shape) != (None, count):
        raise ValueError(
            f"`{name}` must take vectors of {count} numbers. Received: a "
            f"model for inputs of shape {model.input_shape}. What it gets is "
            "joined to one vector: start it with "
            f"`keras.Input(({count},))`."
        )
