"""What is drawn, beside loops of NumPy that draw from the same numbers."""

import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes
from keras_meta.episodes import random_streams
from keras_meta.episodes.episode_sampler import EpisodeSampler
from tests.episodes.test_arrays import check_uniform
from tests.episodes.test_arrays import labels_of_sizes

SIZES = [3, 40, 7, 4, 100, 12, 25, 9]


def sample(sampler, first=0, count=50):
    """Returns what was drawn, as arrays."""
    return [
        drawn._replace(
            **{
                name: value.numpy()
                for name, value in drawn._asdict().items()
                if value is not None
            }
        )
        for drawn in sampler.sample(tf.constant(first, "int64"), count)
    ]


def real(drawn, task):
    """Returns positions and labels of a task, without what is padded."""
    kept = drawn.weight[task] > 0
    return drawn.positions[task][kept], drawn.labels[task][kept]


def counts_per_way(labels, ways):
    return np.bincount(labels, minlength=ways)


def test_drawn_sizes_stay_within_their_limits_and_reach_them():
    labels = labels_of_sizes([10] * 8)
    sampler = EpisodeSampler(labels, (2, 5), (1, 4), (2, 3))
    support, query = sample(sampler, count=400)
    assert support.positions.shape == (400, 5 * 4)
    assert query.positions.shape == (400, 5 * 3)
    ways, shots, queries = [], [], []
    for task in range(400):
        positions, of_support = real(support, task)
        asked, of_query = real(query, task)
        ways.append(of_support.max() + 1)
        per_way = counts_per_way(of_support, ways[-1])
        asked_per_way = counts_per_way(of_query, ways[-1])
        assert len(set(per_way)) == len(set(asked_per_way)) == 1
        shots.append(per_way[0])
        queries.append(asked_per_way[0])
        # Each way is one class, and no example is both shown and asked.
        both = np.concatenate([positions, asked])
        assert len(set(both.tolist())) == len(both)
        of_both = np.concatenate([of_support, of_query])
        pairs = set(zip(of_both.tolist(), labels[both].tolist()))
        assert len(pairs) == ways[-1] == len({c for _, c in pairs})
    for drawn, low, high in ((ways, 2, 5), (shots, 1, 4), (queries, 2, 3)):
        check_uniform(np.bincount(drawn, minlength=high + 1)[low:])
    # They are drawn each for itself.
    check_uniform(np.histogram2d(ways, shots, bins=[4, 4])[0])


def test_padding_repeats_the_episode_and_weighs_nothing():
    sampler = EpisodeSampler(labels_of_sizes([9] * 6), (2, 4), (1, 3), (1, 5))
    support, query = sample(sampler)
    for drawn in (support, query):
        for task in range(50):
            count = int(np.sum(drawn.weight[task] > 0))
            for leaf in (drawn.positions[task], drawn.labels[task]):
                np.testing.assert_array_equal(
                    leaf, np.resize(leaf[:count], len(leaf))
                )
            assert np.all(drawn.weight[task][count:] == 0)
    assert set(np.unique(support.weight)) == {0.0, 1.0}
    np.testing.assert_allclose(query.weight.mean(axis=1), 1.0, rtol=1e-6)


def imbalanced_by_loops(sampler, sizes, ways_limits, most_queries, count):
    """Returns the shots `[tasks, ways]`, the queries `[tasks]`, by loops."""
    ways, largest = sampler.ways[1], max(sizes)
    own = len(sizes) + ways * largest
    row = random_streams.integers(sampler.seed, 0, count, own + 4 + ways)
    row = row.numpy().astype("int64")
    unit = (row.astype("float64") + 2**31 + 1) / 2**32
    all_shots, all_queries, all_ways = [], [], []
    for task in range(count):
        chosen = np.argsort(-row[task, : len(sizes)], kind="stable")
        low, high = ways_limits
        high = min(high, len(sizes))
        drawn_ways = low + row[task, own + 1] % (high - low + 1)
        chosen = chosen[:drawn_ways]
        found = np.array(sizes)[chosen]
        queries = min(most_queries, int(0.5 * found.min()))
        beta = unit[task, own + 2]
        total = sum(np.ceil(beta * min(100, n - queries)) for n in found)
        total = min(total, sampler.max_support)
        skews = unit[task, own + 4 : own + 4 + drawn_ways]
        skews = np.exp(np.log(0.5) + skews * (np.log(2) - np.log(0.5)))
        share = skews * found / np.sum(skews * found)
        shots = np.floor(share * (total - drawn_ways)) + 1
        all_shots.append(np.minimum(shots, found - queries).astype(int))
        all_queries.append(queries)
        all_ways.append(drawn_ways)
    return all_shots, all_queries


