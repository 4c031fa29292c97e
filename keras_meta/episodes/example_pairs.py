import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import distances
from keras_meta import pair
from keras_meta.episodes import labeled_examples
from keras_meta.episodes import meta_batches
from keras_meta.episodes import random_streams

# The random numbers that a pair takes from its stretch of the stream.
_NUMBERS = 6

# How many examples are embedded, and how many classes compared, at a time.
_CHUNK = 256


def pairs(
    x,
    y,
    batch_size=32,
    hard=0.0,
    neighbors=5,
    embed=None,
    groups=None,
    pairs=None,
    classes=None,
    seed=0,
):
    """Makes labeled pairs of examples, half of them of one class.

    Pairs 0, 2, 4, ... are two examples of one class, label 1; pairs 1, 3, 5,
    ... are of different classes, label 0. All classes are equally likely,
    whatever their sizes. Everything runs in the `tf.data` graph, and an image
    is read only when it is used.

    Pair number n is the same for the same data, settings and seed, on every
    run and in batches of any size.

    Pairs of different classes that are hard to tell apart teach more than
    others, of which a trained network finds most easy. A share `hard` of them
    takes its second class from those that resemble the first: the classes of
    its group, where `groups` are given, or else the `neighbors` nearest ones.
    What is near is told by the distance between class means, of the raw
    inputs or of what `embed` makes of them.

    Args:
        x: Array or tensor `[examples, ...]`, or a nested structure of such.
            Images of dtype uint8 come out as float32 from 0 to 1, everything
            else as it is.
        y: Integer array `[examples]`, the class of each example.
        batch_size: Integer, the pairs of a batch. Defaults to `32`.
        hard: Float from 0 to 1, how likely a pair of different classes is to
            be a hard one. Defaults to `0.0`.
        neighbors: Integer, among how many of the nearest classes a hard pair
            finds its second class. Defaults to `5`.
        embed: Optional `keras.Model` or function from examples
            `[batch, ...]`, as they come out of this data set, to embeddings.
            It is used once, here, so that what it learns later changes
            nothing; and not at all where `hard` is 0.
        groups: Optional sequence, the group of each class of `y` in the
            order of its number (its script, say), as for
            `keras_meta.episodes.class_split()`. A class alone in its group
            has no hard pairs. They change nothing where `hard` is 0.
        pairs: Integer, the number of pairs: a fixed list, the same on every
            pass, for evaluation. `None` (the default) means without end, for
            training, and `fit()` then needs `steps_per_epoch`.
        classes: Optional sequence of labels, the classes to draw from.
        seed: Integer. Defaults to `0`.

    Returns:
        A `tf.data.Dataset` of `(x, y)`, where `x` is a dictionary of `first`
        and `second`, both `[batch, ...]`, and `y` is int32 `[batch]`, 1 where
        both are of one class.

    Raises:
        ValueError, TypeError: Where the arrays do not fit each other, where
            there are fewer than two classes or a class has a single example,
            or where another argument is not as described.

    Example:

    ```python
    x = np.random.uniform(size=(200, 28, 28, 1)).astype("float32")
    y = np.repeat(np.arange(10), 20)
    train = keras_meta.episodes.pairs(x, y, batch_size=64, hard=0.5)
    test = keras_meta.episodes.pairs(x, y, pairs=100, seed=1)
    ```
    """
    arguments.check_positive_integer("batch_size", batch_size)
    if pairs is not None:
        arguments.check_positive_integer(
            "pairs", pairs, "Use `None` for endless pairs."
        )
    arguments.check_integer("seed", seed)
    arguments.check_share("hard", hard)
    arguments.check_positive_integer("neighbors", neighbors)
    if embed is not None and groups is not None:
        raise ValueError(
            "Hard pairs are told either by `embed` or by `groups`. Received: "
            "both. Leave one out."
        )
    if embed is not None and not callable(embed):
        raise TypeError(
            "`embed` must be a `keras.Model` or a function. Received: "
            f"embed={embed!r}."
        )
    x = tf.nest.map_structure(tf.convert_to_tensor, x)
    y = labeled_examples.labels_of(x, y)
    labels, order, starts, counts = labeled_examples.class_table(y, classes)
    _check_classes(labels, counts)
    similar, similar_counts = np.zeros((len(labels), 1)), np.zeros(len(labels))
    if groups is not None:
        similar, similar_counts = _same_group(y, labels, groups)
    elif hard:
        similar = _nearest(
            _class_means(x, order, starts, counts, embed), neighbors
        )
        similar_counts = np.full(len(labels), similar.shape[1])
    tables = [
        tf.constant(array, "int32")
        for array in (order, starts, counts, similar, similar_counts)
    ]

    def make(first_pair, count):
        numbers = random_streams.uniform(seed, first_pair, count, _NUMBERS)
        same = (first_pair + tf.range(count, dtype="int64")) % 2 == 0
        first, second = _sample(*tables, numbers, same, float(hard))
        inputs = {
            pair.FIRST: labeled_examples.gather(x, first),
            pair.SECOND: labeled_examples.gather(x, second),
        }
        return inputs, tf.cast(same, "int32")

    recipe = meta_batches.Recipe(make, {"source": "pairs", "seed": int(seed)})
    return meta_batches.meta_batches(recipe, batch_size, pairs)


