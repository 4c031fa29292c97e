"""Every picture holds the number of its example, so that it can be traced."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes

# Seed 42, three episodes of 3 ways, 1 shot and 1 query, out of six classes of
# four examples in order: worked out in NumPy, with a Philox written for it.
GOLDEN_SUPPORT = [[5, 13, 21], [0, 5, 17], [21, 8, 18]]
GOLDEN_QUERY = [[6, 14, 22], [3, 7, 19], [22, 11, 17]]


def numbered(labels, shape=(2, 3), dtype="float32"):
    """Returns x, where all of example n is n, and the labels as an array."""
    numbers = np.arange(len(labels)).astype(dtype)
    numbers = numbers.reshape(-1, *[1] * len(shape))
    return np.broadcast_to(numbers, (len(labels), *shape)), np.array(labels)


def labels_of_sizes(sizes, names=None):
    """Returns shuffled labels, so many of each class."""
    names = range(len(sizes)) if names is None else names
    return np.random.default_rng(0).permutation(np.repeat(names, sizes))


def drawn(dataset, batches=None):
    """Returns the numbers of the examples drawn, and their labels.

    A tuple of arrays `[episodes, examples]`: support, its labels, query, its
    labels.
    """
    parts = []
    for x, y in dataset.take(-1 if batches is None else batches):
        part = []
        for name in ("support_x", "query_x"):
            pictures = x[name].numpy()
            numbers = pictures.reshape(*pictures.shape[:2], -1)
            # A picture comes whole.
            assert np.all(numbers == numbers[..., :1])
            part.append(numbers[..., 0].astype(int))
        support, query = part
        parts.append((support, x["support_y"].numpy(), query, y.numpy()))
    return tuple(np.concatenate(leaves) for leaves in zip(*parts))


def same(one, other):
    return all(np.array_equal(*leaves) for leaves in zip(one, other))


def chi_square_limit(degrees):
    """What chance exceeds once in 10,000 times, after Wilson and Hilferty."""
    part = 2 / (9 * degrees)
    return degrees * (1 - part + 3.72 * math.sqrt(part)) ** 3


def check_uniform(counts):
    counts = np.ravel(counts)
    expected = counts.sum() / len(counts)
    assert expected > 5
    chi_square = np.sum((counts - expected) ** 2 / expected)
    assert chi_square < chi_square_limit(len(counts) - 1)


def operations_of(function):
    """Returns the names of the operations that `function` traces to."""
    graph = tf.function(function).get_concrete_function().graph.as_graph_def()
    functions = [node for f in graph.library.function for node in f.node_def]
    return {node.op for node in [*graph.node, *functions]}


def test_shapes_dtypes_and_names():
    x, y = numbered(labels_of_sizes([6] * 8), shape=(5, 4, 1))
    dataset = episodes.from_arrays(
        x, y, ways=5, shots=2, queries=3, meta_batch_size=7
    )
    x, y = next(iter(dataset))
    assert set(x) == {"support_x", "support_y", "query_x"}
    assert x["support_x"].shape == (7, 10, 5, 4, 1)
    assert x["support_y"].shape == (7, 10)
    assert x["query_x"].shape == (7, 15, 5, 4, 1)
    assert y.shape == (7, 15)
    assert x["support_x"].dtype == x["query_x"].dtype == tf.float32
    assert x["support_y"].dtype == y.dtype == tf.int32


def test_default_is_32_episodes_a_meta_batch_without_end():
    x, y = numbered(labels_of_sizes([6] * 8))
    dataset = episodes.from_arrays(x, y, ways=5, shots=1, queries=1)
    assert next(iter(dataset))[1].shape == (32, 5)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


@pytest.mark.parametrize("count", [None, 8])
def test_shapes_are_static_where_the_meta_batch_divides(count):
    x, y = numbered(labels_of_sizes([6] * 8))
    dataset = episodes.from_arrays(
        x, y, ways=5, shots=2, queries=3, meta_batch_size=4, episodes=count
    )
    spec_x, spec_y = dataset.element_spec
    assert spec_x["support_x"].shape == (4, 10, 2, 3)
    assert spec_x["support_y"].shape == (4, 10)
    assert spec_x["query_x"].shape == (4, 15, 2, 3)
    assert spec_y.shape == (4, 15)


def test_only_the_tasks_are_free_where_the_meta_batch_does_not_divide():
    x, y = numbered(labels_of_sizes([6] * 8))
    dataset = episodes.from_arrays(
        x, y, ways=5, shots=2, queries=3, meta_batch_size=4, episodes=10
    )
    spec_x, spec_y = dataset.element_spec
    assert spec_x["query_x"].shape.as_list() == [None, 15, 2, 3]
    assert spec_y.shape.as_list() == [None, 15]


def test_uint8_images_come_out_as_floats_from_0_to_1():
    labels = labels_of_sizes([64] * 4)
    x, y = numbered(labels, shape=(3,), dtype="uint8")
    dataset = episodes.from_arrays(
        x, y, ways=4, shots=30, queries=30, meta_batch_size=10, episodes=20
    )
    seen = set()
    for x, _ in dataset:
        for pictures in (x["support_x"], x["query_x"]):
            assert pictures.dtype == tf.float32
            pixels = pictures.numpy()
            assert pixels.min() >= 0.0 and pixels.max() <= 1.0
            seen.update(np.unique(pixels).tolist())
    exact = np.arange(256) / 255
    assert np.allclose(np.sort(list(seen)), exact, atol=1e-7)


def test_every_other_dtype_stays():
    labels = labels_of_sizes([4] * 4)
    dtypes = ("float16", "float64", "int32", "int64", "uint16", "int8", "bool")
    x = {dtype: numbered(labels, dtype=dtype)[0] for dtype in dtypes}
    dataset = episodes.from_arrays(
        x, labels, ways=3, shots=1, queries=2, episodes=5
    )
    x, _ = next(iter(dataset))
    for part in (x["support_x"], x["query_x"]):
        for dtype in dtypes:
            assert part[dtype].dtype == dtype
            expected = part["int64"].numpy().astype(dtype)
            assert np.array_equal(part[dtype], expected)


def test_text_stays_text():
    labels = labels_of_sizes([4] * 4)
    words = np.array([f"example {n} of {c}" for n, c in enumerate(labels)])
    dataset = episodes.from_arrays(
        words, labels, ways=4, shots=1, queries=1, episodes=3
    )
    x, _ = next(iter(dataset))
    assert x["query_x"].dtype == tf.string
    assert set(np.ravel(x["query_x"])) <= {word.encode() for word in words}


@pytest.fixture(scope="module")
def many_episodes():
    """Ten classes of five examples, of which an episode uses four."""
    x, y = numbered(labels_of_sizes([5] * 10), shape=())
    dataset = episodes.from_arrays(
        x,
        y,
        ways=4,
        shots=1,
        queries=3,
        meta_batch_size=500,
        episodes=4000,
        seed=1,
    )
    return y, *drawn(dataset)


def test_labels_count_the_ways(many_episodes):
    _, _, support_y, _, query_y = many_episodes
    for labels, examples in ((support_y, 1), (query_y, 3)):
        expected = np.tile(np.repeat(np.arange(4), examples), (4000, 1))
        assert np.array_equal(np.sort(labels, axis=1), expected)


def test_support_and_query_never_overlap(many_episodes):
    _, support, _, query, _ = many_episodes
    examples = np.sort(np.concatenate([support, query], axis=1), axis=1)
    assert np.all(np.diff(examples, axis=1) > 0)


def test_each_label_stands_for_one_class_and_no_two_for_the_same(many_episodes):
    y, support, support_y, query, query_y = many_episodes
    examples = np.concatenate([support, query], axis=1)
    labels = np.concatenate([support_y, query_y], axis=1)
    for numbers, ways in zip(examples, labels):
        pairs = set(zip(ways.tolist(), y[numbers].tolist()))
        assert len(pairs) == 4
        assert len({found for _, found in pairs}) == 4


def test_every_class_is_as_likely_under_every_label(many_episodes):
    y, support, support_y, _, _ = many_episodes
    counts = np.zeros((4, 10))
    np.add.at(counts, (support_y, y[support]), 1)
    for of_label in counts:
        check_uniform(of_label)


def test_every_ordered_pair_of_classes_is_as_likely(many_episodes):
    y, support, support_y, _, _ = many_episodes
    classes = np.take_along_axis(y[support], np.argsort(support_y), axis=1)
    counts = np.zeros((10, 10))
    np.add.at(counts, (classes[:, 0], classes[:, 1]), 1)
    assert np.all(np.diag(counts) == 0)
    check_uniform(counts[~np.eye(10, dtype=bool)])


def test_every_example_is_as_likely_in_support_and_query(many_episodes):
    y, support, _, query, _ = many_episodes
    check_uniform(np.bincount(support.ravel(), minlength=50))
    check_uniform(np.bincount(query.ravel(), minlength=50))


def test_every_ordered_pair_of_examples_of_a_class_is_as_likely(many_episodes):
    y, support, support_y, query, query_y = many_episodes
    positions = np.zeros(50, int)
    for label in range(10):
        positions[y == label] = np.arange(5)
    of_support = positions[np.take_along_axis(support, support_y.argsort(), 1)]
    # The first query of each label.
    order = np.argsort(query_y, axis=1, kind="stable")[:, ::3]
    of_query = positions[np.take_along_axis(query, order, axis=1)]
    counts = np.zeros((5, 5))
    np.add.at(counts, (of_support, of_query), 1)
    assert np.all(np.diag(counts) == 0)
    check_uniform(counts[~np.eye(5, dtype=bool)])


def test_neighboring_episodes_and_ways_are_independent(many_episodes):
    y, support, support_y, _, _ = many_episodes
    support = np.take_along_axis(support, np.argsort(support_y), axis=1)
    classes = y[support]
    counts = np.zeros((10, 10))
    np.add.at(counts, (classes[:-1, 0], classes[1:, 0]), 1)
    check_uniform(counts)
    positions = np.zeros(50, int)
    for label in range(10):
        positions[y == label] = np.arange(5)
    counts = np.zeros((5, 5))
    np.add.at(counts, (positions[support[:, 0]], positions[support[:, 1]]), 1)
    check_uniform(counts)


def test_classes_of_unequal_size_do_not_leak_into_each_other():
    sizes = [3, 40, 7, 3, 100]
    x, y = numbered(labels_of_sizes(sizes), shape=())
    dataset = episodes.from_arrays(
        x, y, ways=3, shots=1, queries=2, meta_batch_size=500, episodes=4000
    )
    support, support_y, query, query_y = drawn(dataset)
    examples = np.concatenate([support, query], axis=1)
    labels = np.concatenate([support_y, query_y], axis=1)
    order = np.argsort(labels, axis=1, kind="stable")
    examples = np.take_along_axis(examples, order, axis=1).reshape(-1, 3, 3)
    classes = y[examples]
    assert np.all(classes == classes[..., :1])
    assert np.all(np.diff(np.sort(examples, axis=-1), axis=-1) > 0)
    # Small classes are drawn as often, and every example within its class.
    check_uniform(np.bincount(classes[..., 0].ravel(), minlength=5))
    counts = np.bincount(examples.ravel(), minlength=len(y))
    for label in range(5):
        if sizes[label] > 3:
            check_uniform(counts[y == label])
        else:
            assert len(set(counts[y == label])) == 1


@pytest.mark.parametrize(
    "dtype, names",
    [
        ("int64", [-7, -1, 0, 3, 2**40]),
        ("int32", [-(2**31), 0, 5, 6, 2**31 - 1]),
        ("uint8", [0, 3, 9, 200, 255]),
    ],
)
def test_labels_may_have_gaps_and_be_negative(dtype, names):
    labels = labels_of_sizes([6] * 5, np.array(names, dtype))
    x, y = numbered(labels)
    dataset = episodes.from_arrays(
        x, y, ways=5, shots=2, queries=2, meta_batch_size=8, episodes=40
    )
    support, support_y, query, query_y = drawn(dataset)
    for numbers, ways in ((support, support_y), (query, query_y)):
        assert set(np.unique(ways)) == set(range(5))
        assert set(np.unique(y[numbers])) == set(names)
        for row, of_row in zip(y[numbers], ways):
            assert len(set(zip(row.tolist(), of_row.tolist()))) == 5


def test_classes_restricts_what_is_drawn():
    # The third class is too small, and is not among those asked for.
    x, y = numbered(labels_of_sizes([6, 6, 1, 6, 6], [-5, 0, 1, 2, 90]))
    for classes in (np.array([-5, 2, 90]), (2, 90, -5, 2), [90]):
        dataset = episodes.from_arrays(
            x,
            y,
            ways=len(set(classes)),
            shots=2,
            queries=3,
            meta_batch_size=50,
            episodes=100,
            classes=classes,
        )
        support, _, query, _ = drawn(dataset)
        assert set(y[support].ravel()) == set(classes)
        assert set(y[query].ravel()) == set(classes)


def test_order_and_repetition_of_classes_do_not_matter():
    x, y = numbered(labels_of_sizes([6] * 5))

    def episodes_of(classes):
        return drawn(
            episodes.from_arrays(
                x, y, ways=2, shots=1, queries=1, episodes=10, classes=classes
            )
        )

    assert same(episodes_of([0, 3, 4]), episodes_of([4, 0, 0, 3]))
    assert same(episodes_of(None), episodes_of(range(5)))


def few_shot(meta_batch_size=4, count=10, seed=0, **settings):
    x, y = numbered(labels_of_sizes([6, 9, 7, 8, 6, 6]))
    arguments = dict(ways=3, shots=1, queries=2) | settings
    return episodes.from_arrays(
        x,
        y,
        meta_batch_size=meta_batch_size,
        episodes=count,
        seed=seed,
        **arguments,
    )


def test_a_fixed_list_is_the_same_on_every_pass():
    dataset = few_shot(count=10)
    assert [y.shape[0] for _, y in dataset] == [4, 4, 2]
    first = drawn(dataset)
    assert len(first[0]) == 10
    assert same(first, drawn(dataset))
    assert same(first, drawn(dataset.repeat(2).skip(3)))
    # The episodes of the list differ from each other.
    assert len(np.unique(first[0], axis=0)) > 8


def test_a_fixed_list_knows_its_length():
    assert few_shot(count=10).cardinality() == 3
    assert few_shot(count=8).cardinality() == 2
    assert few_shot(count=3).cardinality() == 1


def test_fewer_episodes_than_a_meta_batch_are_one_smaller_one():
    dataset = few_shot(meta_batch_size=32, count=3)
    assert [y.shape for _, y in dataset] == [(3, 6)]
    assert dataset.element_spec[1].shape == (3, 6)


def test_an_episode_does_not_depend_on_the_size_of_its_meta_batch():
    expected = drawn(few_shot(meta_batch_size=1, count=20))
    for size in (3, 7, 20, 64):
        assert same(drawn(few_shot(meta_batch_size=size, count=20)), expected)


def test_the_endless_episodes_begin_with_the_fixed_list():
    fixed = drawn(few_shot(count=12))
    assert same(drawn(few_shot(count=None), batches=3), fixed)
    # A shorter list is the beginning of a longer one.
    shorter = drawn(few_shot(count=4))
    assert same([leaf[:4] for leaf in fixed], shorter)


def test_endless_episodes_do_not_repeat():
    support, _, query, _ = drawn(few_shot(100, None), batches=10)
    whole = np.concatenate([support, query], axis=1)
    # Of millions of possible episodes, hardly two of 1,000 are the same.
    assert len(np.unique(whole, axis=0)) > 990


def test_same_seed_gives_the_same_episodes_and_another_seed_others():
    expected = drawn(few_shot(seed=5))
    assert same(drawn(few_shot(seed=5)), expected)
    for seed in (6, -5, 5 + 2**32):
        found = drawn(few_shot(seed=seed))
        matches = np.all(found[0] == expected[0], axis=1)
        assert np.sum(matches) <= 1


def test_the_global_seed_changes_nothing():
    expected = drawn(few_shot())
    keras.utils.set_random_seed(1)
    assert same(drawn(few_shot()), expected)


def test_episodes_of_a_seed_are_those_of_the_first_release():
    # What was published with a seed can be had again.
    x, y = numbered(np.repeat(np.arange(6), 4))
    dataset = episodes.from_arrays(
        x, y, ways=3, shots=1, queries=1, episodes=3, seed=42
    )
    support, _, query, _ = drawn(dataset)
    assert support.tolist() == GOLDEN_SUPPORT
    assert query.tolist() == GOLDEN_QUERY


def test_x_may_be_a_nested_structure():
    labels = labels_of_sizes([6] * 5)
    pictures, y = numbered(labels, shape=(4, 4, 1), dtype="uint8")
    numbers, _ = numbered(labels, shape=(2,), dtype="int64")
    x = {"picture": pictures, "more": (numbers, -numbers)}
    dataset = episodes.from_arrays(
        x, y, ways=3, shots=2, queries=1, meta_batch_size=4, episodes=8
    )
    for x, _ in dataset:
        for name, examples in (("support_x", 6), ("query_x", 3)):
            part = x[name]
            assert set(part) == {"picture", "more"}
            assert part["picture"].shape == (4, examples, 4, 4, 1)
            assert part["more"][0].shape == (4, examples, 2)
            # All parts of an example stay together.
            first = part["more"][0].numpy()
            assert np.array_equal(first, -part["more"][1].numpy())
            scaled = 255 * part["picture"].numpy()[:, :, 0, 0, 0]
            assert np.allclose(scaled, first[..., 0], atol=1e-3)


def test_x_and_y_may_be_tensors_or_columns():
    x, y = numbered(labels_of_sizes([6] * 5))

    def episodes_of(x, y):
        return drawn(
            episodes.from_arrays(x, y, ways=3, shots=1, queries=1, episodes=9)
        )

    expected = episodes_of(x, y)
    assert same(episodes_of(tf.constant(x), tf.constant(y)), expected)
    assert same(episodes_of(x, y.tolist()), expected)
    # As the labels of `keras.datasets.cifar10` are.
    assert same(episodes_of(x, y[:, None].astype("uint8")), expected)
    assert same(episodes_of(tf.constant(x), tf.constant(y[:, None])), expected)


def test_all_ways_and_all_examples_may_be_used():
    x, y = numbered(labels_of_sizes([4] * 5))
    dataset = episodes.from_arrays(
        x, y, ways=5, shots=1, queries=3, meta_batch_size=4, episodes=8
    )
    support, _, query, _ = drawn(dataset)
    examples = np.sort(np.concatenate([support, query], axis=1), axis=1)
    assert np.array_equal(examples, np.tile(np.arange(20), (8, 1)))


def test_one_way_one_shot_one_query_works():
    x, y = numbered(labels_of_sizes([2]))
    dataset = episodes.from_arrays(
        x, y, ways=1, shots=1, queries=1, meta_batch_size=50, episodes=50
    )
    support, support_y, query, query_y = drawn(dataset)
    assert np.array_equal(support + query, np.ones((50, 1)))
    assert set(support.ravel()) == {0, 1}
    assert not support_y.any() and not query_y.any()


def test_no_python_runs_in_the_loop():
    x, y = numbered(labels_of_sizes([6] * 5))

    def first_episode():
        dataset = episodes.from_arrays(
            x, y, ways=3, shots=1, queries=1, meta_batch_size=1, episodes=1
        )
        return dataset.get_single_element()

    def first_of_python():
        dataset = tf.data.Dataset.range(1).map(
            lambda n: tf.numpy_function(lambda n: n, [n], "int64")
        )
        return dataset.get_single_element()

    # The names are looked for where they are sure to be found.
    python = {"PyFunc", "EagerPyFunc", "PyFuncStateless", "GeneratorDataset"}
    assert operations_of(first_of_python) & python
    operations = operations_of(first_episode)
    assert {"GatherV2", "TopKV2"} <= operations
    assert not operations & python


def test_the_arrays_may_go_or_change_once_the_data_set_is_made():
    x, y = numbered(labels_of_sizes([6] * 5), shape=(64,))
    x = x.copy()
    dataset = episodes.from_arrays(x, y, ways=3, shots=1, queries=1, episodes=9)
    expected = drawn(dataset)
    x[:], y[:] = -1, -1
    del x, y
    assert same(drawn(dataset), expected)


def test_integers_of_numpy_are_integers():
    integer = np.int64
    dataset = few_shot(
        integer(4), integer(10), ways=integer(3), shots=integer(1)
    )
    assert same(drawn(dataset), drawn(few_shot()))
    x, y = next(iter(dataset))
    # Of another dtype, the labels would be another signature to `fit()`.
    assert y.dtype == x["support_y"].dtype == tf.int32


def test_a_seed_may_be_an_integer_of_numpy():
    expected = drawn(few_shot(count=4, seed=3))
    for kind in (np.int32, np.int64):
        assert same(drawn(few_shot(count=4, seed=kind(3))), expected)


def make(x=None, y=None, **settings):
    default_x, default_y = numbered(labels_of_sizes([4, 6, 6, 6, 6]))
    return episodes.from_arrays(
        default_x if x is None else x,
        default_y if y is None else y,
        **dict(ways=3, shots=1, queries=2) | settings,
    )


def test_a_count_that_is_no_positive_integer_is_an_error():
    for name in ("ways", "shots", "queries", "meta_batch_size", "episodes"):
        match = f"`{name}` must be an integer of 1 or more. Received: {name}="
        for bad in (0, -1, 2.0, "3", True, [5]):
            with pytest.raises(ValueError, match=match):
                make(**{name: bad})
    for name in ("ways", "shots", "queries", "meta_batch_size"):
        with pytest.raises(ValueError, match=f"Received: {name}=None"):
            make(**{name: None})


def test_no_episodes_is_an_error_that_tells_of_endless_ones():
    with pytest.raises(ValueError, match="episodes=0. Use `None` for endless"):
        make(episodes=0)


def test_a_seed_that_is_no_integer_is_an_error():
    for bad in (None, 1.5, "3", True):
        match = "`seed` must be an integer. Received: seed="
        with pytest.raises(ValueError, match=match):
            make(seed=bad)


def test_too_small_a_class_is_an_error_that_names_it_and_its_count():
    x, y = numbered(labels_of_sizes([20, 20, 4, 20], [3, 11, -17, 60]))
    match = (
        r"`shots \+ queries` must not exceed the smallest class. Received: "
        r"shots \+ queries = 5, but class -17 has 4 examples. Lower"
    )
    with pytest.raises(ValueError, match=match):
        make(x, y, shots=2, queries=3)
    make(x, y, shots=2, queries=2)
    make(x, y, shots=2, queries=3, classes=[3, 11, 60])


def test_fewer_classes_than_ways_is_an_error():
    match = (
        "`ways` must not exceed the number of classes. Received: ways=6, but "
        "there are 5 classes"
    )
    with pytest.raises(ValueError, match=match):
        make(ways=6)
    with pytest.raises(ValueError, match="ways=3, but there are 2 classes"):
        make(classes=[0, 4])
    # One that is named twice is one.
    with pytest.raises(ValueError, match="ways=3, but there are 2 classes"):
        make(classes=[0, 4, 4])
    with pytest.raises(ValueError, match="ways=3, but there are 0 classes"):
        make(classes=[])


def test_classes_that_do_not_occur_are_an_error():
    match = r"`classes` must be labels that occur.*Received: .*\[-2, 7\]"
    with pytest.raises(ValueError, match=match):
        make(classes=[0, 1, 7, 2, -2])


def test_a_mask_instead_of_classes_is_an_error():
    # Taken for labels, it would be the classes 0 and 1.
    with pytest.raises((TypeError, ValueError), match="`classes`.*Received"):
        make(ways=2, classes=np.array([True, False, True, True, False]))


def test_x_and_y_of_different_lengths_are_an_error():
    x, y = numbered(labels_of_sizes([6] * 5))
    match = (
        r"`x` and `y` must have the same number of examples. Received: x of "
        r"shape \(29, 2, 3\) and y of length 30"
    )
    with pytest.raises(ValueError, match=match):
        make(x[:-1], y)
    with pytest.raises(ValueError, match="shape .30, 2, 3. and y of length 28"):
        make(x, y[:-2])
    with pytest.raises(ValueError, match="shape .29, 2, 3. and y of length 30"):
        make({"one": x, "other": x[:-1]}, y)
    with pytest.raises(ValueError, match=r"x of shape \(\) and y of length 30"):
        make(np.float32(3.0), y)


def test_x_without_any_array_is_an_error():
    for nothing in ({}, [], ()):
        with pytest.raises(ValueError, match="`x`.*Received"):
            make(nothing)


def test_labels_that_are_not_integers_are_an_error():
    x, y = numbered(labels_of_sizes([6] * 5))
    names = np.array(["a", "b", "c", "d", "e"])[y]
    for bad in (y.astype("float32"), names, y > 2, y.astype(object)):
        match = "`y` must hold integers.*Received: y of dtype.*Number the class"
        with pytest.raises(TypeError, match=match):
            make(x, bad)


def test_one_hot_labels_are_an_error_that_tells_of_argmax():
    x, y = numbered(labels_of_sizes([6] * 5))
    match = (
        r"shape \[examples\]. Received: y of shape \(30, 5\).*"
        r"`y.argmax\(axis=1\)`"
    )
    with pytest.raises(ValueError, match=match):
        make(x, np.eye(5, dtype=int)[y])
    with pytest.raises(ValueError, match=r"Received: y of shape \(\)"):
        make(x, 3)


def test_an_empty_data_set_is_an_error():
    match = "at least one example. Received: an empty `y`"
    for empty in ([], np.zeros(0, int), np.zeros((0, 1), "uint8")):
        with pytest.raises(ValueError, match=match):
            make(np.zeros((0, 2), "float32"), empty)
