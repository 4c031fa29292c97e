"""What a batch of pairs is: the names of its parts, and what must hold.

`x` is a dictionary with the keys below, and `y` is 1 where both examples of a
pair are of one class and 0 where they are not.
"""

import collections.abc

import numpy as np
import tensorflow as tf

from keras_meta import arguments

FIRST = "first"
SECOND = "second"

KEYS = (FIRST, SECOND)


def is_batch(x):
    """Returns whether `x` is meant to be a batch of pairs."""
    is_mapping = isinstance(x, collections.abc.Mapping)
    return is_mapping and any(key in x for key in KEYS)


def check(x, y=None, sample_weight=None):
    """Checks a batch of pairs.

    Args:
        x: Dictionary with at least one of the keys of a pair.
        y: Optional labels `[batch]` or `[batch, 1]`.
        sample_weight: Optional weights of the same shape.

    Raises:
        ValueError: Where something is missing or does not fit.
    """
    missing = [key for key in KEYS if key not in x]
    unknown = [key for key in x if key not in KEYS]
    if missing or unknown:
        raise ValueError(
            "Pairs must have the keys 'first' and 'second'. Received: keys "
            f"{sorted(map(str, x))} (missing: {missing}, unknown: {unknown})."
        )
    arguments.check_same_parts("Both examples of a pair", x[FIRST], x[SECOND])
    shapes = [
        tf.nest.map_structure(lambda leaf: tf.TensorShape(leaf.shape), x[key])
        for key in KEYS
    ]
    leaves = [tf.nest.flatten(shape) for shape in shapes]
    fits = all(
        first.is_compatible_with(second) for first, second in zip(*leaves)
    )
    if not fits:
        raise ValueError(
            "Both examples of a pair must have the same shape. Received: "
            f"first of shape {_describe(shapes[0])} and second of shape "
            f"{_describe(shapes[1])}."
        )
    for name, value in (("labels", y), ("weights", sample_weight)):
        if value is None:
            continue
        shape = tf.TensorShape(np.shape(value))
        if shape.rank == 2 and shape[1] == 1:
            shape = shape[:1]
        if not shape.is_compatible_with(leaves[0][0][:1]):
            raise ValueError(
                f"Pairs must have {name} of the shape `[batch]`, one for each "
                f"pair. Received: {name} of shape {np.shape(value)} and pairs "
                f"of shape {_describe(shapes[0])}."
            )
    if y is not None and not np.all(np.isin(np.asarray(y), (0, 1))):
        others = np.setdiff1d(np.asarray(y), (0, 1))[:5].tolist()
        raise ValueError(
            "The label of a pair must be 1 where both examples are of one "
            f"class and 0 where they are not. Received: labels {others}."
        )


def _describe(shapes):
    return tf.nest.map_structure(str, shapes)
