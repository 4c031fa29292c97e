"""Ordinary data sets of labeled examples, for training without episodes."""

import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta.episodes import labeled_examples
from keras_meta.episodes import meta_batches


def examples(x, y, classes=None, held_out=None, batch_size=64, seed=0):
    """Makes batches of labeled examples, for `fit()` of every Keras model.

    It is what a baseline is pretrained on: `keras_meta.FineTuning` and
    `keras_meta.FrozenRepresentation`. The classes are numbered anew, from 0 in
    the order of their labels.

    Args:
        x: Array or tensor `[examples, ...]`, or a nested structure of such.
            Images of dtype uint8 come out as float32 from 0 to 1, everything
            else as it is.
        y: Integer array `[examples]`, the class of each example.
        classes: Optional sequence of labels, the classes to train on; such as
            one part of a `keras_meta.episodes.class_split()`. `None` (the
            default) means all that are not held out.
        held_out: Optional sequence of labels, the classes of evaluation.
            Training on one of them is an error.
        batch_size: Integer. Defaults to `64`.
        seed: Integer, of the order of the examples. Defaults to `0`.

    Returns:
        A `tf.data.Dataset` of `(x, y)`, one pass over the examples in another
        order each time, where `y` is int32 `[batch]`.

    Raises:
        ValueError, TypeError: Where the arrays do not fit each other, or a
            class is both trained on and held out.

    Example:

    ```python
    images = np.random.uniform(size=(200, 28, 28, 1)).astype("float32")
    labels = np.repeat(np.arange(10), 20)
    train, test = keras_meta.episodes.class_split(labels)
    data = keras_meta.episodes.examples(
        images, labels, classes=train, held_out=test
    )
    ```
    """
    arguments.check_positive_integer("batch_size", batch_size)
    arguments.check_integer("seed", seed)
    x = tf.nest.map_structure(tf.convert_to_tensor, x)
    y = labeled_examples.labels_of(x, y)
    held_out = np.unique(np.asarray([] if held_out is None else held_out))
    if classes is None:
        classes = np.setdiff1d(y, held_out)
    classes, *_ = labeled_examples.class_table(y, classes)
    both = np.intersect1d(classes, held_out)
    if both.size:
        raise ValueError(
            "No class of evaluation must be trained on. Received: classes "
            f"that are also held out: {both[:10].tolist()}"
            f"{' and more' if both.size > 10 else ''}. Take both from one "
            "`keras_meta.episodes.class_split()`."
        )
    chosen = np.flatnonzero(np.isin(y, classes))
    if not chosen.size:
        raise ValueError(
            "There must be at least one class to train on. Received: classes="
            f"{classes.tolist()}."
        )
    numbers = np.searchsorted(classes, y[chosen]).astype("int32")
    # NumPy takes no negative seeds, nor does every function of TensorFlow.
    seed = abs(int(seed))

    def gather(positions, labels):
        return labeled_examples.gather(x, positions), labels

    def batches_of(order):
        batches = order.batch(batch_size)
        return meta_batches.ahead(batches.map(gather, tf.data.AUTOTUNE))

    def of_epoch(epoch):
        shuffle = tf.random.experimental.stateless_shuffle(
            tf.range(len(chosen)), tf.stack([tf.cast(seed, "int64"), epoch])
        )
        parts = tf.gather(chosen, shuffle), tf.gather(numbers, shuffle)
        return batches_of(tf.data.Dataset.from_tensor_slices(parts))

    dataset = batches_of(
        tf.data.Dataset.from_tensor_slices((chosen, numbers)).shuffle(
            len(chosen), seed=seed, reshuffle_each_iteration=True
        )
    )
    # A run that was stopped goes on with the epoch that it had come to.
    dataset.keras_meta_of_epoch = of_epoch
    return dataset


def pooled(episodes):
    """Turns episodes into ordinary batches, the tasks of each put together.

    For a regression this is training on all tasks at once, without knowing
    which is which: the baseline to pretrain on. The classes of episodes are
    numbered anew in each, so that theirs cannot be pooled; use
    `keras_meta.episodes.examples()`.

    Args:
        episodes: A `tf.data.Dataset` of meta-batches `(x, y)` or `(x, y,
            sample_weight)` of a regression.

    Returns:
        A `tf.data.Dataset` of `(x, y, sample_weight)`: the examples of the
        support sets and the queries of all tasks of a meta-batch, `[tasks *
        (support + query), ...]`, their targets, and their weights.

    Raises:
        TypeError: Where the labels are class numbers.

    Example:

    ```python
    examples = keras_meta.episodes.pooled(keras_meta.episodes.sinusoids())
    model = keras_meta.FineTuning(keras_meta.backbones.mlp())
    model.compile("adam", loss="mse")
    model.fit(examples, steps_per_epoch=100)
    ```
    """

    def pool(x, y, sample_weight=None):
        episode.check(x, y, sample_weight)
        if tf.nest.flatten(y)[0].dtype.is_integer:
            raise TypeError(
                "The labels must be targets of a regression. Received: labels "
                f"of dtype {tf.nest.flatten(y)[0].dtype.name}, which are "
                "numbered anew in each episode. Use "
                "`keras_meta.episodes.examples()`."
            )

        def join(support, query):
            both = tf.concat([support, query], axis=1)
            return tf.reshape(both, [-1, *both.shape[2:]])

        def weights(given, examples):
            if given is not None:
                return tf.cast(given, "float32")
            return tf.ones(tf.shape(tf.nest.flatten(examples)[0])[:2])

        support_x, query_x = x[episode.SUPPORT_X], x[episode.QUERY_X]
        return (
            tf.nest.map_structure(join, support_x, query_x),
            tf.nest.map_structure(join, x[episode.SUPPORT_Y], y),
            join(
                weights(x.get(episode.SUPPORT_WEIGHT), support_x),
                weights(sample_weight, query_x),
            ),
        )

    return episodes.map(pool, tf.data.AUTOTUNE)
