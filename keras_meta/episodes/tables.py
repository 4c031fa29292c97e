import numpy as np
import tensorflow as tf

from keras_meta.episodes import labeled_examples
from keras_meta.episodes.labeled_examples import LabeledExamples
from keras_meta.episodes.sampled_episodes import check_sampling
from keras_meta.episodes.sampled_episodes import sample_episodes


def from_table(
    table,
    label,
    ways,
    shots,
    queries,
    features=None,
    encode=None,
    group=None,
    **sampling,
):
    """Makes episodes from a table of labeled rows.

    Columns of numbers become float32 `[rows, features]`, as they are: scale
    them, by what the rows of the training classes are like, or pass `encode`.

    Args:
        table: A pandas `DataFrame`, or a dictionary of columns, each of
            which has a value for every row.
        label: The name of the column that is the class of a row: integers or
            strings. Strings are the names of the classes, which are numbered
            in their sorted order.
        ways: Integer or pair; see `keras_meta.episodes.from_arrays()`.
        shots: Integer, pair or `"imbalanced"`; see there.
        queries: Integer or pair; see there.
        features: Optional sequence of names, the columns that are shown.
            `None` (the default) means all but the label and the group.
        encode: Optional function or Keras layer from a dictionary of columns,
            arrays `[rows]`, to a tensor `[rows, ...]` or a nested structure
            of such, for columns that are no numbers or have gaps. A
            `keras.utils.FeatureSpace` will do; adapt it on the rows of the
            training classes alone.
        group: Optional name of the column that is the group of a row's
            class.
        **sampling: The other arguments of
            `keras_meta.episodes.from_arrays()`, but for `groups`. `classes`
            may also hold names of classes and groups.

    Returns:
        A `tf.data.Dataset` as that of `keras_meta.episodes.from_arrays()`.

    Raises:
        ValueError: Where there is no such column, where one is no numbers or
            has gaps, where columns differ in length, where a class lies in
            two groups, or where there are too few classes or rows.
        TypeError: Where it is no table, or the labels are neither integers
            nor strings.

    Example:

    ```python
    table = {
        "height": np.random.normal(size=60),
        "weight": np.random.normal(size=60),
        "color": np.random.choice(["brown", "gray"], size=60),
        "species": np.repeat(["bear", "deer", "fox", "hare", "lynx"], 12),
    }
    episodes = keras_meta.episodes.from_table(
        table,
        label="species",
        ways=3,
        shots=1,
        queries=5,
        features=["height", "weight"],
    )

    # A column that is no numbers goes through a layer of Keras.
    space = keras.utils.FeatureSpace(
        features={
            "height": "float_normalized",
            "weight": "float_normalized",
            "color": "string_categorical",
        },
        output_mode="concat",
    )
    columns = {name: table[name][:48] for name in space.features}
    space.adapt(tf.data.Dataset.from_tensor_slices(columns))
    episodes = keras_meta.episodes.from_table(
        table,
        label="species",
        ways=3,
        shots=1,
        queries=5,
        encode=space,
        classes=["bear", "deer", "fox", "hare"],
    )
    ```
    """
    check_sampling(ways, shots, queries, sampling)
    columns = _columns(table)
    shown = _names(columns, label, features, group)
    labels, class_names = labeled_examples.number_labels(_whole(columns, label))
    shown = {name: columns[name] for name in shown}
    x = _stacked(shown) if encode is None else _encoded(shown, encode)
    examples = LabeledExamples(
        x,
        labels,
        None if group is None else _whole(columns, group),
        class_names,
        name="table",
    )
    return sample_episodes(examples, ways, shots, queries, **sampling)


def _columns(table):
    """Returns a dictionary of arrays, all of one length."""
    if not hasattr(table, "items"):
        raise TypeError(
            "`table` must be a pandas `DataFrame`, or a dictionary of columns. "
            f"Received: an object of type {type(table).__name__}."
        )
    columns = {}
    # A data frame may have two columns of one name.
    for name, column in table.items():
        if name in columns:
            raise ValueError(
                "The columns must have different names. Received: two named "
                f"{name!r}."
            )
        columns[name] = np.asarray(column)
        if columns[name].ndim != 1:
            raise ValueError(
                "Every column must have one value for each row. Received: "
                f"{name!r} of shape {columns[name].shape}."
            )
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            "All columns must have the same length. Received: columns of "
            f"lengths {lengths}."
        )
    return columns


