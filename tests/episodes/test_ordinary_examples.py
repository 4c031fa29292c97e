import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import episodes


def labeled(classes=(7, -2, 30, 4), examples=5):
    """Examples that tell their number, of classes that are numbered oddly."""
    y = np.tile(classes, examples)
    return np.arange(len(y), dtype="float32")[:, None] * [1.0, 2.0], y


def whole(data):
    """Returns all examples and labels of one pass."""
    x, y = zip(*data)
    return np.concatenate(x), np.concatenate(y)


def test_one_pass_holds_every_example_once_with_its_class():
    x, y = labeled()
    data = episodes.examples(x, y, batch_size=8)
    assert [len(labels) for _, labels in data] == [8, 8, 4]
    assert data.element_spec[1].dtype == "int32"
    found, labels = whole(data)
    order = np.argsort(found[:, 0])
    np.testing.assert_array_equal(found[order], x)
    # The numbers are those of the classes in the order of their labels.
    np.testing.assert_array_equal(np.array([-2, 4, 7, 30])[labels[order]], y)


def test_classes_are_chosen_or_what_is_not_held_out():
    x, y = labeled()
    for settings, expected in (
        ({"classes": [30, 7]}, [7, 30]),
        ({"held_out": [7]}, [-2, 4, 30]),
        ({"classes": [4], "held_out": [7, 30]}, [4]),
        # What is held out need not be among these examples.
        ({"held_out": [1000]}, [-2, 4, 7, 30]),
    ):
        found, labels = whole(episodes.examples(x, y, **settings))
        of_class = y[found[:, 0].astype(int)]
        np.testing.assert_array_equal(np.array(expected)[labels], of_class)
        assert len(labels) == 5 * len(expected)


def test_order_is_another_in_each_pass_and_the_same_for_a_seed():
    x, y = labeled(examples=20)
    data = episodes.examples(x, y, seed=3)
    first, second = whole(data)[0], whole(data)[0]
    assert not np.array_equal(first, second)
    again = episodes.examples(x, y, seed=3)
    np.testing.assert_array_equal(whole(again)[0], first)
    np.testing.assert_array_equal(whole(again)[0], second)
    for seed in (4, -3):
        other = whole(episodes.examples(x, y, seed=seed))[0]
        assert np.array_equal(other, first) is (seed == -3)


def test_images_of_bytes_come_out_from_0_to_1_and_structures_as_they_are():
    images = np.array([[0], [51], [255]], "uint8")
    x = {"image": images, "number": np.array([1, 2, 3])}
    (parts, labels), *_ = episodes.examples(x, [0, 1, 2])
    np.testing.assert_allclose(
        parts["image"][:, 0], np.array([0.0, 0.2, 1.0])[labels], rtol=1e-6
    )
    np.testing.assert_array_equal(parts["number"], labels + 1)
    assert parts["number"].dtype.is_integer


def test_refuses_to_train_on_a_class_that_is_held_out():
    x, y = labeled()
    message = r"also held out: \[4, 7\].*class_split"
    with pytest.raises(ValueError, match=message):
        episodes.examples(x, y, classes=[7, 4, 30], held_out=[-2, 4, 7])
    many = np.arange(30)
    with pytest.raises(ValueError, match=r"\[0, 1.* 9\] and more\. Take"):
        episodes.examples(many, many, classes=many, held_out=many)
    # Both parts of a split go together.
    train, test = episodes.class_split(y)
    episodes.examples(x, y, classes=train, held_out=test)


def test_refuses_bad_examples():
    x, y = labeled()
    for arguments, error, message in (
        ((x, y, [8]), ValueError, r"classes that do not: \[8\]"),
        ((x, y, []), ValueError, r"at least one class.*classes=\[\]"),
        ((x, y, None, [-2, 4, 7, 30]), ValueError, "at least one class"),
        ((x[1:], y), ValueError, "same number of examples"),
        ((x, y.astype("float32")), TypeError, "integers.*float32"),
        ((x, y, None, None, 0), ValueError, "`batch_size` must be"),
        ((x, y, None, None, 8, 0.5), (TypeError, ValueError), "`seed` must"),
    ):
        with pytest.raises(error, match=message):
            episodes.examples(*arguments)


def test_pooled_holds_the_support_sets_and_the_queries_of_all_tasks():
    waves = episodes.sinusoids(
        shots=3, queries=2, meta_batch_size=2, episodes=4
    )
    pooled = list(episodes.pooled(waves))
    assert len(pooled) == 2
    for (x, y), (examples, targets, weight) in zip(waves, pooled):
        assert examples.shape == targets.shape == (10, 1)
        np.testing.assert_array_equal(weight, np.ones(10))
        expected = [
            (point, value)
            for task in range(2)
            for points, values in (
                (x["support_x"][task], x["support_y"][task]),
                (x["query_x"][task], y[task]),
            )
            for point, value in zip(points, values)
        ]
        for point, value, wanted in zip(examples, targets, expected):
            np.testing.assert_array_equal([point, value], wanted)


def test_pooled_keeps_weights_and_structures():
    ones = np.ones((2, 3, 1), "float32")
    x = {
        "support_x": {"a": ones, "b": 2 * ones},
        "support_y": 3 * ones,
        "support_weight": np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]),
        "query_x": {"a": 4 * ones[:, :1], "b": 5 * ones[:, :1]},
    }
    y, sample_weight = 6 * ones[:, :1], np.array([[0.5], [0.0]])
    data = tf.data.Dataset.from_tensors((x, y, sample_weight))
    ((examples, targets, weight),) = episodes.pooled(data)
    np.testing.assert_array_equal(examples["a"][:, 0], [1, 1, 1, 4] * 2)
    np.testing.assert_array_equal(examples["b"][:, 0], [2, 2, 2, 5] * 2)
    np.testing.assert_array_equal(targets[:, 0], [3, 3, 3, 6] * 2)
    np.testing.assert_array_equal(weight, [1, 0, 1, 0.5, 0, 1, 1, 0])


def test_pooled_refuses_classes():
    labels = np.repeat(np.arange(4), 5)
    classes = episodes.from_arrays(labels, labels, ways=2, shots=1, queries=1)
    with pytest.raises(TypeError, match="int32.*`keras_meta.episodes.examples"):
        episodes.pooled(classes)


def test_every_keras_model_trains_on_either():
    x, y = labeled()
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    network.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    network.fit(episodes.examples(x / 100, y), shuffle=False, verbose=0)
    network = keras_meta.backbones.mlp((1,), (4,))
    network.compile("sgd", "mse", run_eagerly=True)
    waves = episodes.sinusoids(meta_batch_size=2, episodes=2)
    network.fit(episodes.pooled(waves), shuffle=False, verbose=0)
    assert all(np.all(np.isfinite(w)) for w in network.get_weights())
