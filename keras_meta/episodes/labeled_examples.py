"""Labeled examples in memory: what is drawn from them, and the checks."""

import hashlib

import numpy as np
import tensorflow as tf


class LabeledExamples:
    """Labeled examples in memory.

    What episodes are drawn from, and the shape of all that they may be drawn
    from: `labels`, `groups`, `class_names`, `name`, `element_spec`, `gather()`
    and `fingerprint()` are what others need to have.

    Args:
        x: Array or tensor `[examples, ...]`, or a nested structure of such.
        y: Integers `[examples]`, the class of each example.
        groups: Optional sequence, the group of each class in the order of its
            label, or of each example.
        class_names: Optional sequence of strings, where number `i` is the
            name of class `i`.
        name: String, what to call them in a protocol.
    """

    def __init__(self, x, y, groups=None, class_names=None, name="arrays"):
        self.x = tf.nest.map_structure(tf.convert_to_tensor, x)
        self.labels = labels_of(self.x, y)
        self.groups = groups_of(self.labels, groups)
        check_class_names(self.labels, class_names)
        self.class_names = class_names
        self.name = name

    @property
    def element_spec(self):
        """The shapes and dtypes of an example."""
        return tf.nest.map_structure(
            lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), self.x
        )

    def gather(self, positions):
        """Returns the examples at these positions, as they are."""
        return tf.nest.map_structure(
            lambda leaf: tf.gather(leaf, positions), self.x
        )

    def fingerprint(self):
        """Returns a hash of the examples and their labels, as a string."""
        digest = hashlib.sha256()
        for path, leaf in _paths(self.x):
            array = leaf.numpy()
            digest.update(f"{path} {array.dtype} {array.shape}".encode())
            if array.dtype == object:
                for text in array.ravel():
                    digest.update(len(text).to_bytes(8, "little") + text)
            else:
                digest.update(array.tobytes())
        digest.update(self.labels.astype("int64").tobytes())
        return digest.hexdigest()


def _paths(x):
    """Returns pairs of the place of a leaf in a structure, and the leaf."""
    if isinstance(x, dict):
        pairs = sorted(x.items())
    elif isinstance(x, (tuple, list)):
        pairs = list(enumerate(x))
    else:
        return [("", x)]
    return [
        (f"{key}/{rest}", leaf)
        for key, value in pairs
        for rest, leaf in _paths(value)
    ]


