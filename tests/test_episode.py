import collections
import re

import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episode


def regression(tasks=2, support=3, query=4):
    x = {
        "support_x": np.zeros((tasks, support, 5), "float32"),
        "support_y": np.zeros((tasks, support, 1), "float32"),
        "query_x": np.zeros((tasks, query, 5), "float32"),
    }
    return x, np.zeros((tasks, query, 1), "float32")


def classification(tasks=2, support=3, query=4):
    x, _ = regression(tasks, support, query)
    x["support_y"] = np.zeros((tasks, support), "int32")
    return x, np.zeros((tasks, query), "int32")


def test_the_names_of_the_parts_are_those_of_the_design():
    assert episode.SUPPORT_X == "support_x"
    assert episode.SUPPORT_Y == "support_y"
    assert episode.SUPPORT_WEIGHT == "support_weight"
    assert episode.QUERY_X == "query_x"


def test_what_is_in_order_passes():
    for x, y in (regression(), classification(), classification(1, 1, 1)):
        weights = {"support_weight": np.ones(x["support_x"].shape[:2])}
        episode.check(x)
        episode.check(x, y)
        episode.check(x, y, np.ones(y.shape[:2]))
        episode.check(x | weights, y)
        episode.check(x | {"support_weight": None}, y)
        episode.check(collections.OrderedDict(x), y)
        tensors = tf.nest.map_structure(tf.constant, (x | weights, y))
        episode.check(*tensors)


def test_nested_inputs_and_labels_pass():
    x, y = regression()
    for key in ("support_x", "query_x"):
        x[key] = {"one": x[key], "other": [x[key][..., 0], x[key]]}
    x["support_y"] = [x["support_y"], x["support_y"]]
    episode.check(x, [y, y])


def test_free_and_unknown_shapes_pass():
    @tf.function
    def check(x, y):
        episode.check(x, y, integer_labels=True)
        return y

    x, y = classification()

    def free(leaf):
        rest = leaf.shape[2:]
        return tf.TensorSpec((None, None, *rest), leaf.dtype)

    def unknown(leaf):
        return tf.TensorSpec(None, leaf.dtype)

    for spec_of in (free, unknown):
        specs = tf.nest.map_structure(spec_of, (x, y))
        check.get_concrete_function(*specs)


def test_what_is_known_of_free_shapes_is_checked():
    @tf.function
    def check(x):
        episode.check(x)
        return x

    x, _ = classification()
    specs = {
        key: tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype)
        for key, leaf in x.items()
    }
    specs["support_y"] = tf.TensorSpec((None, 7), "int32")
    with pytest.raises(ValueError, match="same number of examples"):
        check.get_concrete_function(specs)


def test_no_dictionary_is_an_error():
    x, y = regression()
    for bad, name in (
        (x["query_x"], "ndarray"),
        (tuple(x.values()), "tuple"),
        (list(x.values()), "list"),
        (None, "NoneType"),
        (tf.constant(x["query_x"]), "EagerTensor"),
    ):
        match = (
            "must be a dictionary with the keys 'support_x', 'support_y', "
            f"'query_x'. Received: {name}. Make episodes with"
        )
        with pytest.raises(TypeError, match=match):
            episode.check(bad, y)
        with pytest.raises(TypeError, match=match):
            episode.check_keys(bad)


@pytest.mark.parametrize("missing", ["support_x", "support_y", "query_x"])
def test_a_missing_key_is_an_error_that_names_it(missing):
    x, y = regression()
    del x[missing]
    match = (
        "must have the keys 'support_x', 'support_y', 'query_x' and may have "
        r"'support_weight'. Received: keys \['.*'\] \(missing: "
        rf"\['{missing}'\], unknown: \[\]\)"
    )
    with pytest.raises(ValueError, match=match):
        episode.check(x, y)


def test_an_unknown_key_is_an_error_that_names_it():
    x, y = regression()
    match = r"Received: keys .*'query_y'.*missing: \[\], unknown: \['query_y'\]"
    with pytest.raises(ValueError, match=match):
        episode.check(x | {"query_y": y}, y)
    match = r"missing: \['support_x'\], unknown: \['Support_x', 7\]"
    x["Support_x"] = x.pop("support_x")
    with pytest.raises(ValueError, match=match):
        episode.check_keys(x | {7: y})


def test_a_support_set_of_no_examples_is_an_error():
    match = (
        "The support set must have at least one example, or there is nothing "
        r"to adapt on. Received: \(2, 0, 5\)"
    )
    with pytest.raises(ValueError, match=match):
        episode.check(*regression(support=0))


def test_no_queries_are_an_error():
    match = (
        "The query set must have at least one example, or there is nothing "
        r"to predict. Received: \(2, 0, 5\)"
    )
    with pytest.raises(ValueError, match=match):
        episode.check(*regression(query=0))


def test_no_tasks_are_an_error():
    with pytest.raises(ValueError, match="task.*Received"):
        episode.check(*regression(tasks=0))


def test_support_parts_of_different_lengths_are_an_error():
    x, y = regression()
    for key, shape in (
        ("support_y", (2, 4, 1)),
        ("support_y", (2, 1, 1)),
        ("support_weight", (2, 4)),
        ("support_weight", (2, 1)),
    ):
        match = (
            f"The support inputs and {key} must have the same number of "
            r"examples \(their second axis\). Received: inputs of shape "
            rf"\(2, 3, 5\) and {key} of shape {re.escape(str(shape))}"
        )
        with pytest.raises(ValueError, match=match):
            episode.check(x | {key: np.zeros(shape)}, y)


