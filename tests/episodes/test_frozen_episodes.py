import errno
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes
from keras_meta.episodes.protocols import protocol_of
from tests.episodes.test_records import check_same

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 1), "uint8")
LABELS = np.arange(60) // 10


def few_shot(images=IMAGES, labels=LABELS, meta_batch_size=4, **settings):
    settings = dict(ways=3, shots=2, queries=3, episodes=10) | settings
    return episodes.from_arrays(
        images, labels, meta_batch_size=meta_batch_size, **settings
    )


SETTINGS = [
    dict(),
    dict(seed=3, first_episode=7),
    dict(shard=(1, 2)),
    dict(ways=(2, 4), shots=(1, 3)),
    dict(ways=(2, 6), shots="imbalanced", max_support=20),
    dict(quarter_turns=True, mirrors=True, classes=[1, 3]),
    dict(groups=[*"aaabbb"], within="group"),
]


@pytest.mark.parametrize("examples", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_gives_the_same_episodes(tmp_path, settings, examples):
    dataset = few_shot(**settings)
    path = tmp_path / "frozen.npz"
    episodes.freeze(dataset, path, examples=examples)
    # Other episodes over the same data say where the examples are.
    source = None if examples else few_shot(seed=99, ways=2)
    check_same_episodes(episodes.load_frozen(path, source, 4), dataset)


def check_same_episodes(one, other):
    def joined(dataset):
        leaves = [tf.nest.flatten(batch) for batch in dataset]
        return [np.concatenate(leaf) for leaf in zip(*leaves)]

    for leaf, expected in zip(joined(one), joined(other), strict=True):
        np.testing.assert_array_equal(leaf, expected)


def test_the_meta_batch_may_be_another(tmp_path):
    path = tmp_path / "frozen.npz"
    episodes.freeze(few_shot(), path)
    loaded = episodes.load_frozen(path, few_shot(), meta_batch_size=3)
    assert [len(y) for _, y in loaded] == [3, 3, 3, 1]
    assert loaded.element_spec[0]["query_x"].shape == (None, 9, 6, 6, 1)
    check_same(loaded, few_shot(meta_batch_size=3))


def test_other_sources_and_nested_inputs(tmp_path):
    def turned(images):
        return {"image": images[:, ::-1], "more": (images, images[:, 0, 0])}

    dataset = few_shot(turned(IMAGES))
    path = tmp_path / "frozen.npz"
    episodes.freeze(dataset, path)
    check_same(episodes.load_frozen(path, dataset, 4), dataset)
    episodes.freeze(dataset, path, examples=True)
    check_same(episodes.load_frozen(path, meta_batch_size=4), dataset)


def test_episodes_of_another_making(tmp_path):
    waves = episodes.sinusoids(5, 5, meta_batch_size=4, episodes=10)
    path = tmp_path / "frozen.npz"
    with pytest.raises(ValueError, match="Pass `examples=True`"):
        episodes.freeze(waves, path)
    episodes.freeze(waves, path, examples=True)
    loaded = episodes.load_frozen(path, meta_batch_size=4)
    check_same_episodes(loaded, waves)
    x, y = next(iter(waves))
    episodes.freeze(tf.data.Dataset.from_tensors((x, y)), path, examples=True)
    loaded = episodes.load_frozen(path, meta_batch_size=4)
    check_same_episodes(loaded, waves.take(1))


def test_text_comes_back(tmp_path):
    words = np.array([f"é{number}" for number in range(60)])
    dataset = few_shot(words)
    path = tmp_path / "frozen.npz"
    for examples, source in ((False, dataset), (True, None)):
        episodes.freeze(dataset, path, examples=examples)
        check_same(episodes.load_frozen(path, source, 4), dataset)


@pytest.mark.parametrize(
    "change",
    [
        lambda dataset: dataset.map(lambda x, y: (x, y)),
        lambda dataset: dataset.take(1),
        lambda dataset: few_shot(episodes=None).take(3),
        lambda dataset: dataset.shuffle(3),
    ],
)
def test_a_changed_data_set_needs_its_examples(tmp_path, change):
    dataset = change(few_shot())
    path = tmp_path / "frozen.npz"
    with pytest.raises(ValueError, match="straight from a function"):
        episodes.freeze(dataset, path)
    assert not os.listdir(tmp_path)


def test_augmented_episodes_need_their_examples(tmp_path):
    dataset = few_shot(augment_support=keras.layers.RandomRotation(0.1))
    path = tmp_path / "frozen.npz"
    with pytest.raises(ValueError, match="augmented cannot be kept without"):
        episodes.freeze(dataset, path)
    episodes.freeze(dataset, path, examples=True)
    check_same(
        episodes.load_frozen(path, meta_batch_size=4),
        few_shot(augment_support=keras.layers.RandomRotation(0.1)),
    )


def test_the_protocol_comes_with_them(tmp_path):
    path = tmp_path / "frozen.npz"
    dataset = few_shot(seed=5, classes=[0, 1, 2], first_episode=7, shard=(1, 2))
    episodes.freeze(dataset, path)
    loaded = episodes.load_frozen(path, few_shot())
    assert (
        protocol_of(loaded) == f"{protocol_of(dataset)}, frozen in frozen.npz"
    )
    assert protocol_of(loaded).endswith(
        "classes (hash ab2535), 3 ways, 2 shots, 3 queries a class, seed 5, "
        "first episode 7, shard 1 of 2, frozen in frozen.npz"
    )


def test_another_file_is_not_overwritten(tmp_path):
    path = tmp_path / "thesis.npz"
    path.write_text("years of work")
    with pytest.raises(ValueError, match="which is another file"):
        episodes.freeze(few_shot(), path)
    assert path.read_text() == "years of work"
    with pytest.raises(ValueError, match="which is a folder"):
        episodes.freeze(few_shot(), tmp_path)


def test_half_precision_comes_back(tmp_path):
    path = tmp_path / "frozen.npz"
    for dtype in ("bfloat16", "float16"):
        dataset = few_shot(tf.cast(IMAGES, dtype))
        for examples, source in ((True, None), (False, dataset)):
            episodes.freeze(dataset, path, examples=examples)
            check_same(episodes.load_frozen(path, source, 4), dataset)


def changed_image():
    images = IMAGES.copy()
    images[13, 2, 3] ^= 1
    return few_shot(images)


@pytest.mark.parametrize(
    "source",
    [
        changed_image,
        lambda: few_shot(labels=np.roll(LABELS, 1)),
        lambda: few_shot(IMAGES[:50], LABELS[:50]),
        lambda: few_shot(IMAGES.astype("int32")),
        lambda: few_shot(IMAGES.reshape(60, 36)),
        lambda: few_shot({"image": IMAGES}),
    ],
)
def test_other_data_are_refused(tmp_path, source):
    path = tmp_path / "frozen.npz"
    episodes.freeze(few_shot(), path)
    with pytest.raises(ValueError, match="with the hash .* The data changed"):
        episodes.load_frozen(path, source())


def test_every_damaged_byte_is_noticed(tmp_path):
    path = tmp_path / "frozen.npz"
    episodes.freeze(few_shot(episodes=2), path)
    content = path.read_bytes()
    source, expected = few_shot(), few_shot(episodes=2)
    generator = np.random.default_rng(0)
    noticed = 0
    for place in generator.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        path.write_bytes(bytes(damaged))
        try:
            loaded = episodes.load_frozen(path, source, meta_batch_size=4)
        except ValueError as error:
            assert "damaged" in str(error)
            noticed += 1
        else:
            # Bytes that nobody reads, such as the date of the archive.
            check_same(loaded, expected)
    assert noticed > 30
    for size in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="damaged or something else"):
            episodes.load_frozen(path, source)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "frozen.npz"
    with pytest.raises(FileNotFoundError, match="where there is none"):
        episodes.load_frozen(path)
    np.savez(path, header=np.array('{"format": "other"}'), a=np.zeros(3))
    with pytest.raises(ValueError, match="of another kind"):
        episodes.load_frozen(path)
    np.savez(path, a=np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="damaged or something else"):
        episodes.load_frozen(path)