def _check_classes(labels, counts):
    if len(labels) < 2:
        raise ValueError(
            "Pairs need at least two classes. Received: "
            f"{len(labels)} class(es)."
        )
    if counts.min() < 2:
        raise ValueError(
            "Every class must have at least two examples, for pairs of one "
            f"class. Received: class {labels[counts.argmin()]} has "
            f"{counts.min()}. Leave it out with `classes`."
        )


def _sample(
    order, starts, counts, similar, similar_counts, numbers, same, hard
):
    """Returns the positions of the first and the second examples."""

    def choose(number, count):
        # Rounding must not reach the count itself.
        count_as_float = tf.cast(count, "float32")
        chosen = tf.cast(number * count_as_float, "int32")
        return tf.minimum(chosen, tf.maximum(count - 1, 0))

    def choose_another(number, chosen, count):
        return (chosen + 1 + choose(number, count - 1)) % count

    of_class, of_example, of_other, of_second, is_hard, of_similar = tf.unstack(
        numbers, axis=1
    )
    classes = tf.shape(counts)[0]
    first_class = choose(of_class, classes)
    other_class = choose_another(of_second, first_class, classes)
    alike = tf.gather(similar_counts, first_class)
    similar_class = tf.gather(
        tf.gather(similar, first_class), choose(of_similar, alike), batch_dims=1
    )
    other_class = tf.where(
        (is_hard < hard) & (alike > 0), similar_class, other_class
    )
    second_class = tf.where(same, first_class, other_class)

    count = tf.gather(counts, first_class)
    first = choose(of_example, count)
    second = tf.where(
        same,
        choose_another(of_other, first, count),
        choose(of_other, tf.gather(counts, second_class)),
    )
    return (
        tf.gather(order, tf.gather(starts, first_class) + first),
        tf.gather(order, tf.gather(starts, second_class) + second),
    )


def _same_group(y, labels, groups):
    """Returns the other classes of each one's group, padded, and how many."""
    present = np.unique(y)
    groups = np.asarray(groups)
    if groups.shape != present.shape:
        raise ValueError(
            "`groups` must name the group of each class of `y`. Received: "
            f"groups of shape {groups.shape} for {len(present)} classes."
        )
    groups = groups[np.searchsorted(present, labels)]
    rows = [
        np.setdiff1d(np.flatnonzero(groups == group), own)
        for own, group in enumerate(groups)
    ]
    counts = np.array([len(row) for row in rows])
    similar = np.zeros((len(rows), max(counts.max(), 1)), "int32")
    for row, members in zip(similar, rows):
        row[: len(members)] = members
    return similar, counts


def _class_means(x, order, starts, counts, embed):
    """Returns the mean of each class, float32 `[classes, size]`."""
    means = []
    for first, count in zip(starts, counts):
        total = 0.0
        for start in range(0, count, _CHUNK):
            last = first + min(start + _CHUNK, count)
            positions = order[first + start : last]
            examples = labeled_examples.gather(x, positions)
            values = examples if embed is None else embed(examples)
            total += _flat_sum(values)
        means.append(total / count)
    means = np.stack(means).astype("float32")
    if not np.all(np.isfinite(means)):
        raise ValueError(
            "The means of the classes must be finite, to tell which are near. "
            "Received: NaN or Inf. Clean the inputs, or give `groups`."
        )
    return means


def _flat_sum(values):
    """Returns the sum over examples, float64, all leaves in one axis."""
    sums = []
    for leaf in tf.nest.flatten(values):
        leaf = tf.convert_to_tensor(leaf)
        if leaf.dtype == tf.string:
            raise TypeError(
                "Inputs must be numbers to tell which classes are near. "
                f"Received: dtype {leaf.dtype.name}. Give `embed` or `groups`."
            )
        total = tf.reduce_sum(tf.cast(leaf, "float64"), axis=0)
        sums.append(total.numpy().ravel())
    return np.concatenate(sums)


def _nearest(means, neighbors):
    """Returns the nearest other classes of each, `[classes, neighbors]`."""
    classes = len(means)
    # The matrix product in the distances loses less the smaller its numbers.
    means = means - means.mean(axis=0)
    nearest = []
    for start in range(0, classes, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, classes))
        away = distances.squared_euclidean(means[rows], means).numpy()
        away[np.arange(len(rows)), rows] = np.inf
        order = np.argsort(away, axis=1, kind="stable")
        nearest.append(order[:, : min(neighbors, classes - 1)])
    return np.concatenate(nearest)
