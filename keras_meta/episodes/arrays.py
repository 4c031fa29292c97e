import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta.episodes import labeled_examples
from keras_meta.episodes import meta_batches
from keras_meta.episodes import random_streams


def from_arrays(
    x,
    y,
    ways,
    shots,
    queries,
    meta_batch_size=32,
    episodes=None,
    classes=None,
    seed=0,
):
    """Makes few-shot classification episodes from labeled arrays.

    Each episode draws `ways` classes, and of each class `shots` examples for
    the support set and `queries` others for the query set. The classes of an
    episode are numbered anew, 0 to `ways - 1`, in random order. Everything
    runs in the `tf.data` graph, and an image is read only when it is used.

    Episode number n is the same for the same data, settings and seed, on
    every run and in meta-batches of any size.

    Args:
        x: Array or tensor `[examples, ...]`, or a nested structure of such.
            Images of dtype uint8 come out as float32 from 0 to 1, everything
            else as it is.
        y: Integer array `[examples]`, the class of each example. Any
            integers; gaps do not matter.
        ways: Integer, the classes of an episode.
        shots: Integer, the support examples of each class.
        queries: Integer, the query examples of each class.
        meta_batch_size: Integer, the episodes of a meta-batch. Defaults to
            `32`.
        episodes: Integer, the number of episodes: a fixed list, the same on
            every pass, for evaluation. `None` (the default) means without
            end, for training, and `fit()` then needs `steps_per_epoch`.
        classes: Optional sequence of labels, the classes to draw from; such
            as one part of a `keras_meta.episodes.class_split()`.
        seed: Integer. Defaults to `0`.

    Returns:
        A `tf.data.Dataset` of `(x, y)`, where `x` is a dictionary of
        `support_x` `[tasks, ways * shots, ...]`, `support_y`
        `[tasks, ways * shots]` and `query_x` `[tasks, ways * queries, ...]`,
        and `y` the labels of the queries, int32 `[tasks, ways * queries]`.

    Raises:
        ValueError, TypeError: Where the arrays do not fit each other, or
            hold too few classes or examples.

    Example:

    ```python
    x = np.random.uniform(size=(200, 28, 28, 1)).astype("float32")
    y = np.repeat(np.arange(10), 20)
    episodes = keras_meta.episodes.from_arrays(
        x, y, ways=5, shots=1, queries=15, meta_batch_size=4
    )
    ```
    """
    for name, value in (("ways", ways), ("shots", shots), ("queries", queries)):
        arguments.check_positive_integer(name, value)
    meta_batches.check_meta_batch_arguments(meta_batch_size, episodes, seed)
    x = tf.nest.map_structure(tf.convert_to_tensor, x)
    y = labeled_examples.labels_of(x, y)
    # Integers of NumPy would make labels of their own dtype.
    ways, shots, queries = int(ways), int(shots), int(queries)
    table, counts = _class_table(y, classes, ways, shots + queries)

    def make(first_episode, count):
        chosen = _sample(
            table, counts, ways, shots + queries, seed, first_episode, count
        )
        labels = tf.range(ways)[None, :, None]
        support, query = chosen[..., :shots], chosen[..., shots:]
        inputs = {
            episode.SUPPORT_X: labeled_examples.gather(x, _merge(support)),
            episode.SUPPORT_Y: _merge(tf.broadcast_to(labels, support.shape)),
            episode.QUERY_X: labeled_examples.gather(x, _merge(query)),
        }
        return inputs, _merge(tf.broadcast_to(labels, query.shape))

    return meta_batches.meta_batches(make, meta_batch_size, episodes)


def _class_table(y, classes, ways, examples):
    """Returns the table of the classes, if they suffice for an episode.

    Returns:
        A tuple of tensors: the positions `[classes, largest class]`, padded
        with 0, and the number of examples of each class.
    """
    classes, table, counts = labeled_examples.class_table(y, classes)
    if len(classes) < ways:
        raise ValueError(
            "`ways` must not exceed the number of classes. Received: "
            f"ways={ways}, but there are {len(classes)} classes. Lower "
            "`ways`, or add classes."
        )
    smallest = counts.argmin()
    if counts[smallest] < examples:
        raise ValueError(
            "`shots + queries` must not exceed the smallest class. Received: "
            f"shots + queries = {examples}, but class {classes[smallest]} has "
            f"{counts[smallest]} examples. Lower `shots` or `queries`, or "
            "leave the class out with `classes`."
        )
    return tf.constant(table), tf.constant(counts)


def _sample(table, counts, ways, examples, seed, first_episode, episodes):
    """Returns positions of examples, int32 `[episodes, ways, examples]`.

    The largest few of random keys are a uniform draw without replacement,
    in random order.
    """
    classes, largest = table.shape
    keys = random_streams.integers(
        seed, first_episode, episodes, classes + ways * largest
    )
    chosen = tf.math.top_k(keys[:, :classes], ways).indices
    example_keys = tf.reshape(keys[:, classes:], [-1, ways, largest])
    padded = tf.range(largest) >= tf.gather(counts, chosen)[..., None]
    example_keys = tf.where(padded, tf.int32.min, example_keys)
    positions = tf.math.top_k(example_keys, examples).indices
    return tf.gather(tf.gather(table, chosen), positions, batch_dims=2)


def _merge(chosen):
    """Joins the axes of ways and examples."""
    shape = chosen.shape
    return tf.reshape(chosen, [shape[0] or -1, shape[1] * shape[2]])