@pytest.mark.parametrize("max_support", [20, 500])
def test_imbalanced_equals_the_procedure_in_loops(max_support):
    labels = np.repeat(np.arange(len(SIZES)), SIZES)
    sampler = EpisodeSampler(
        labels, (3, 50), "imbalanced", 10, max_support=max_support, seed=4
    )
    support, query = sample(sampler, count=60)
    expected = imbalanced_by_loops(sampler, SIZES, (3, 50), 10, 60)
    seen = set()
    for task, (shots, queries) in enumerate(zip(*expected)):
        positions, of_support = real(support, task)
        asked, of_query = real(query, task)
        np.testing.assert_array_equal(
            counts_per_way(of_support, len(shots)), shots
        )
        assert set(counts_per_way(of_query, len(shots))) == {queries}
        assert not set(positions) & set(asked)
        assert shots.sum() <= max_support
        seen.update(shots.tolist())
    assert len(seen) > 8


def test_imbalanced_has_one_graph_for_all_sizes():
    labels = labels_of_sizes(SIZES)
    dataset = episodes.from_arrays(
        np.arange(len(labels)),
        labels,
        ways=(2, 8),
        shots="imbalanced",
        queries=5,
        meta_batch_size=4,
    )
    x, _, _ = dataset.element_spec
    assert x["support_x"].shape == x["support_weight"].shape == (4, 500)
    assert x["query_x"].shape == (4, 8 * 5)


def test_of_many_classes_each_is_as_likely_and_none_comes_twice():
    labels = labels_of_sizes([3] * 90)
    sampler = EpisodeSampler(labels, 5, 1, 2)
    # So few numbers that this is not the way of few classes.
    assert sampler._class_keys < 90
    support, query = sample(sampler, count=5000)
    classes = labels[support.positions]
    assert np.all(np.diff(np.sort(classes, axis=1), axis=1) > 0)
    np.testing.assert_array_equal(
        labels[query.positions], np.repeat(classes, 2, axis=1)
    )
    for way in range(5):
        check_uniform(np.bincount(classes[:, way], minlength=90))
    # Which way comes first tells nothing of the next.
    order = np.histogram2d(classes[:, 0], classes[:, 1], bins=[6, 6])[0]
    share = np.full((6, 6), 15 * 15.0)
    share[np.arange(6), np.arange(6)] = 15 * 14
    expected = 5000 * share / (90 * 89)
    assert np.sum((order - expected) ** 2 / expected) < 78


def test_of_many_classes_it_is_the_first_that_differ():
    labels = labels_of_sizes([3] * 90)
    sampler = EpisodeSampler(labels, 5, 1, 2, seed=7)
    support, _ = sample(sampler, count=200)
    keys = sampler._numbers(tf.constant(0, "int64"), 200)[0].numpy()
    again = 0
    for row, positions in zip(keys, support.positions):
        drawn = [int(key) % 90 for key in row]
        first = list(dict.fromkeys(drawn))[:5]
        assert labels[positions].tolist() == first
        again += first != drawn[:5]
    assert again > 10


GROUPS = ["a", "a", "b", "b", "b", "c", "c", "c"]


def groups_drawn(labels, sampler, groups, count=300):
    support, query = sample(sampler, count=count)
    found = np.array(groups)[labels[support.positions]]
    return found, np.array(groups)[labels[query.positions]]


def test_within_a_group_all_ways_are_of_one_group():
    labels = labels_of_sizes([6] * 8)
    sampler = EpisodeSampler(labels, 2, 1, 3, groups=GROUPS, within="group")
    shown, asked = groups_drawn(labels, sampler, GROUPS)
    assert np.all(shown == shown[:, :1]) and np.all(asked == shown[:, :1])
    check_uniform([np.sum(shown[:, 0] == group) for group in "abc"])


def test_classes_of_a_group_are_equally_likely():
    labels = labels_of_sizes([4] * 8)
    sampler = EpisodeSampler(labels, 2, 1, 1, groups=GROUPS, within="group")
    support, _ = sample(sampler, count=900)
    found = np.bincount(labels[support.positions].ravel(), minlength=8)
    check_uniform(found[2:])
    assert found[0] == found[1] == np.sum(found[:2]) / 2


def test_groups_may_be_of_each_example():
    labels = labels_of_sizes([6] * 8)
    of_classes = EpisodeSampler(labels, 2, 1, 3, groups=GROUPS, within="group")
    of_examples = EpisodeSampler(
        labels, 2, 1, 3, groups=np.array(GROUPS)[labels], within="group"
    )
    for one, other in zip(sample(of_classes), sample(of_examples)):
        np.testing.assert_array_equal(one.positions, other.positions)


