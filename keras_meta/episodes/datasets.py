import tensorflow as tf

from keras_meta.episodes import examples_in_memory
from keras_meta.episodes.labeled_examples import LabeledExamples
from keras_meta.episodes.sampled_episodes import check_sampling
from keras_meta.episodes.sampled_episodes import sample_episodes

_SAME_SHAPE = (
    "Resize, cut or pad them: `dataset.map(lambda x, y: (..., y))`, before "
    "they are batched."
)


def from_dataset(
    dataset,
    ways,
    shots,
    queries,
    groups=None,
    class_names=None,
    verbose=True,
    **sampling,
):
    """Makes episodes from any `tf.data.Dataset` of labeled examples.

    It is read once, into memory, as the examples of a class may be anywhere in
    it. One that does not fit into memory is written to files, and read by
    `keras_meta.episodes.from_records()`. Episodes are the same again where
    the data set yields its examples in the same order again: leave out
    `shuffle()`, or give it a seed.

    Args:
        dataset: A `tf.data.Dataset` of `(x, y)` that ends: single examples,
            where `y` is a scalar, or batches of them, where `y` is `[batch]`
            or `[batch, 1]`. `x` is a tensor or a nested structure of such,
            and `y` integers.
        ways: Integer or pair; see `keras_meta.episodes.from_arrays()`.
        shots: Integer, pair or `"imbalanced"`; see there.
        queries: Integer or pair; see there.
        groups: Optional sequence, the group of each class in the order of
            its label, or of each example in the order of the data set.
        class_names: Optional sequence of strings, where number `i` is the
            name of class `i`.
        verbose: Boolean, whether to draw a progress bar where reading takes
            long. Defaults to `True`.
        **sampling: The other arguments of
            `keras_meta.episodes.from_arrays()`. `classes` may also hold
            names of classes and groups.

    Returns:
        A `tf.data.Dataset` as that of `keras_meta.episodes.from_arrays()`.

    Raises:
        ValueError: Where the data set has no end or no examples, where their
            shapes differ, or where there are too few of them.
        TypeError: Where it is no data set of `(x, y)`, or the labels are no
            integers.

    Example:

    ```python
    def resize(image, label):
        return tf.image.resize(image, (28, 28)), label

    images = np.random.uniform(size=(40, 32, 32, 3)).astype("float32")
    labels = np.repeat(np.arange(8), 5)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    episodes = keras_meta.episodes.from_dataset(
        dataset.map(resize), ways=5, shots=1, queries=4
    )
    ```
    """
    check_sampling(ways, shots, queries, sampling)
    _check(dataset)
    x, y = examples_in_memory.read(
        dataset, _SAME_SHAPE, _is_batched(dataset), verbose
    )
    examples = LabeledExamples(x, y, groups, class_names, name="tf.data")
    return sample_episodes(examples, ways, shots, queries, **sampling)


def _check(dataset):
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            "`dataset` must be a `tf.data.Dataset`. Received: an object of "
            f"type {type(dataset).__name__}. Arrays go to "
            "`keras_meta.episodes.from_arrays()`, and a Python generator "
            "through `tf.data.Dataset.from_generator()`."
        )
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise TypeError(
            "`dataset` must yield pairs `(x, y)`, inputs and their classes. "
            f"Received: elements {_described(spec)}. Make pairs of them with "
            "`dataset.map()`."
        )
    for leaf in tf.nest.flatten(spec):
        if not isinstance(leaf, tf.TensorSpec):
            raise TypeError(
                "All parts of an example must be dense tensors. Received: "
                f"{leaf}. Pad ragged ones: "
                "`dataset.map(lambda x, y: (x.to_tensor(shape=...), y))`."
            )
    y = spec[1]
    if tf.nest.is_nested(y) or not y.dtype.is_integer:
        raise TypeError(
            "The labels must be integers, the class of each example. "
            f"Received: labels {_described(y)}. Turn one-hot labels into "
            "numbers with `dataset.map(lambda x, y: (x, tf.argmax(y, -1)))`, "
            "and strings with `keras.layers.StringLookup`."
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "`dataset` must have an end, as it is read into memory. Received: "
            "one without. Leave out `repeat()`, or use `dataset.take(count)`."
        )


def _is_batched(dataset):
    shape = dataset.element_spec[1].shape
    if shape.rank is None:
        for _, y in dataset.take(1):
            shape = y.shape
    if shape.rank == 2 and shape[1] not in (1, None) or (shape.rank or 0) > 2:
        raise ValueError(
            "The labels must be scalars, or [batch] where they are batched. "
            f"Received: labels of shape {shape}. Turn one-hot labels into "
            "numbers with `dataset.map(lambda x, y: (x, tf.argmax(y, -1)))`."
        )
    return bool(shape.rank)


def _described(spec):
    return tf.nest.map_structure(
        lambda leaf: (
            f"{leaf.dtype.name} of shape {leaf.shape}"
            if isinstance(leaf, tf.TensorSpec)
            else str(leaf)
        ),
        spec,
    )
