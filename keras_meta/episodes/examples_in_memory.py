"""What sources share that read all of their examples into memory."""

import numpy as np
import tensorflow as tf

from keras_meta.episodes.reading_progress import reading_progress

# How many examples are read at once.
_CHUNK = 256


def read(dataset, advice, batched=False, verbose=True):
    """Returns all that a `tf.data.Dataset` yields, as arrays.

    Args:
        dataset: A `tf.data.Dataset` of a structure of tensors.
        advice: String, what to do where examples differ in shape.
        batched: Boolean, whether its elements are batches of examples.
        verbose: Boolean, whether to draw a progress bar.
    """
    if not batched:
        leaves = tf.nest.flatten(dataset.element_spec)
        same = all(leaf.shape.is_fully_defined() for leaf in leaves)
        # One by one where shapes may differ, to be able to say which does.
        dataset = dataset.batch(_CHUNK if same else 1)
    total = int(dataset.cardinality())
    batches = dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
    # Where it is not known, it is negative.
    batches = reading_progress(batches, total if total >= 0 else None, verbose)
    return join(list(batches), advice)


def join(batches, advice):
    """Returns batches of examples as one.

    Args:
        batches: List of structures of arrays `[batch, ...]`.
        advice: String, what to do where examples differ in shape.
    """
    if not batches:
        raise ValueError("There must be at least one example. Received: none.")
    first = tf.nest.flatten(batches[0])
    number = 0
    for batch in batches:
        leaves = tf.nest.flatten(batch)
        for leaf, expected in zip(leaves, first):
            if leaf.shape[1:] != expected.shape[1:]:
                raise ValueError(
                    "All examples must have the same shape. Received: example "
                    f"{number} of shape {leaf.shape[1:]}, but example 0 of "
                    f"shape {expected.shape[1:]}. {advice}"
                )
        number += len(leaves[0]) if leaves else 0
    return tf.nest.map_structure(
        lambda *leaves: np.concatenate(leaves), *batches
    )
