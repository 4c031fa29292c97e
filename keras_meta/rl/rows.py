"""Rows of tensors: how many there are, and which to take."""

import tensorflow as tf


def row_count(structure):
    """Returns how many rows tensors have, an integer where that is known."""
    leaf = tf.nest.flatten(structure)[0]
    return tf.shape(leaf)[0] if leaf.shape[0] is None else leaf.shape[0]


def choose_rows(rows, one, other):
    """Returns rows of one structure where they are chosen, else of another.

    Args:
        rows: Bool tensor `[rows]`, which of them are of `one`.
        one: Nested structure of tensors `[rows, ...]`.
        other: The same.

    Returns:
        Nested structure of tensors `[rows, ...]`.
    """

    def choose(one, other):
        extra = [1] * (other.shape.rank - 1)
        return tf.where(tf.reshape(rows, [-1, *extra]), one, other)

    return tf.nest.map_structure(choose, one, other)
