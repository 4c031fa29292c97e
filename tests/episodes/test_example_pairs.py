"""Every picture holds the number of its example, so that it can be traced."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes

SIZES = [2, 3, 5, 9, 4, 7]


def numbered(sizes=SIZES, names=None):
    """Returns x, where example n is n, and shuffled labels."""
    names = range(len(sizes)) if names is None else names
    y = np.random.default_rng(0).permutation(np.repeat(names, sizes))
    return np.arange(len(y), dtype="float32")[:, None], y


def drawn(dataset, batches=-1):
    """Returns the numbers of the first and second examples, and labels."""
    parts = [
        (x["first"].numpy(), x["second"].numpy(), same.numpy())
        for x, same in dataset.take(batches)
    ]
    first, second, same = (np.concatenate(leaves) for leaves in zip(*parts))
    return first[:, 0].astype(int), second[:, 0].astype(int), same


def class_pairs(x, y, count=40_000, **settings):
    """Returns the classes of many pairs, of one class and of different ones."""
    dataset = episodes.pairs(x, y, batch_size=5000, pairs=count, **settings)
    first, second, same = drawn(dataset)
    classes = np.stack([y[first], y[second]], axis=1)
    return classes[same == 1], classes[same == 0]


def check_uniform(counts):
    counts = np.asarray(counts, "float64")
    expected = counts.sum() / len(counts)
    # Binomial: chance goes beyond five sigma less than once in a million.
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected)), counts


def test_shapes_dtypes_and_labels():
    x, y = numbered()
    dataset = episodes.pairs(np.tile(x, (1, 4)), y, batch_size=6, pairs=14)
    spec, label_spec = episodes.pairs(x, y, batch_size=6).element_spec
    assert spec["first"].shape == spec["second"].shape == (6, 1)
    assert label_spec.shape == (6,) and label_spec.dtype == tf.int32
    batches = list(dataset)
    assert [same.shape[0] for _, same in batches] == [6, 6, 2]
    for inputs, same in batches:
        assert set(inputs) == {"first", "second"}
        assert inputs["first"].shape == (same.shape[0], 4)
        assert np.array_equal(same, np.arange(same.shape[0]) % 2 == 0)


def test_default_is_32_pairs_without_end():
    dataset = episodes.pairs(*numbered())
    assert next(iter(dataset))[1].shape == (32,)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


@pytest.mark.parametrize("names", [None, [7, -3, 900, 12, 0, 40]])
def test_labels_are_true_and_no_example_is_paired_with_itself(names):
    x, y = numbered(names=names)
    first, second, same = drawn(episodes.pairs(x, y, pairs=4000))
    assert np.array_equal(y[first] == y[second], same == 1)
    assert np.all(first != second)
    assert same.mean() == 0.5


def test_classes_are_equally_likely_whatever_their_size():
    of_one_class, others = class_pairs(*numbered())
    check_uniform(np.bincount(of_one_class[:, 0]))
    check_uniform(np.bincount(others[:, 0]))
    combinations = np.zeros((6, 6), int)
    np.add.at(combinations, tuple(others.T), 1)
    assert not np.any(np.diag(combinations))
    check_uniform(combinations[~np.eye(6, dtype=bool)])


def test_examples_of_a_class_are_equally_likely():
    x, y = numbered([4, 6])
    first, second, same = drawn(
        episodes.pairs(x, y, batch_size=5000, pairs=40_000)
    )
    for label, size in enumerate([4, 6]):
        members = np.flatnonzero(y == label)
        chosen = (y[first] == label) & (same == 1)
        table = np.zeros((len(y), len(y)), int)
        np.add.at(table, (first[chosen], second[chosen]), 1)
        table = table[np.ix_(members, members)]
        check_uniform(table[~np.eye(size, dtype=bool)])
        chosen = (y[first] == label) & (same == 0)
        for numbers in (
            first[chosen],
            second[(y[second] == label) & (same == 0)],
        ):
            check_uniform(np.bincount(numbers, minlength=len(y))[members])


@pytest.mark.parametrize("hard", [0.0, 0.5])
def test_pair_n_is_the_same_in_batches_of_any_size(hard):
    x, y = numbered()
    settings = dict(hard=hard, seed=5)
    expected = drawn(episodes.pairs(x, y, batch_size=60, **settings), 1)
    for batch_size in (1, 7, 20):
        found = drawn(episodes.pairs(x, y, batch_size, pairs=60, **settings))
        for one, other in zip(expected, found):
            assert np.array_equal(one, other)
    again = drawn(episodes.pairs(x, y, 60, hard=hard, seed=6), 1)
    assert not np.array_equal(expected[0], again[0])


def test_hard_pairs_are_of_the_nearest_classes_by_loops():
    generator = np.random.default_rng(1)
    centers = generator.normal(size=(8, 3))
    y = np.repeat(np.arange(8), 5)
    noisy = centers[y] + 0.1 * generator.normal(size=(40, 3))
    # Far from zero, where a distance by products would round.
    x = np.concatenate([np.arange(40)[:, None] * 0.0, noisy + 1000], axis=1)
    means = [x[y == label].mean(axis=0) for label in range(8)]
    dataset = episodes.pairs(
        x, y, batch_size=4000, pairs=4000, hard=1.0, neighbors=2
    )
    inputs, same = next(iter(dataset))
    position = {tuple(row): label for row, label in zip(x, y)}
    found = {label: set() for label in range(8)}
    for one, other, label in zip(
        inputs["first"].numpy(), inputs["second"].numpy(), same
    ):
        if not label:
            found[position[tuple(one)]].add(position[tuple(other)])
    for label in range(8):
        order = sorted(
            set(range(8)) - {label},
            key=lambda other: np.linalg.norm(means[label] - means[other]),
        )
        assert found[label] == set(order[:2])


def test_share_of_hard_pairs():
    x, y = numbered([4] * 6)
    groups = ["a", "a", "b", "b", "c", "c"]
    _, others = class_pairs(x, y, hard=0.3, groups=groups)
    alike = np.mean(others[:, 0] // 2 == others[:, 1] // 2)
    # Of the others, one in five is of the group by chance.
    assert alike == pytest.approx(0.3 + 0.7 / 5, abs=0.02)
    check_uniform(np.bincount(others[:, 0]))


def test_hard_pairs_of_a_group():
    x, y = numbered([4] * 6, names=[10, 20, 30, 40, 50, 60])
    groups = {10: "a", 20: "b", 30: "a", 40: "a", 50: "b", 60: "alone"}
    of_one_class, others = class_pairs(
        x, y, hard=1.0, groups=list(groups.values())
    )
    found = {label: set(others[others[:, 0] == label, 1]) for label in groups}
    assert found[10] == {30, 40} and found[40] == {10, 30}
    assert found[20] == {50} and found[50] == {20}
    assert found[60] == {10, 20, 30, 40, 50}
    # The groups of classes that are left out do not count.
    _, others = class_pairs(
        x, y, hard=1.0, groups=list(groups.values()), classes=[10, 30, 50, 60]
    )
    found = {label: set(others[others[:, 0] == label, 1]) for label in groups}
    assert found[10] == {30} and found[50] == {10, 30, 60}
    assert not found[20] and not found[40]


@pytest.mark.parametrize("kind", ["network", "function"])
def test_embeddings_tell_what_is_near(kind):
    x, y = numbered([300, 3, 3, 3])
    # The first number tells most, and is what the embedding leaves out.
    x = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 0.0], [9.0, 1.0]])[y]
    x = x.astype("float32")
    inputs = keras.Input((2,))
    network = keras.Model(inputs, inputs[:, 1:])
    embed = network if kind == "network" else lambda batch: batch[:, 1:]
    near = []
    for settings in ({}, {"embed": embed}):
        dataset = episodes.pairs(
            x, y, batch_size=400, hard=1.0, neighbors=1, **settings
        )
        inputs, same = next(iter(dataset))
        label_of = {tuple(row): label for row, label in zip(x, y)}
        pairs = [
            (label_of[tuple(one)], label_of[tuple(other)])
            for one, other in zip(
                inputs["first"].numpy(), inputs["second"].numpy()
            )
        ]
        near.append({two for two, label in zip(pairs, same) if not label})
    assert near[0] == {(0, 1), (1, 0), (2, 3), (3, 2)}
    assert near[1] == {(0, 2), (2, 0), (1, 3), (3, 1)}


def test_more_neighbors_than_classes_are_all_of_them():
    _, others = class_pairs(*numbered(), hard=1.0, neighbors=50)
    check_uniform(np.bincount(others[:, 0] * 6 + others[:, 1])[[1, 2, 3, 4, 5]])


def test_only_the_given_classes_are_drawn():
    x, y = numbered()
    first, second, _ = drawn(
        episodes.pairs(x, y, pairs=400, classes=[1, 4], hard=0.5)
    )
    assert set(y[first]) == set(y[second]) == {1, 4}


def test_uint8_images_come_out_from_0_to_1_and_embeddings_see_them_so():
    images = np.full((20, 2, 2, 1), 255, "uint8")
    seen = []

    def embed(examples):
        seen.append((examples.dtype, float(tf.reduce_max(examples))))
        return tf.reshape(examples, [-1, 4])

    dataset = episodes.pairs(
        images, np.arange(20) % 4, hard=1.0, embed=embed, pairs=4
    )
    inputs, _ = next(iter(dataset))
    assert inputs["first"].dtype == inputs["second"].dtype == tf.float32
    assert np.all(inputs["first"] == 1.0) and np.all(inputs["second"] == 1.0)
    assert set(seen) == {(tf.float32, 1.0)}


def test_structures_of_inputs_keep_their_structure():
    x, y = numbered()
    structure = {"a": x, "b": (x[:, 0] * 10,)}
    inputs, _ = next(iter(episodes.pairs(structure, y, pairs=50, hard=0.5)))
    for side in ("first", "second"):
        assert set(inputs[side]) == {"a", "b"}
        np.testing.assert_array_equal(
            inputs[side]["a"][:, 0] * 10, inputs[side]["b"][0]
        )


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(batch_size=0), "`batch_size` must be an integer of 1 or more"),
        (dict(pairs=0), "`pairs` must be.*Use `None` for endless pairs"),
        (dict(seed=0.5), "`seed` must be an integer"),
        (dict(hard=1.5), "`hard` must be a number from 0 to 1.*hard=1.5"),
        (dict(hard=-0.1), "`hard` must be a number from 0 to 1.*hard=-0.1"),
        (dict(hard=float("nan")), "`hard` must be a number from 0 to 1"),
        (dict(neighbors=0), "`neighbors` must be an integer of 1 or more"),
        (dict(classes=[3]), "at least two classes. Received: 1"),
        (dict(classes=[3, 70]), r"classes that do not: \[70\]"),
        (dict(groups=["a"] * 5), r"group of each class.*\(5,\) for 6 classes"),
        (
            dict(groups=["a"] * 6, embed=lambda x: x),
            "either by `embed` or by `groups`.*Received: both",
        ),
    ],
)
def test_refuses_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        episodes.pairs(*numbered(), **settings)


def test_refuses_what_cannot_embed_also_where_it_is_not_used():
    for hard in (0.0, 0.5):
        with pytest.raises(TypeError, match="`embed` must be.*'nonsense'"):
            episodes.pairs(*numbered(), hard=hard, embed="nonsense")


def test_groups_and_embeddings_change_nothing_without_hard_pairs():
    x, y = numbered()
    expected = drawn(episodes.pairs(x, y, pairs=200))
    for settings in ({"groups": list("aabbcc")}, {"embed": lambda x: 1 / 0}):
        found = drawn(episodes.pairs(x, y, pairs=200, **settings))
        for one, other in zip(expected, found):
            assert np.array_equal(one, other)


def test_refuses_bad_data():
    x, y = numbered([3, 1, 4], names=[5, 17, 8])
    with pytest.raises(ValueError, match="class 17 has 1. Leave it out"):
        episodes.pairs(x, y)
    with pytest.raises(ValueError, match="same number of examples"):
        episodes.pairs(x[:-1], y)
    with pytest.raises(TypeError, match="`y` must hold integers"):
        episodes.pairs(x, y.astype("float32"))
    x, y = numbered()
    words = x.astype(int).astype(str)
    assert next(iter(episodes.pairs(words, y, pairs=2)))
    with pytest.raises(TypeError, match="Inputs must be numbers.*`groups`"):
        episodes.pairs(words, y, hard=0.5)
    x[3] = np.nan
    with pytest.raises(ValueError, match="must be finite.*Received"):
        episodes.pairs(x, y, hard=0.5)
