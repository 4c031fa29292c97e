import tensorflow as tf

from keras_meta import arguments
from keras_meta.episodes import examples_in_memory
from keras_meta.episodes import labeled_images
from keras_meta.episodes.labeled_examples import LabeledExamples
from keras_meta.episodes.sampled_episodes import check_sampling
from keras_meta.episodes.sampled_episodes import sample_episodes


def from_tfds(
    name,
    ways,
    shots,
    queries,
    split="train",
    inputs="image",
    label="label",
    group=None,
    image_size=None,
    color=None,
    data_dir=None,
    download=True,
    verbose=True,
    **sampling,
):
    """Makes episodes from a data set of TensorFlow Datasets (TFDS).

    It is downloaded where it is not there yet, and read once, in parallel,
    into memory. TFDS is installed with `pip install 'keras-meta[datasets]'`.

    For Omniglot: `from_tfds("omniglot", 20, 1, 1, group="alphabet",
    image_size=(28, 28), color="grayscale")`.

    Args:
        name: String, the name of the data set, such as `"omniglot"` or
            `"omniglot:3.0.0"`; or a `tfds.core.DatasetBuilder`.
        ways: Integer or pair; see `keras_meta.episodes.from_arrays()`.
        shots: Integer, pair or `"imbalanced"`; see there.
        queries: Integer or pair; see there.
        split: String, what part of it, as TFDS has it: `"train+test"`,
            `"train[:10%]"`. Defaults to `"train"`.
        inputs: String, the feature that is shown, such as a text or a tensor.
            Defaults to `"image"`.
        label: String, the feature that is the class. Defaults to `"label"`.
        group: Optional string, the feature that is the group of a class, such
            as the `"alphabet"` of Omniglot.
        image_size: Optional tuple of integers, `(height, width)`, to which
            each image is resized: by the mean of an area where it shrinks,
            else bilinear. `None` (the default) keeps the size, which must
            then be the same for all.
        color: `"rgb"` or `"grayscale"`. `None` (the default) keeps it as it
            is.
        data_dir: Optional string or path, the folder of the data sets of
            TFDS.
        download: Boolean, whether to download and prepare the data set where
            it is not there yet. Defaults to `True`.
        verbose: Boolean, whether to draw a progress bar where reading takes
            long. Defaults to `True`.
        **sampling: The other arguments of
            `keras_meta.episodes.from_arrays()`, but for `groups`. `classes`
            may also hold names of classes and groups.

    Returns:
        A `tf.data.Dataset` as that of `keras_meta.episodes.from_arrays()`.

    Raises:
        ImportError: Where TFDS is not installed.
        FileNotFoundError: Where the data set is not there, with
            `download=False`.
        ValueError: Where there is no such data set, split or feature (those
            that there are are listed), where the images differ in size, where
            a class lies in two groups, or where there are too few classes or
            examples.

    Example:

    ```python
    import tensorflow_datasets as tfds

    # Pictures of noise, for a try without a download.
    with tfds.testing.mock_data(num_examples=200):
        episodes = keras_meta.episodes.from_tfds(
            "mnist", ways=5, shots=1, queries=4
        )
    ```
    """
    check_sampling(ways, shots, queries, sampling)
    if image_size is not None:
        labeled_images.check_image_size(image_size)
    if color is not None:
        labeled_images.channels_of(color)
    arguments.check_boolean("download", download)
    tfds = _import_tfds()
    builder = _builder(tfds, name, data_dir)
    # Before anything is downloaded.
    features = _features(builder, inputs, label, group)
    if image_size is not None or color is not None:
        _check_image(inputs, features[inputs])
    _prepare(builder, download)
    _check_split(builder, split)
    dataset = builder.as_dataset(
        split=split,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(features, True)),
        # What is kept is kept below.
        read_config=tfds.ReadConfig(try_autocache=False),
    )

    def choose(example):
        x = example[inputs]
        if color is not None:
            x = _recolor(x, color)
        if image_size is not None:
            x = labeled_images.resize(x, image_size)
            x = tf.ensure_shape(x, [*image_size, None])
        return x, example[label], 0 if group is None else example[group]

    x, labels, groups = examples_in_memory.read(
        dataset.map(choose, tf.data.AUTOTUNE),
        "Pass `image_size=(height, width)` where they are images; else make "
        "them equal with `builder.as_dataset()` and `map()`, and use "
        "`keras_meta.episodes.from_dataset()`.",
        verbose=verbose,
    )
    if (labels < 0).any():
        raise ValueError(
            "Every example must have a label. Received: the split "
            f"{split!r}, where {(labels < 0).sum()} of {len(labels)} have "
            "none (-1). Choose another split."
        )
    examples = LabeledExamples(
        x,
        labels,
        None if group is None else _group_names(features[group], groups),
        getattr(features[label], "names", None),
        _protocol_name(builder, split),
    )
    return sample_episodes(examples, ways, shots, queries, **sampling)


