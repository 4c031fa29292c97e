"""What an episode is: the names of its parts, and what must hold of them.

A meta-batch of episodes is what Keras calls a batch: `x` is a dictionary with
the keys below, `y` holds the labels of the queries, and every leaf has a
leading axis of tasks and a second axis of examples.
"""

import collections.abc

import numpy as np
import tensorflow as tf

SUPPORT_X = "support_x"
SUPPORT_Y = "support_y"
SUPPORT_WEIGHT = "support_weight"
QUERY_X = "query_x"

REQUIRED_KEYS = (SUPPORT_X, SUPPORT_Y, QUERY_X)
OPTIONAL_KEYS = (SUPPORT_WEIGHT,)


def is_batch(x):
    """Returns whether `x` is meant to be a meta-batch of episodes."""
    keys = REQUIRED_KEYS + OPTIONAL_KEYS
    is_mapping = isinstance(x, collections.abc.Mapping)
    return is_mapping and any(key in x for key in keys)


def without_nan(x):
    """Puts 0 in place of NaN and Inf in padded support examples.

    The gradient of a network would be NaN; its normalization, too.

    Args:
        x: A meta-batch of episodes, or one task of it.

    Returns:
        A dictionary with the keys of `x`.
    """
    if x.get(SUPPORT_WEIGHT) is None:
        return x
    padded = tf.convert_to_tensor(x[SUPPORT_WEIGHT]) == 0

    def mend(leaf):
        leaf = tf.convert_to_tensor(leaf)
        if not leaf.dtype.is_floating:
            return leaf
        broken = like(padded, leaf) & ~tf.math.is_finite(leaf)
        return tf.where(broken, tf.zeros_like(leaf), leaf)

    mended = {
        key: tf.nest.map_structure(mend, x[key])
        for key in (SUPPORT_X, SUPPORT_Y)
    }
    return {**x, **mended}


def like(weight, values):
    """Returns weights of support examples with as many axes as `values`."""
    ones = tf.ones([tf.rank(values) - tf.rank(weight)], "int32")
    return tf.reshape(weight, tf.concat([tf.shape(weight), ones], axis=0))


def check(x, y=None, sample_weight=None, integer_labels=False):
    """Checks the structure of a meta-batch of episodes.

    Args:
        x: What should be a dictionary with the keys of an episode.
        y: Optional labels of the queries, `[tasks, query, ...]`.
        sample_weight: Optional weights of the queries, `[tasks, query]`.
        integer_labels: Boolean. Whether the loss takes class numbers.

    Raises:
        ValueError, TypeError: Where something is missing or does not fit.
    """
    check_keys(x)
    _check_examples(
        "support",
        x[SUPPORT_X],
        {SUPPORT_Y: x[SUPPORT_Y], SUPPORT_WEIGHT: x.get(SUPPORT_WEIGHT)},
        "there is nothing to adapt on",
    )
    _check_examples(
        "query",
        x[QUERY_X],
        {"the query labels `y`": y, "`sample_weight`": sample_weight},
        "there is nothing to predict",
    )
    # One task's labels would be taken for those of all the others.
    parts = {**x, "the query labels `y`": y, "`sample_weight`": sample_weight}
    tasks = _leaf_sizes(parts, axis=0)
    if len(tasks) > 1 or 0 in tasks:
        raise ValueError(
            "All parts of a meta-batch must have the same number of tasks "
            "(their first axis), and at least one. Received: "
            f"{_describe(parts)}."
        )
    if integer_labels:
        check_integer_labels(SUPPORT_Y, x[SUPPORT_Y])
        if y is not None:
            check_integer_labels("the query labels `y`", y)


def check_keys(x):
    """Checks that `x` is a dictionary with the keys of an episode."""
    if not isinstance(x, collections.abc.Mapping):
        raise TypeError(
            "The input must be a dictionary with the keys "
            f"{', '.join(map(repr, REQUIRED_KEYS))}. Received: "
            f"{type(x).__name__}. Make episodes with a function of "
            "`keras_meta.episodes`."
        )
    missing = [key for key in REQUIRED_KEYS if key not in x]
    known = REQUIRED_KEYS + OPTIONAL_KEYS
    unknown = [key for key in x if key not in known]
    if missing or unknown:
        raise ValueError(
            "An episode must have the keys "
            f"{', '.join(map(repr, REQUIRED_KEYS))} and may have "
            f"{', '.join(map(repr, OPTIONAL_KEYS))}. Received: keys "
            f"{sorted(map(str, x))} (missing: {missing}, unknown: {unknown})."
        )


def check_integer_labels(name, labels):
    """Checks that every leaf of `labels` has an integer dtype."""
    for leaf in tf.nest.flatten(labels):
        if not tf.as_dtype(leaf.dtype).is_integer:
            raise TypeError(
                "For classification with a sparse loss, labels must be "
                f"integers. Received: {name} of dtype "
                f"{tf.as_dtype(leaf.dtype).name}. Cast the labels to int32, "
                "or use another loss: 'mse' for regression, categorical "
                "cross-entropy for one-hot labels."
            )


def check_label_range(labels, outputs):
    """Checks concrete class numbers against the outputs of a network.

    Args:
        labels: Integer array or eager tensor.
        outputs: Integer, the number of outputs of the network.
    """
    labels = np.asarray(labels)
    if labels.size and (labels.min() < 0 or labels.max() >= outputs):
        raise ValueError(
            "The network must have one output per way, and labels must lie "
            "between 0 and that number. Received: labels from "
            f"{labels.min()} to {labels.max()}, and a network of {outputs} "
            f"outputs. Give the network {int(labels.max()) + 1} outputs or "
            "more, or make episodes of fewer ways. Where the ways differ from "
            "episode to episode, use `keras_meta.ProtoMAML` or a metric "
            "learner such as `keras_meta.PrototypicalNetwork`."
        )


def _check_examples(name, inputs, companions, consequence):
    sizes = _leaf_sizes(inputs, axis=1)
    if 0 in sizes:
        raise ValueError(
            f"The {name} set must have at least one example, or "
            f"{consequence}. Received: {_describe(inputs)}."
        )
    if len(sizes) > 1:
        raise ValueError(
            f"All {name} inputs must have the same number of examples (their "
            f"second axis). Received: inputs of shape {_describe(inputs)}."
        )
    for companion, value in companions.items():
        if value is None:
            continue
        all_sizes = sizes | _leaf_sizes(value, axis=1)
        if len(all_sizes) > 1:
            raise ValueError(
                f"The {name} inputs and {companion} must have the same "
                "number of examples (their second axis). Received: inputs of "
                f"shape {_describe(inputs)} and {companion} of shape "
                f"{_describe(value)}."
            )


def _leaf_sizes(structure, axis):
    sizes = set()
    for leaf in tf.nest.flatten(structure):
        if leaf is None:
            continue
        shape = tf.TensorShape(leaf.shape)
        if shape.rank is None:
            continue
        if shape.rank < 2:
            raise ValueError(
                "Every part of an episode must have an axis of tasks and an "
                f"axis of examples. Received: a tensor of shape {shape}. Add "
                "the axis of tasks (`x[None]`) for a single episode."
            )
        if shape[axis] is not None:
            sizes.add(shape[axis])
    return sizes


def _describe(structure):
    return tf.nest.map_structure(
        lambda leaf: leaf if leaf is None else str(tf.TensorShape(leaf.shape)),
        structure,
    )