def _names(columns, label, features, group):
    """Returns the names of the columns that are shown."""
    others = [label] if group is None else [label, group]
    if features is None:
        features = [name for name in columns if name not in others]
    elif isinstance(features, str):
        raise TypeError(
            "`features` must be a sequence of names. Received: a single one, "
            f"{features!r}. Write `[{features!r}]`."
        )
    features = list(features)
    for name in [*others, *features]:
        if name not in columns:
            raise ValueError(
                "`label`, `features` and `group` must name columns of the "
                f"table. Received: {name!r}. There are: {list(columns)}."
            )
    if label in features:
        raise ValueError(
            "`features` must not hold the label, which would be the answer. "
            f"Received: label={label!r} and features={features}."
        )
    if not features:
        raise ValueError(
            "There must be at least one column to show. Received: columns "
            f"{list(columns)}, of which {others} are the label and the group."
        )
    return features


def _whole(columns, name):
    """Returns a column, where a value that is missing is an error."""
    column = columns[name]
    missing = _missing(column)
    if missing:
        raise ValueError(
            "Every row must have a label, and a group where there are groups. "
            f"Received: {name!r}, where {missing} of {len(column)} values are "
            "missing. Leave these rows out."
        )
    # Of objects, as pandas holds them, or one type for all.
    return np.array(column.tolist()) if column.dtype == object else column


def _missing(column):
    """Returns how many values are missing: NaN, None and their like."""
    if column.dtype.kind in "biuSU":
        return 0
    # None is equal to itself; NaN and the dates of NumPy and pandas that are
    # none are not. NA of pandas does not even answer.
    return sum(
        value is None or type(value).__name__ == "NAType" or value != value
        for value in column
    )


def _stacked(columns):
    """Returns columns of numbers as float32 `[rows, columns]`."""
    stacked = []
    for name, column in columns.items():
        missing = _missing(column)
        if missing:
            raise ValueError(
                "Columns must have a number in every row. Received: "
                f"{name!r}, where {missing} of {len(column)} values are "
                "missing. Fill them, leave the rows out, or pass `encode`, "
                "which gets the columns as they are."
            )
        if column.dtype == object:
            column = np.array(column.tolist())
        if column.dtype.kind not in "biuf":
            raise ValueError(
                "Columns must hold numbers. Received: "
                f"{name!r} of dtype {column.dtype}. Leave it out with "
                "`features`, or pass `encode`, a function or Keras layer that "
                "makes numbers of the columns, such as a "
                "`keras.utils.FeatureSpace`."
            )
        stacked.append(column.astype("float32"))
    return np.stack(stacked, axis=1)


def _encoded(columns, encode):
    if not callable(encode):
        raise TypeError(
            "`encode` must be a function or a Keras layer of a dictionary of "
            f"columns. Received: encode={encode!r}."
        )
    rows = len(next(iter(columns.values())))

    def array(leaf):
        if isinstance(leaf, (tf.SparseTensor, tf.RaggedTensor)):
            raise ValueError(
                "`encode` must return dense tensors. Received: a "
                f"{type(leaf).__name__}."
            )
        leaf = np.asarray(leaf)
        if leaf.shape[:1] != (rows,):
            raise ValueError(
                f"`encode` must return a row for each row, [{rows}, ...]. "
                f"Received: shape {leaf.shape}."
            )
        if leaf.dtype.kind == "f" and np.isnan(leaf).any():
            raise ValueError(
                "`encode` must fill what is missing. Received: an array of "
                f"shape {leaf.shape}, of which {np.isnan(leaf).sum()} values "
                "are NaN."
            )
        return leaf

    return tf.nest.map_structure(array, encode(columns))