def test_a_range_of_ways_is_cut_where_a_group_has_fewer():
    labels = labels_of_sizes([6] * 8)
    sampler = EpisodeSampler(
        labels, (2, 10), 1, 1, groups=GROUPS, within="group"
    )
    support, _ = sample(sampler, count=300)
    for task in range(300):
        positions, of_support = real(support, task)
        found = {GROUPS[label] for label in labels[positions]}
        assert len(found) == 1
        most = 2 if found == {"a"} else 3
        assert 2 <= of_support.max() + 1 <= most
    assert sampler.ways == (2, 3)


def test_hierarchy_draws_each_node_that_is_large_enough():
    tree = ["animal/dog"] * 3 + ["animal/cat"] * 3 + ["plant"] * 3
    labels = labels_of_sizes([4] * 9)
    sampler = EpisodeSampler(
        labels, (3, 9), 1, 1, groups=tree, within="hierarchy"
    )
    # The root, animal, animal/dog, animal/cat and plant.
    assert sampler.pools == 5
    support, _ = sample(sampler, count=1000)
    spanned = []
    for task in range(1000):
        positions, _ = real(support, task)
        spanned.append(frozenset(tree[label] for label in labels[positions]))
    # An episode across animals and plants can come from the root alone.
    across = np.mean(["plant" in found and len(found) > 1 for found in spanned])
    assert 0.1 < across < 0.2
    assert 0.2 < np.mean([found == {"plant"} for found in spanned]) < 0.3


def test_a_node_of_a_single_child_counts_once():
    tree = ["a/only"] * 3 + ["b/one"] * 3
    sampler = EpisodeSampler(
        labels_of_sizes([4] * 6), 2, 1, 1, groups=tree, within="hierarchy"
    )
    assert sampler.pools == 3


def test_class_odds_by_examples_follow_their_number():
    labels = labels_of_sizes([10, 20, 30, 40])
    sampler = EpisodeSampler(labels, 1, 1, 1, class_odds="examples")
    support, _ = sample(sampler, count=4000)
    found = np.bincount(labels[support.positions].ravel(), minlength=4)
    expected = 4000 * np.array([0.1, 0.2, 0.3, 0.4])
    assert np.sum((found - expected) ** 2 / expected) < 21.1


def test_class_odds_without_replacement_follow_the_urn():
    # Of two ways out of 1, 2 and 3 parts: P(first, second) by hand.
    labels = labels_of_sizes([10, 20, 30])
    sampler = EpisodeSampler(labels, 2, 1, 1, class_odds="examples")
    support, _ = sample(sampler, count=6000)
    drawn = labels[support.positions]
    weights = np.array([1, 2, 3]) / 6
    statistic = 0.0
    for first in range(3):
        for second in set(range(3)) - {first}:
            share = weights[first] * weights[second] / (1 - weights[first])
            found = np.sum(np.all(drawn == [first, second], axis=1))
            statistic += (found - 6000 * share) ** 2 / (6000 * share)
    assert statistic < 25.7


def test_variants_of_a_class_never_show_what_another_asks():
    labels = labels_of_sizes([5] * 3)
    sampler = EpisodeSampler(labels, 12, 2, 2, variants=4)
    support, query = sample(sampler, count=100)
    for task in range(100):
        assert not set(support.positions[task]) & set(query.positions[task])
        classes = labels[support.positions[task]] * 4 + support.variants[task]
        assert len(set(classes.tolist())) == 12
        for way in range(12):
            same = support.labels[task] == way
            assert len(set(classes[same].tolist())) == 1


@pytest.mark.parametrize(
    "sizes",
    [dict(shots="imbalanced", queries=3), dict(shots=(1, 2), queries=2)],
)
def test_variants_share_no_example_where_sizes_are_drawn(sizes):
    labels = labels_of_sizes([6, 9, 14])
    sampler = EpisodeSampler(labels, (4, 12), variants=4, **sizes)
    support, query = sample(sampler, count=200)
    for task in range(200):
        shown, _ = real(support, task)
        asked, _ = real(query, task)
        assert not set(shown) & set(asked)


def test_imbalanced_takes_classes_smaller_than_the_queries():
    labels = labels_of_sizes([4] * 10)
    sampler = EpisodeSampler(labels, 5, "imbalanced", 10)
    support, query = sample(sampler)
    for task in range(50):
        _, of_query = real(query, task)
        assert counts_per_way(of_query, 5).tolist() == [2] * 5
        _, of_support = real(support, task)
        assert set(counts_per_way(of_support, 5)) <= {1, 2}


