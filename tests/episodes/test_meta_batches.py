import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes
from keras_meta.episodes import meta_batches
from keras_meta.episodes.protocols import protocol_of
from tests.episodes.test_arrays import drawn
from tests.episodes.test_arrays import few_shot
from tests.episodes.test_arrays import same


def numbers(count, size=4, first=0, shard=None):
    """Returns the numbers of the episodes of each meta-batch."""
    recipe = meta_batches.Recipe(
        lambda first, count: first + tf.range(count, dtype="int64"), {}
    )
    dataset = meta_batches.meta_batches(recipe, size, count, first, shard)
    batches = list(dataset.take(6).as_numpy_iterator())
    if count is not None:
        starts = dataset.keras_meta_origin.starts()
        assert [(b[0], len(b)) for b in batches] == starts
        assert dataset.cardinality() == len(batches)
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize("count", [4, 8, 10, 3, 21])
def test_shards_share_the_episodes_out(count):
    whole = numbers(count)
    for workers in range(1, len(whole) + 1):
        shards = [numbers(count, shard=(i, workers)) for i in range(workers)]
        # Meta-batch k goes to worker k modulo their number.
        for index, shard in enumerate(shards):
            assert shard == whole[index::workers]


def test_shards_of_endless_episodes_never_overlap():
    shards = [numbers(None, shard=(index, 3)) for index in range(3)]
    flat = np.sort(np.ravel(shards))
    np.testing.assert_array_equal(flat, np.arange(72))


def test_the_first_episode_may_be_any():
    assert numbers(6, first=5) == [[5, 6, 7, 8], [9, 10]]
    assert numbers(None, first=2, shard=(1, 2))[:2] == [
        [6, 7, 8, 9],
        [14, 15, 16, 17],
    ]


def test_a_run_can_go_on_where_it_stopped():
    whole = drawn(few_shot(4, 20))
    for size in (1, 3, 8):
        rest = drawn(few_shot(size, 8, first_episode=12))
        assert same(rest, [leaf[12:] for leaf in whole])
    far = drawn(few_shot(2, None, first_episode=10**9), batches=1)
    assert same(far, drawn(few_shot(1, 2, first_episode=10**9)))


@pytest.mark.parametrize("threads", [1, 7])
def test_the_number_of_threads_changes_nothing(threads):
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = threads
    expected = drawn(few_shot(3, 60))
    assert same(drawn(few_shot(3, 60).with_options(options)), expected)


def test_an_iterator_goes_on_from_a_checkpoint(tmp_path):
    dataset = few_shot(2, None)
    iterator = iter(dataset)
    for _ in range(3):
        next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "at"))
    expected = next(iterator)[0]["query_x"]
    again = iter(dataset)
    tf.train.Checkpoint(iterator=again).read(path)
    np.testing.assert_array_equal(next(again)[0]["query_x"], expected)


def test_tells_where_a_data_set_comes_from():
    dataset = few_shot(4, 10)
    origin, changed = meta_batches.origin_of(dataset)
    assert origin.episodes == 10 and not changed
    origin, changed = meta_batches.origin_of(dataset.prefetch(2).cache())
    assert origin.episodes == 10 and not changed
    origin, changed = meta_batches.origin_of(dataset.map(lambda x, y: (x, y)))
    assert origin.episodes == 10 and changed
    other = tf.data.Dataset.range(3)
    assert meta_batches.origin_of(other) == (None, False)
    zipped = tf.data.Dataset.zip(dataset, dataset)
    assert meta_batches.origin_of(zipped) == (None, False)


@pytest.mark.parametrize(
    "settings, match",
    [
        (dict(first_episode=-1), "`first_episode` must be an integer of 0"),
        (dict(shard=3), "`shard` must be a pair"),
        (dict(shard=(0, 1, 2)), "`shard` must be a pair"),
        (dict(shard=(2, 2)), "index of a shard must be less"),
        (dict(shard=(-1, 2)), "`shard\\[0\\]` must be an integer of 0"),
        (dict(shard=(0, 0)), "`shard\\[1\\]` must be an integer of 1"),
        (dict(count=8, shard=(2, 3)), "of 2 meta-batches"),
    ],
)
def test_bad_arguments_are_told(settings, match):
    with pytest.raises(ValueError, match=match):
        few_shot(**settings)


def test_two_workers_behind_a_dispatcher_share_the_episodes_out():
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    workers = [
        service.WorkerServer(
            service.WorkerConfig(
                dispatcher_address=dispatcher.target.split("://")[1],
                heartbeat_interval_ms=50,
                dispatcher_timeout_ms=10000,
            )
        )
        for _ in range(2)
    ]
    dataset = few_shot(2, 12, ways=(2, 3))
    distributed = dataset.apply(
        service.distribute(
            processing_mode=service.ShardingPolicy.DYNAMIC,
            service=dispatcher.target,
        )
    )

    def rows(dataset):
        return sorted(
            np.ravel(task).tolist()
            for x, _, _ in dataset
            for task in x["query_x"].numpy()
        )

    assert rows(distributed) == rows(dataset)
    del workers


def test_names_of_sources_reach_the_protocol():
    x, y = np.zeros((40, 4)), np.arange(40) // 4
    dataset = episodes.from_arrays(
        x,
        y,
        ways=(2, 3),
        shots=1,
        queries=2,
        classes=range(6),
        groups=[*"aaabbbccdd"],
        within="group",
        episodes=5,
        first_episode=7,
        shard=(0, 1),
        seed=9,
    )
    assert protocol_of(dataset) == (
        "arrays, 6 of 10 classes (hash f19007), 2 to 3 ways, 1 shot, 2 queries "
        "a class, within a group, seed 9, first episode 7"
    )


def test_the_protocol_tells_other_settings_apart():
    x, y = np.zeros((40, 4)), np.arange(40) // 4
    settings = [
        dict(),
        dict(classes=range(5)),
        dict(classes=range(5, 10)),
        dict(shots="imbalanced"),
        dict(shots="imbalanced", max_support=9),
        dict(class_odds="examples"),
        dict(augment_query=tf.sqrt),
        dict(augment_query=lambda inputs: inputs),
        dict(augment_support=tf.sqrt),
    ]
    found = [
        protocol_of(
            episodes.from_arrays(
                x, y, **{"ways": 3, "shots": 1, "queries": 2, **some}
            )
        )
        for some in settings
    ]
    assert len(set(found)) == len(settings)
    assert not any(" at 0x" in text for text in found)


def test_an_iterator_is_deleted_without_waiting_for_a_tuner():
    # Timings do not belong in tests; that there is no tuner does.
    dataset = episodes.sinusoids(episodes=10)
    assert dataset.options().autotune.enabled is False
