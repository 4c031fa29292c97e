import numpy as np
import pytest

from keras_meta import episodes


def sizes(parts):
    return [len(part) for part in parts]


@pytest.mark.parametrize("fractions", [(0.8, 0.2), (0.6, 0.2, 0.2), (1,)])
def test_parts_are_sorted_disjoint_and_cover_all_classes(fractions):
    labels = np.repeat([-3, 0, 4, 7, 8, 20, 21, 22, 40, 1000], 3)
    labels = np.random.default_rng(0).permutation(labels)
    for seed in range(5):
        parts = episodes.class_split(labels, fractions, seed=seed)
        assert len(parts) == len(fractions)
        together = np.concatenate(parts)
        assert len(together) == 10
        assert np.array_equal(np.sort(together), np.unique(labels))
        for part in parts:
            assert np.issubdtype(part.dtype, np.integer)
            assert np.array_equal(part, np.sort(part))


def test_parts_have_their_shares():
    for fractions, classes, expected in [
        ((0.8, 0.2), 50, [40, 10]),
        ((0.5, 0.25, 0.25), 100, [50, 25, 25]),
        ((0.1, 0.9), 10, [1, 9]),
        ((8, 2), 50, [40, 10]),
        ((0.08, 0.02), 50, [40, 10]),
        ((0.99, 0.01), 10, [9, 1]),
        ((1, 1, 1), 3, [1, 1, 1]),
    ]:
        for seed in range(3):
            parts = episodes.class_split(range(classes), fractions, seed=seed)
            assert sizes(parts) == expected


def test_default_is_four_fifths_and_one_fifth():
    assert sizes(episodes.class_split(np.repeat(np.arange(50), 20))) == [40, 10]


def test_shares_that_do_not_divide_are_met_within_one_class():
    fractions = np.array([0.64, 0.16, 0.2])
    for classes in range(3, 60):
        parts = episodes.class_split(range(classes), fractions)
        wanted = np.maximum(fractions * classes, 1)
        assert np.all(np.abs(sizes(parts) - wanted) <= 1.0)


def test_examples_of_a_class_do_not_count():
    counts = np.arange(1, 11)
    parts = episodes.class_split(np.repeat(np.arange(10), counts))
    same = episodes.class_split(np.arange(10))
    assert [p.tolist() for p in parts] == [p.tolist() for p in same]


def test_same_seed_gives_the_same_parts_and_another_seed_others():
    def split(seed):
        return [p.tolist() for p in episodes.class_split(range(50), seed=seed)]

    assert split(3) == split(3)
    assert len({str(split(seed)) for seed in range(10)}) == 10


def test_every_class_is_as_likely_in_each_part():
    drawn = np.zeros(10)
    for seed in range(500):
        drawn[episodes.class_split(range(10), seed=seed)[1]] += 1
    # Each count is binomial with n = 500 and p = 0.2: 100, sigma 8.9.
    assert np.all(np.abs(drawn - 100) < 4 * np.sqrt(500 * 0.2 * 0.8))


@pytest.mark.parametrize(
    "names", [[5, 0, -1, 900], ["Greek", "Thai", "Han", "Runes"]]
)
def test_groups_are_never_broken(names):
    for seed in range(10):
        generator = np.random.default_rng(seed)
        groups = generator.permutation(np.repeat(names, [3, 9, 5, 2]))
        labels = np.repeat(np.arange(19) * 10 - 40, 2)
        parts = episodes.class_split(
            labels, (0.6, 0.4), groups=groups, seed=seed
        )
        parts_of_groups = {}
        for index, part in enumerate(parts):
            for label in part:
                group = groups[(label + 40) // 10]
                parts_of_groups.setdefault(group, set()).add(index)
        assert len(parts_of_groups) == 4
        assert all(len(found) == 1 for found in parts_of_groups.values())
        assert sum(sizes(parts)) == 19


def test_shares_are_met_where_groups_allow():
    groups = np.repeat(np.arange(10), 10)
    parts = episodes.class_split(range(100), (0.7, 0.3), groups=groups)
    assert sizes(parts) == [70, 30]


def test_shares_are_met_to_less_than_a_group():
    for seed in range(20):
        generator = np.random.default_rng(seed)
        counts = generator.integers(1, 30, size=15)
        groups = np.repeat(np.arange(15), counts)
        parts = episodes.class_split(
            range(counts.sum()), (0.5, 0.3, 0.2), groups=groups, seed=seed
        )
        wanted = np.array([0.5, 0.3, 0.2]) * counts.sum()
        assert np.all(np.abs(sizes(parts) - wanted) < counts.max())


def test_every_part_gets_a_group_even_beside_a_giant():
    groups = [0] * 20 + [1, 2]
    parts = episodes.class_split(range(22), (0.9, 0.05, 0.05), groups=groups)
    assert sizes(parts) == [20, 1, 1]


def test_seed_decides_among_groups_of_one_size():
    groups = np.repeat(np.arange(10), 3)
    held_out = {
        tuple(episodes.class_split(range(30), groups=groups, seed=seed)[1])
        for seed in range(20)
    }
    assert len(held_out) > 10


def test_parts_serve_as_the_classes_of_from_arrays():
    labels = np.repeat(np.arange(10), 4)
    x = labels.astype("float32")[:, None]
    for part in episodes.class_split(labels, (0.5, 0.5)):
        dataset = episodes.from_arrays(
            x, labels, ways=3, shots=1, queries=1, episodes=50, classes=part
        )
        seen = np.concatenate([np.ravel(x["query_x"]) for x, _ in dataset])
        assert np.array_equal(np.unique(seen), part)


def test_fewer_classes_than_parts_is_an_error():
    match = r"at least one class \(or group\) for each part.*Received: .*2 cl"
    with pytest.raises(ValueError, match=match):
        episodes.class_split([0, 0, 1, 1], (0.5, 0.3, 0.2))


def test_fewer_groups_than_parts_is_an_error():
    with pytest.raises(ValueError, match="Received: .*for 1 classes or groups"):
        episodes.class_split(range(8), groups=["Greek"] * 8)


def test_no_classes_is_an_error():
    with pytest.raises(ValueError, match="Received: .*for 0 classes"):
        episodes.class_split([])


def test_groups_of_another_length_are_an_error():
    match = r"`groups` must name.*Received: 3 groups for 8 classes"
    with pytest.raises(ValueError, match=match):
        episodes.class_split(range(8), groups=[0, 1, 2])


def test_a_fraction_that_is_no_number_above_0_is_an_error():
    match = "`fractions` must be a finite number above 0. Received: fractions="
    for bad in (0, 0.0, -0.2, float("nan"), float("inf"), "half", None, True):
        with pytest.raises(ValueError, match=match):
            episodes.class_split(range(8), (0.8, bad))


@pytest.mark.parametrize("bad", [(), 0.8])
def test_fractions_that_are_no_sequence_of_parts_are_an_error(bad):
    with pytest.raises((TypeError, ValueError), match="`fractions`.*Received"):
        episodes.class_split(range(8), bad)


def test_any_integer_is_a_seed_as_it_is_for_episodes():
    for seed in (2**70, np.int64(3), -1, -(2**40)):
        first = episodes.class_split(range(50), seed=seed)
        second = episodes.class_split(range(50), seed=seed)
        assert sizes(first) == [40, 10]
        assert np.array_equal(first[1], second[1])


def test_a_seed_that_is_no_integer_is_an_error():
    for bad in (None, 1.5, "one"):
        match = "`seed` must be an integer. Received: seed="
        with pytest.raises((TypeError, ValueError), match=match):
            episodes.class_split(range(50), seed=bad)