def test_a_later_version_is_refused(tmp_path):
    path = tmp_path / "frozen.npz"
    episodes.freeze(few_shot(), path)
    arrays = dict(np.load(path))
    header = json.loads(str(arrays["header"])) | {"version": 2}
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})
    with pytest.raises(ValueError, match="of version 2; this one reads 1"):
        episodes.load_frozen(path, few_shot())


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "frozen.npz"
    episodes.freeze(few_shot(), path)
    before = path.read_bytes()

    def fill(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fill)
    with pytest.raises(OSError, match="No space left"):
        episodes.freeze(few_shot(seed=1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["frozen.npz"]


def test_endless_episodes_and_other_things_are_errors(tmp_path):
    path = tmp_path / "frozen.npz"
    with pytest.raises(ValueError, match="Only a fixed list"):
        episodes.freeze(few_shot(episodes=None), path)
    with pytest.raises(TypeError, match="must be a `tf.data.Dataset`"):
        episodes.freeze(IMAGES, path)
    with pytest.raises(ValueError, match="at least one episode"):
        episodes.freeze(few_shot().take(0), path, examples=True)
    episodes.freeze(few_shot(), path, examples=True)
    with pytest.raises(ValueError, match="`source` must be left out"):
        episodes.load_frozen(path, few_shot())
    episodes.freeze(few_shot(), path)
    with pytest.raises(ValueError, match="`source` must be given"):
        episodes.load_frozen(path)
    with pytest.raises(TypeError, match="`source` must be a `tf.data"):
        episodes.load_frozen(path, IMAGES)
    with pytest.raises(TypeError, match="`source` must come from"):
        episodes.load_frozen(path, episodes.sinusoids())