def _import_tfds():
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "`from_tfds()` needs TensorFlow Datasets. Install it with "
            "`pip install 'keras-meta[datasets]'`."
        ) from error
    return tensorflow_datasets


def _builder(tfds, name, data_dir):
    if isinstance(name, str):
        return tfds.builder(name, data_dir=data_dir)
    if not isinstance(name, tfds.core.DatasetBuilder):
        raise TypeError(
            "`name` must be the name of a data set of TFDS, or a "
            f"`tfds.core.DatasetBuilder`. Received: name={name!r}."
        )
    if data_dir is not None:
        raise ValueError(
            "`data_dir` must not be given with a builder, which has its own. "
            f"Received: data_dir={data_dir!r}. Give it to the builder."
        )
    return name


def _features(builder, inputs, label, group):
    """Returns the features that are used, by their names."""
    there = builder.info.features
    there = dict(there.items()) if hasattr(there, "items") else {}
    names = {"inputs": inputs, "label": label, "group": group}
    if group is None:
        del names["group"]
    for argument, name in names.items():
        if name not in there:
            raise ValueError(
                f"`{argument}` must be a feature of {builder.name}. Received: "
                f"{argument}={name!r}. There are: {sorted(there)}."
            )
    _check_scalar("label", label, there[label], "integers", ())
    if group is not None:
        _check_scalar(
            "group", group, there[group], "integers or strings", (tf.string,)
        )
    return {name: there[name] for name in names.values()}


def _check_scalar(argument, name, feature, kinds, others):
    spec = feature.get_tensor_spec()
    is_scalar = isinstance(spec, tf.TensorSpec) and spec.shape.rank == 0
    if not is_scalar or not (spec.dtype.is_integer or spec.dtype in others):
        raise ValueError(
            f"`{argument}` must be a feature of single {kinds}. Received: "
            f"{argument}={name!r}, which is {feature!r}. Name another, or use "
            "`keras_meta.episodes.from_dataset()`."
        )


def _check_image(name, feature):
    spec = feature.get_tensor_spec()
    is_image = (
        isinstance(spec, tf.TensorSpec)
        and spec.dtype == tf.uint8
        and spec.shape.rank == 3
        and spec.shape[2] in (1, 3, 4)
    )
    if not is_image:
        raise ValueError(
            "`image_size` and `color` are for images of dtype uint8 with 1, 3 "
            f"or 4 channels. Received: inputs={name!r}, which is {feature!r}. "
            "Leave them out, or use `keras_meta.episodes.from_dataset()`."
        )


def _prepare(builder, download):
    if download:
        builder.download_and_prepare()
    elif not builder.is_prepared():
        raise FileNotFoundError(
            f"The data set must be there. Received: {builder.name}, which is "
            f"not in {builder.data_dir}. Pass `download=True`, or another "
            "`data_dir`."
        )


def _check_split(builder, split):
    splits = builder.info.splits
    try:
        # Those of `tfds.testing.mock_data()` are not known.
        if splits or not isinstance(split, str):
            splits[split]
    except Exception as error:
        # What it raises is up to the release, and to what was given.
        raise ValueError(
            f"`split` must be a split of {builder.name}, or a part of one such "
            f"as 'train[:50%]'. Received: split={split!r}. There are: "
            f"{sorted(splits)}."
        ) from error


def _recolor(image, color):
    channels = image.shape[2]
    if color == "grayscale":
        if channels == 1:
            return image
        return tf.image.rgb_to_grayscale(image[..., :3])
    if channels == 1:
        return tf.image.grayscale_to_rgb(image)
    # A fourth channel says what is seen through.
    return image[..., :3]


def _group_names(feature, groups):
    if hasattr(feature, "int2str"):
        return [feature.int2str(int(group)) for group in groups]
    return [
        group.decode() if isinstance(group, bytes) else str(group)
        for group in groups
    ]


def _protocol_name(builder, split):
    config = getattr(builder.builder_config, "name", None)
    name = f"{builder.name}/{config}" if config else builder.name
    return f"TFDS {name}:{builder.version}, split {split}"