def test_of_a_large_class_each_example_is_as_likely_and_none_comes_twice():
    labels = np.repeat([0, 1, 2], [5000, 4, 60])
    sampler = EpisodeSampler(labels, 3, 1, 2)
    # So few numbers that this is not the way of small classes.
    assert sampler._example_keys < 5000
    support, query = sample(sampler, count=4000)
    for label, size in enumerate([5000, 4, 60]):
        shown = support.positions[labels[support.positions] == label]
        asked = query.positions[labels[query.positions] == label]
        drawn = np.column_stack([shown, asked.reshape(4000, 2)])
        assert np.all(np.diff(np.sort(drawn, axis=1), axis=1) > 0)
        first = np.flatnonzero(labels == label)[0]
        bins = {5000: 50, 4: 4, 60: 20}[size]
        for column in drawn.T:
            check_uniform(np.histogram(column - first, bins, (0, size))[0])


def test_one_large_class_costs_nothing():
    labels = np.concatenate(
        [np.repeat(np.arange(500), 20), np.full(10**5, 500)]
    )
    sampler = EpisodeSampler(labels, 5, 1, 15)
    keys = sampler._numbers(tf.constant(0, "int64"), 1)
    assert sum(int(tf.size(part)) for part in keys) < 5000
    support, _ = sample(sampler, count=20)
    assert support.positions.shape == (20, 5)


@pytest.mark.parametrize(
    "settings",
    [
        dict(ways=3, shots=1, queries=1, groups=GROUPS, within="group"),
        dict(ways=9, shots=1, queries=1, groups=GROUPS, within="hierarchy"),
    ],
)
def test_groups_that_are_too_small_are_an_error(settings):
    with pytest.raises(ValueError, match="at least `ways` classes.*'a' has 2"):
        EpisodeSampler(labels_of_sizes([6] * 8), **settings)


def test_small_groups_can_be_left_out():
    labels = labels_of_sizes([6] * 8)
    sampler = EpisodeSampler(
        labels, 3, 1, 1, groups=GROUPS, within="group", classes=range(2, 8)
    )
    shown, _ = groups_drawn(labels, sampler, GROUPS)
    assert set(np.unique(shown)) == {"b", "c"}


def test_within_needs_groups():
    with pytest.raises(ValueError, match="`groups` must name.*groups=None"):
        EpisodeSampler(np.array([0, 0, 1, 1]), 2, 1, 1, within="group")


def test_a_class_in_two_groups_is_an_error():
    with pytest.raises(ValueError, match="in one group.*class 1, which"):
        EpisodeSampler(
            np.array([0, 0, 1, 1]),
            2,
            1,
            1,
            groups=["a", "a", "a", "b"],
            within="group",
        )


def test_groups_of_another_length_are_an_error():
    with pytest.raises(ValueError, match="3 groups for 2 classes and 4"):
        EpisodeSampler(
            np.array([0, 0, 1, 1]), 2, 1, 1, groups=[*"abc"], within="group"
        )


@pytest.mark.parametrize(
    "settings, match",
    [
        (dict(ways=(3, 2)), "`ways` must have the fewest first"),
        (dict(shots=(0, 2)), "`shots` must be an integer of 1 or more"),
        (dict(shots="many"), "'imbalanced' for each class"),
        (dict(queries=(1, 2, 3)), "`queries` must be an integer of 1"),
        (dict(shots="imbalanced", queries=(1, 2)), "`queries` must be an"),
        (dict(within="alphabet"), "`within` must be one of None, 'group'"),
        (dict(class_odds="size"), "`class_odds` must be one of 'equal'"),
        (dict(max_support=0), "`max_support` must be an integer of 1"),
        (
            dict(ways=5, shots="imbalanced", max_support=4),
            "`max_support` must be at least the number of ways",
        ),
        (dict(ways=(9, 10)), "`ways` must not exceed the number of classes"),
        (dict(shots=(1, 5)), "shots \\+ queries = 7"),
    ],
)
def test_bad_arguments_are_told(settings, match):
    settings = dict(ways=2, shots=1, queries=2) | settings
    with pytest.raises(ValueError, match=match):
        EpisodeSampler(labels_of_sizes([6] * 8), **settings)


def test_imbalanced_needs_two_examples_of_each_class():
    with pytest.raises(ValueError, match="2, one to show and one to ask"):
        EpisodeSampler(np.array([0, 0, 0, 1]), 2, "imbalanced", 5)