def labels_of(x, y):
    """Checks labeled examples; returns the labels, integers `[examples]`."""
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        # As the data sets of `keras.datasets` have them.
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(
            "`y` must hold one class number per example, shape [examples]. "
            f"Received: y of shape {y.shape}. Turn one-hot labels into "
            "numbers with `y.argmax(axis=1)`."
        )
    if y.size == 0:
        raise ValueError(
            "The data set must hold at least one example. Received: an empty "
            "`y`."
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(
            "`y` must hold integers, the class of each example. Received: y "
            f"of dtype {y.dtype}. Number the classes, for example with "
            "`np.unique(y, return_inverse=True)[1]`."
        )
    if not tf.nest.flatten(x):
        raise ValueError(
            "`x` must hold at least one array. Received: an empty "
            f"{type(x).__name__}."
        )
    for leaf in tf.nest.flatten(x):
        length = leaf.shape[0] if leaf.shape.rank else 0
        if length != len(y):
            raise ValueError(
                "`x` and `y` must have the same number of examples. "
                f"Received: x of shape {leaf.shape} and y of length {len(y)}. "
                "A list of examples is made one array with `np.stack(x)`."
            )
    return y


def check_class_names(labels, class_names):
    """Raises a `ValueError` where there is a class without a name."""
    if class_names is None:
        return
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(
            "`class_names` must hold the names of the classes 0, 1, 2 and so "
            f"on, up to the largest label. Received: {len(class_names)} names "
            f"for labels from {labels.min()} to {labels.max()}."
        )


def number_labels(labels):
    """Returns labels as integers, and the names of the classes.

    Strings are numbered in their sorted order, from 0. Everything else stays
    as it is, and has no names.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    are_strings = labels.dtype.kind in "SUT" or all(
        isinstance(label, (str, bytes)) for label in labels.ravel().tolist()
    )
    if labels.ndim != 1 or not labels.size or not are_strings:
        return labels, None
    texts = [
        label.decode() if isinstance(label, bytes) else label
        for label in labels.tolist()
    ]
    names, numbers = np.unique(texts, return_inverse=True)
    return numbers, names.tolist()


def groups_of(labels, groups, classes=None):
    """Returns the groups of some classes, as a list of strings.

    Args:
        labels: Integer array `[examples]`.
        groups: Sequence, the group of each class in the order of its label,
            or of each example; or `None`.
        classes: Integer array, some of the labels; or `None`, all.
    """
    if groups is None:
        return None
    if any(group is None for group in groups):
        raise ValueError(
            "Every class must have a group. Received: groups with None among "
            "them."
        )
    groups = np.asarray(groups).astype(str)
    present, where, index = np.unique(
        labels, return_index=True, return_inverse=True
    )
    if groups.shape == labels.shape and len(labels) > len(present):
        first = groups[where]
        (others,) = np.nonzero(groups != first[index])
        if others.size:
            other = others[labels[others].argmin()]
            raise ValueError(
                "A class must lie in one group. Received: class "
                f"{labels[other]}, which lies in the groups "
                f"{str(first[index[other]])!r} and {str(groups[other])!r}. "
                "Number classes of one name in two groups apart."
            )
        groups = first
    if groups.shape != present.shape:
        raise ValueError(
            "`groups` must name the group of each class, in the order of the "
            f"labels, or of each example. Received: {groups.size} groups for "
            f"{len(present)} classes and {len(labels)} examples."
        )
    if classes is not None:
        groups = groups[np.searchsorted(present, classes)]
    return groups.tolist()


def class_table(y, classes=None):
    """Returns where the examples of each class are.

    Args:
        y: Integer array `[examples]`.
        classes: Labels to use, or `None`: all.

    Returns:
        A tuple of arrays: the labels of the classes, sorted; the positions of
        all examples, class after class, int32 `[examples]`; where in these
        those of each class start; and their numbers of examples, int32.
    """
    present, counts = np.unique(y, return_counts=True)
    if classes is None:
        classes = present
    classes = np.unique(np.asarray(list(classes)))
    if classes.dtype == bool:
        raise TypeError(
            "`classes` must be labels that occur in `y`. Received: booleans. "
            "Turn a mask into labels with `np.unique(y)[mask]`."
        )
    absent = np.setdiff1d(classes, present)
    if absent.size:
        raise ValueError(
            "`classes` must be labels that occur in `y`. Received: classes "
            f"that do not: {absent[:10].tolist()}."
        )
    counts = counts[np.searchsorted(present, classes)]
    order = np.argsort(y, kind="stable")
    starts = np.searchsorted(y[order], classes)
    return (
        classes,
        order.astype("int32"),
        starts.astype("int32"),
        counts.astype("int32"),
    )


def gather(x, positions):
    """Returns the examples at these positions, `[positions, ...]`.

    Images of dtype uint8 come out as float32 from 0 to 1.
    """
    return tf.nest.map_structure(
        lambda leaf: to_float(tf.gather(leaf, positions)), x
    )


def to_float(images):
    """Returns images of dtype uint8 as float32 from 0 to 1, others as is."""
    if images.dtype != tf.uint8:
        return images
    # In one pass over memory, which is what episodes wait for; to cast and
    # then to divide takes two.
    return tf.raw_ops.Dequantize(
        input=tf.bitcast(images, tf.quint8),
        min_range=0.0,
        max_range=1.0,
        mode="MIN_COMBINED",
    )
