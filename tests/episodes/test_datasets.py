import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes

SAMPLING = dict(
    ways=3, shots=1, queries=2, meta_batch_size=4, episodes=8, seed=3
)


def labeled(count=30, classes=5):
    labels = np.random.default_rng(0).permutation(np.arange(count) % classes)
    x = np.arange(count * 6, dtype="float32").reshape(count, 2, 3)
    return x, labels.astype("int64")


def assert_same(one, other):
    for pair in zip(one, other, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, *pair)


def batched(x, y, size):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)),
        lambda x, y: batched(x, y, 7),
        lambda x, y: batched(x, y[:, None].astype("uint8"), 30),
        # Neither the number of examples nor their shape is known.
        lambda x, y: tf.data.Dataset.from_generator(
            lambda: zip(x, y),
            output_types=("float32", "int32"),
        ),
        lambda x, y: tf.data.Dataset.from_generator(
            lambda: zip(np.split(x, 3), np.split(y, 3)),
            output_types=("float32", "int32"),
        ),
        lambda x, y: (
            tf.data.Dataset.from_tensor_slices((x, y)).repeat(9).take(30)
        ),
    ],
    ids=["examples", "batches", "columns", "unknown", "batches?", "taken"],
)
def test_gives_the_episodes_of_the_arrays(make):
    x, y = labeled()
    expected = episodes.from_arrays(x, y, **SAMPLING)
    assert_same(episodes.from_dataset(make(x, y), **SAMPLING), expected)


def test_more_examples_than_are_read_at_once():
    x, y = labeled(1000)
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    expected = episodes.from_arrays(x, y, **SAMPLING)
    assert_same(episodes.from_dataset(dataset, **SAMPLING), expected)


def test_x_may_be_a_nested_structure_of_any_dtypes():
    x, y = labeled()
    x = {
        "numbers": (x, (x[:, 0] * 2).astype("int16")),
        "texts": np.array([f"text {n}\0" for n in range(len(y))], object),
        "images": np.full((len(y), 4, 4, 1), 51, "uint8"),
    }
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    found = episodes.from_dataset(dataset, **SAMPLING)
    assert_same(found, episodes.from_arrays(x, y, **SAMPLING))
    part = next(iter(found))[0]["query_x"]
    # A zero at the end is part of a text.
    assert part["texts"].numpy()[0, 0].endswith(b"\0")
    np.testing.assert_allclose(part["images"], 0.2)


def test_is_read_once():
    x, y = labeled()
    read = []

    def examples():
        read.append(1)
        yield from zip(x, y)

    dataset = tf.data.Dataset.from_generator(
        examples,
        output_signature=(
            tf.TensorSpec((2, 3), "float32"),
            tf.TensorSpec((), "int64"),
        ),
    )
    found = episodes.from_dataset(dataset, **SAMPLING)
    assert_same(found, found)
    assert len(read) == 1


def test_groups_and_names():
    x, y = labeled()
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    settings = SAMPLING | dict(ways=2)
    groups = ["fur", "fur", "fur", "feathers", "feathers"]
    names = ["bear", "cat", "dog", "duck", "eagle"]
    named = episodes.from_dataset(
        dataset,
        groups=groups,
        class_names=names,
        classes=["feathers", "dog"],
        **settings,
    )
    expected = episodes.from_arrays(x, y, classes=[2, 3, 4], **settings)
    assert_same(named, expected)
    # The groups of examples mean the same.
    within = [
        episodes.from_dataset(dataset, groups=one, within="group", **settings)
        for one in (groups, np.array(groups)[y])
    ]
    assert_same(*within)
    with pytest.raises(ValueError, match="A class must lie in one group"):
        episodes.from_dataset(
            dataset, groups=np.array(groups)[np.arange(30) % 5], **settings
        )


def test_examples_of_different_shapes_are_named():
    def examples():
        for number in range(10):
            yield np.zeros((3, 4 if number == 7 else 3)), number % 2

    signature = (
        tf.TensorSpec((None, None), "float32"),
        tf.TensorSpec((), "int64"),
    )
    dataset = tf.data.Dataset.from_generator(
        examples, output_signature=signature
    )
    with pytest.raises(
        ValueError,
        match=r"same shape. Received: example 7 of shape \(3, 4\), but example "
        r"0 of shape \(3, 3\). Resize, cut or pad them: `dataset.map",
    ):
        episodes.from_dataset(dataset, 2, 1, 1)
    padded = dataset.map(lambda x, y: (tf.pad(x, [[0, 0], [0, 1]])[:, :4], y))
    found = episodes.from_dataset(padded, 2, 1, 1)
    assert next(iter(found))[0]["support_x"].shape == (32, 2, 3, 4)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda x, y: (x, y), TypeError, "type tuple.*from_arrays"),
        (lambda x, y: slices(x), TypeError, r"pairs `\(x, y\)`.*float32 of sh"),
        (lambda x, y: slices((x, y, y)), TypeError, "pairs"),
        (lambda x, y: slices({"x": x, "y": y}), TypeError, "pairs.*'y'"),
        (lambda x, y: slices((x, y)).repeat(), ValueError, "have an end.*take"),
        (lambda x, y: slices((x, y)).take(0), ValueError, "at least one exam"),
        (
            lambda x, y: slices((x, y.astype("float32"))),
            TypeError,
            "integers.*Received: labels float32.*argmax",
        ),
        (lambda x, y: slices((x, y > 2)), TypeError, "integers.*bool"),
        (lambda x, y: slices((x, y.astype(str))), TypeError, "StringLookup"),
        (lambda x, y: slices((x, {"y": y})), TypeError, "Received: labels {'y"),
        (
            lambda x, y: slices((x, np.eye(5, dtype=int)[y])).batch(4),
            ValueError,
            r"Received: labels of shape \(None, 5\).*argmax",
        ),
        (
            # Single examples with one-hot labels look like batches.
            lambda x, y: slices((x, np.eye(5, dtype=int)[y])),
            ValueError,
            "same number of examples",
        ),
        (
            lambda x, y: slices((tf.RaggedTensor.from_tensor(x), y)),
            TypeError,
            "dense tensors.*to_tensor",
        ),
    ],
)
def test_refuses(make, error, message):
    with pytest.raises(error, match=message):
        episodes.from_dataset(make(*labeled()), **SAMPLING)


def slices(arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


def test_an_unknown_argument_is_an_error():
    x, y = labeled()
    with pytest.raises(TypeError, match="colour"):
        episodes.from_dataset(slices((x, y)), **SAMPLING, colour=1)
