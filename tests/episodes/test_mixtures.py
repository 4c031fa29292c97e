import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes
from keras_meta.episodes.protocols import protocol_of
from tests.episodes.test_arrays import check_uniform
from tests.episodes.test_arrays import drawn
from tests.episodes.test_arrays import numbered
from tests.episodes.test_arrays import same


def source(offset, seed=0, **settings):
    x, y = numbered(np.arange(60) // 6, shape=())
    settings = dict(ways=3, shots=1, queries=2) | settings
    return episodes.from_arrays(x + offset, y, seed=seed, **settings)


def sources_of(dataset, offset=1000):
    support, _, query, _ = drawn(dataset)
    parts = np.concatenate([support, query], axis=1) // offset
    # All examples of an episode are of one source.
    assert np.all(parts == parts[:, :1])
    return parts[:, 0]


def mixed(weights=None, count=40, meta_batch_size=8, **settings):
    return episodes.mixed(
        [source(0), source(1000, seed=1), source(2000, seed=2)],
        weights,
        meta_batch_size=meta_batch_size,
        episodes=count,
        **settings,
    )


def test_sources_are_drawn_by_weight():
    check_uniform(np.bincount(sources_of(mixed(count=900))))
    found = np.bincount(sources_of(mixed([1, 2, 5], count=800)))
    expected = np.array([100, 200, 500])
    assert np.sum((found - expected) ** 2 / expected) < 18.4


def test_episode_n_is_episode_n_of_its_source():
    of = sources_of(mixed())
    support = drawn(mixed())[0]
    wholes = [drawn(source(1000 * k, seed=k, episodes=40))[0] for k in range(3)]
    for number, chosen in enumerate(of):
        np.testing.assert_array_equal(support[number], wholes[chosen][number])


def test_the_meta_batch_the_first_episode_and_shards_change_nothing():
    whole = drawn(mixed(meta_batch_size=1))
    assert same(drawn(mixed(meta_batch_size=7)), whole)
    rest = drawn(mixed(count=10, meta_batch_size=4, first_episode=30))
    assert same(rest, [leaf[30:] for leaf in whole])
    shard = drawn(mixed(meta_batch_size=8, shard=(1, 2)))
    expected = [np.concatenate([leaf[8:16], leaf[24:32]]) for leaf in whole]
    assert same(shard, expected)


def test_mixtures_within_mixtures_draw_all_sources():
    inner = episodes.mixed([source(0), source(1000)])
    outer = episodes.mixed([inner, source(2000)], episodes=800)
    found = np.bincount(sources_of(outer))
    expected = np.array([200, 200, 400])
    assert np.sum((found - expected) ** 2 / expected) < 18.4


def test_frozen_lists_are_an_error(tmp_path):
    path = tmp_path / "frozen.npz"
    dataset = source(0, episodes=5)
    episodes.freeze(dataset, path)
    frozen = episodes.load_frozen(path, dataset)
    with pytest.raises(ValueError, match="Received: a frozen list"):
        episodes.mixed([source(0), frozen])


def test_another_seed_mixes_otherwise():
    assert np.any(sources_of(mixed(seed=1)) != sources_of(mixed()))


def test_shapes_are_static():
    x, y = mixed(count=None, meta_batch_size=8).element_spec
    assert x["query_x"].shape == (8, 6) and y.shape == (8, 6)


def test_padded_episodes_mix():
    task = dict(ways=(2, 3), shots=(1, 2))
    dataset = episodes.mixed(
        [source(0, **task), source(1000, **task)],
        episodes=6,
        meta_batch_size=4,
    )
    assert len(dataset.element_spec) == 3
    assert sum(len(y) for _, y, _ in dataset) == 6


def test_regressions_mix():
    dataset = episodes.mixed(
        [episodes.sinusoids(), episodes.harmonics(seed=1)], meta_batch_size=5
    )
    x, y = next(iter(dataset))
    assert x["support_x"].shape == y.shape == (5, 10, 1)


def test_tells_what_it_mixes():
    assert protocol_of(mixed([1, 2, 3])) == (
        "mixed of (arrays, 10 classes, 3 ways, 1 shot, 2 queries a class, "
        "seed 0) and (arrays, 10 classes, 3 ways, 1 shot, 2 queries a class, "
        "seed 1) and (arrays, 10 classes, 3 ways, 1 shot, 2 queries a class, "
        "seed 2), weights [1, 2, 3], seed 0"
    )


def test_other_shapes_are_an_error():
    with pytest.raises(ValueError, match="same parts, shapes and dtypes"):
        episodes.mixed([source(0), source(0, ways=4)])
    with pytest.raises(ValueError, match="same parts, shapes and dtypes"):
        episodes.mixed([source(0), source(0, ways=(2, 3))])


def test_other_data_sets_are_an_error():
    with pytest.raises(TypeError, match="Received: ndarray"):
        episodes.mixed([source(0), np.zeros(3)])
    changed = source(0).map(lambda x, y: (x, y))
    for other in (changed, tf.data.Dataset.range(3)):
        with pytest.raises(ValueError, match="not be changed by `map"):
            episodes.mixed([source(0), other])
    with pytest.raises(ValueError, match="at least one data set"):
        episodes.mixed([])


@pytest.mark.parametrize("weights", [[1], [1, 0, 1], [1, -1, 2], [1, 2, "3"]])
def test_other_weights_are_an_error(weights):
    with pytest.raises(ValueError, match="`weights` must"):
        mixed(weights)
