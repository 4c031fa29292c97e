"""Checks of requests that are part of a graph, and go where it goes.

A SavedModel is served where this package is not; what it is sent is checked
by operations of TensorFlow, whose errors a client gets to read.
"""

import tensorflow as tf


def checked(tensors, *checks):
    """Returns tensors that are only there once all checks have passed.

    Args:
        tensors: Structure of tensors.
        *checks: Tuples of a boolean tensor and what to say where it is false,
            a list of strings and tensors.

    Returns:
        Structure of tensors like the given ones.
    """
    assertions = [
        tf.debugging.Assert(condition, message, summarize=8)
        for condition, message in checks
    ]
    with tf.control_dependencies(assertions):
        return tf.nest.map_structure(tf.identity, tensors)


def of_shapes(tensors, specs):
    """Returns tensors whose shapes are looked at when the graph runs.

    A server does not compare them with the signature.

    Args:
        tensors: Structure of tensors.
        specs: Structure of `tf.TensorSpec`.
    """
    return tf.nest.map_structure(
        lambda tensor, spec: tf.ensure_shape(tensor, spec.shape),
        tensors,
        specs,
    )


def finite(name, tensors):
    """Returns the checks that floating tensors are finite.

    Args:
        name: String, what the message calls them.
        tensors: Structure of tensors.
    """
    return [
        (
            tf.reduce_all(tf.math.is_finite(leaf)),
            [f"`{name}` must be finite. Received: NaN or Inf."],
        )
        for leaf in tf.nest.flatten(tensors)
        if leaf.dtype.is_floating
    ]


def not_empty(name, tensors):
    """Returns the checks that there are tasks, and examples of each.

    Args:
        name: String, what the message calls them.
        tensors: Structure of tensors `[tasks, examples, ...]`.
    """
    return [
        (
            tf.reduce_all(tf.shape(leaf)[:2] > 0),
            [
                f"`{name}` must hold at least one task, and one example of "
                "each. Received shape:",
                tf.shape(leaf),
            ],
        )
        for leaf in tf.nest.flatten(tensors)
    ]


def same_sizes(names, one, other, axes):
    """Returns the checks that first axes of tensors are of the same sizes.

    Args:
        names: String, what the message calls both.
        one: Structure of tensors.
        other: Structure of tensors.
        axes: Integer, how many axes: 1 for tasks, 2 for examples, too.
    """
    what = "tasks" if axes == 1 else "tasks and examples"
    first = tf.shape(tf.nest.flatten(one)[0])
    return [
        (
            tf.reduce_all(tf.equal(tf.shape(leaf)[:axes], first[:axes])),
            [
                f"{names} must have the same number of {what}. Received "
                "shapes:",
                first,
                tf.shape(leaf),
            ],
        )
        for leaf in tf.nest.flatten(other)
    ]


def class_numbers(name, labels, ways):
    """Returns the check that labels are numbers of classes.

    Args:
        name: String, what the message calls them.
        labels: Integer tensor.
        ways: Integer, or `None` for any.
    """
    message = f"`{name}` must be class numbers from 0"
    valid = labels >= 0
    if ways is not None:
        message += f" to {ways - 1}"
        valid &= labels < ways
    return [
        (
            tf.reduce_all(valid),
            [
                f"{message}. Received labels from and to:",
                tf.reduce_min(labels),
                tf.reduce_max(labels),
            ],
        )
    ]


def at_most(name, tensors, limit):
    """Returns the checks that there are no more examples than a limit.

    Args:
        name: String, what the message calls them.
        tensors: Structure of tensors `[tasks, examples, ...]`.
        limit: Integer, or `None` for any number.
    """
    if limit is None:
        return []
    return [
        (
            tf.shape(leaf)[1] <= limit,
            [
                f"`{name}` must hold at most {limit} examples of a task. "
                "Received shape:",
                tf.shape(leaf),
            ],
        )
        for leaf in tf.nest.flatten(tensors)
    ]