def test_query_parts_of_different_lengths_are_an_error():
    x, y = regression()
    start = "The query inputs and the query labels `y` must have the same"
    end = r"inputs of shape \(2, 4, 5\) and the query labels `y` of shape "
    with pytest.raises(ValueError, match=rf"{start}.*{end}\(2, 3, 1\)"):
        episode.check(x, y[:, :3])
    match = r"and `sample_weight` must.*`sample_weight` of shape \(2, 1\)"
    with pytest.raises(ValueError, match=match):
        episode.check(x, y, np.ones((2, 1)))


def test_nested_inputs_of_different_lengths_are_an_error():
    x, y = regression()
    for key in ("support_x", "query_x"):
        bad = {"one": x[key], "other": x[key][:, :2]}
        with pytest.raises(ValueError, match="same number of examples"):
            episode.check(x | {key: bad}, y)
        # As in `predict()`, where there are no labels to compare with.
        with pytest.raises(ValueError, match="same number of examples"):
            episode.check(x | {key: bad})


def test_parts_of_different_numbers_of_tasks_are_an_error():
    x, y = regression()
    match = r"same number of tasks \(their first axis\).*Received: .*\(1, 4,"
    with pytest.raises(ValueError, match=match):
        episode.check(x | {"query_x": x["query_x"][:1]}, y)
    weight = {"support_weight": np.ones((1, 3))}
    with pytest.raises(ValueError, match=r"same number of tasks.*\(1, 3\)"):
        episode.check(x | weight, y)


def test_labels_or_weights_of_another_number_of_tasks_are_an_error():
    # One task's would be taken for those of all, and a wrong number given.
    x, y = regression()
    for tasks in (1, 3):
        bad = np.zeros((tasks, 4, 1), "float32")
        with pytest.raises(ValueError, match=rf"tasks.*\({tasks}, 4, 1\)"):
            episode.check(x, bad)
        bad = np.ones((tasks, 4), "float32")
        with pytest.raises(ValueError, match=rf"tasks.*\({tasks}, 4\)"):
            episode.check(x, y, bad)


def test_an_absent_weight_does_not_hide_another_error():
    x, y = regression()
    x["support_weight"] = None
    with pytest.raises(ValueError, match="same number of tasks"):
        episode.check(x | {"query_x": x["query_x"][:1]}, y[:1])


def test_an_episode_without_the_axis_of_tasks_is_an_error():
    x, y = regression()
    single = {key: leaf[0, :, 0] for key, leaf in x.items()}
    match = (
        "an axis of tasks and an axis of examples. Received: a tensor of "
        r"shape \(3,\). Add the axis of tasks \(`x\[None\]`\)"
    )
    with pytest.raises(ValueError, match=match):
        episode.check(single)
    with pytest.raises(ValueError, match=r"Received: a tensor of shape \(2,\)"):
        episode.check(x, y[:, 0, 0])
    with pytest.raises(ValueError, match=r"Received: a tensor of shape \(2,\)"):
        episode.check(x, y, np.ones(2))
    with pytest.raises(ValueError, match=r"Received: a tensor of shape \(\)"):
        episode.check(x | {"support_weight": np.float32(1)})


def test_labels_that_are_not_integers_are_an_error_for_a_sparse_loss():
    x, y = classification()
    episode.check(x, y, integer_labels=True)
    for dtype in ("int8", "uint8", "int64"):
        labels = {"support_y": x["support_y"].astype(dtype)}
        episode.check(x | labels, y.astype(dtype), integer_labels=True)
    for dtype in ("float32", "float64", "bool"):
        match = (
            "labels must be integers. Received: support_y of dtype "
            f"{dtype}. Cast the labels to int32"
        )
        labels = {"support_y": x["support_y"].astype(dtype)}
        with pytest.raises(TypeError, match=match):
            episode.check(x | labels, y, integer_labels=True)
        match = f"Received: the query labels `y` of dtype {dtype}"
        with pytest.raises(TypeError, match=match):
            episode.check(x, y.astype(dtype), integer_labels=True)
        # Which is only asked where the loss takes class numbers.
        episode.check(x | labels, y.astype(dtype))


def test_integer_labels_may_be_nested():
    labels = {"one": np.zeros(3, "int32"), "other": [np.zeros(3, "int64")]}
    episode.check_integer_labels("labels", labels)
    labels["other"].append(tf.zeros(3))
    with pytest.raises(TypeError, match="Received: labels of dtype float32"):
        episode.check_integer_labels("labels", labels)


def test_labels_within_the_outputs_pass():
    for labels in ([[0, 4]], [[4, 4]], np.zeros((2, 0), "int32")):
        episode.check_label_range(labels, 5)
    episode.check_label_range(tf.constant([[0, 1], [2, 3]]), 4)


def test_labels_beyond_the_outputs_are_an_error():
    match = (
        "one output per way.* Received: labels from 1 to 5, and a network of "
        "5 outputs. Give the network 6 outputs or more, or make episodes of "
        "fewer ways"
    )
    for labels in ([[1, 5]], np.array([[1], [5]]), tf.constant([[5, 1]])):
        with pytest.raises(ValueError, match=match):
            episode.check_label_range(labels, 5)


def test_negative_labels_are_an_error():
    with pytest.raises(ValueError, match="Received: labels from -1 to 2"):
        episode.check_label_range([[2, -1]], 5)
