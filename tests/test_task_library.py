import io
import json
import os
import struct
import zipfile

import keras
import numpy as np
import pytest

import keras_meta
from tests.algorithms.test_prototypical_network import identity_network


def points(center, examples=20, seed=0):
    generator = np.random.default_rng(seed)
    return (center + generator.normal(size=(examples, 4))).astype("float32")


def linear_model(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


@pytest.fixture
def library():
    library = keras_meta.TaskLibrary(
        keras_meta.SiameseNetwork(identity_network())
    )
    for number, name in enumerate(("near", "middle", "far")):
        library.add(name, points(3 * number, seed=number), linear_model(number))
    return library


def same_weights(one, other):
    return all(
        np.array_equal(*pair)
        for pair in zip(one.get_weights(), other.get_weights())
    )


def test_finds_the_most_similar_task(library):
    assert len(library) == 3
    assert "near" in library and "nowhere" not in library
    assert library.names == ["near", "middle", "far"]
    for center, order in (
        (-1.0, ["near", "middle", "far"]),
        (4.0, ["middle", "far", "near"]),
        (9.0, ["far", "middle", "near"]),
    ):
        new = points(center, examples=10, seed=7)
        distances = library.distances(new)
        assert list(distances) == order
        for name, center_of_task in (("near", 0), ("middle", 3), ("far", 6)):
            known = points(center_of_task, seed=center_of_task // 3)
            assert distances[name] == library.model.task_distance(new, known)
        found = library.most_similar(new)
        assert found == (found.name, found.distance)
        assert found.name == order[0]
        assert found.distance == distances[order[0]]
    assert library.most_similar(points(3, seed=1)).distance == 0


def test_warm_start_is_a_copy_that_shares_nothing(library):
    new = points(3, seed=5)
    start, other = library.warm_start(new), library.warm_start(new)
    assert same_weights(start, linear_model(1))
    assert not same_weights(start, linear_model(0))
    start.compile("sgd", loss="mse")
    start.fit(new, np.ones((20, 2)), verbose=0)
    assert not same_weights(start, linear_model(1))
    assert same_weights(other, linear_model(1))
    assert same_weights(library.warm_start(new), linear_model(1))


def test_keeps_what_was_added_as_it_was():
    library = keras_meta.TaskLibrary(
        keras_meta.SiameseNetwork(identity_network())
    )
    examples, model = points(0), linear_model(0)
    library.add("task", examples, model)
    expected = library.distances(points(1))
    examples += 5
    model.set_weights([weight + 1 for weight in model.get_weights()])
    assert library.distances(points(1)) == expected
    assert same_weights(library.warm_start(points(1)), linear_model(0))


def test_a_trained_model_goes_on_where_it_was(library):
    model = linear_model(9)
    model.compile(keras.optimizers.Adam(0.1), loss="mse")
    x, y = points(50), np.ones((20, 2), "float32")
    model.fit(x, y, verbose=0)
    library.add("trained", x, model)
    start = library.warm_start(x)
    for either in (model, start):
        either.fit(x, y, shuffle=False, verbose=0)
    for expected, actual in zip(model.get_weights(), start.get_weights()):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


NAMES = [
    "../../escape",
    "/etc/passwd",
    "a/b\\c",
    "",
    "ärger 任务",
    "\n",
    "x" * 999,
]


def test_file_keeps_everything_whatever_the_names(library, tmp_path):
    for number, name in enumerate(NAMES):
        model = linear_model(number) if number % 2 else None
        library.add(name, points(20 * number, seed=number), model)
    path = tmp_path / "folder with spaces" / "library"
    path.parent.mkdir()
    library.save(path)
    assert os.listdir(path.parent) == ["library"]
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            assert entry in ("manifest.json", "siamese_network.keras") or (
                entry.startswith("tasks/") and ".." not in entry
            )
    loaded = keras_meta.TaskLibrary.load(path)
    assert loaded.names == library.names
    assert type(loaded.model) is keras_meta.SiameseNetwork
    for center in (0.0, 20.0, 65.0):
        new = points(center, seed=3)
        assert loaded.distances(new) == library.distances(new)
    new = points(6, seed=3)
    assert same_weights(loaded.warm_start(new), library.warm_start(new))
    assert same_weights(loaded.warm_start(new), linear_model(2))
    loaded.add("one more", new)
    loaded.save(path)
    assert len(keras_meta.TaskLibrary.load(str(path))) == len(library) + 1


def test_trained_siamese_network_is_kept(tmp_path):
    model = keras_meta.SiameseNetwork(
        keras_meta.backbones.mlp((4,), (8,), outputs=3), head="verification"
    )
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    x = np.concatenate([points(0), points(1)])
    pairs = keras_meta.episodes.pairs(x, np.arange(40) // 20, pairs=64)
    model.fit(pairs, verbose=0)
    model.calibrate(pairs)
    library = keras_meta.TaskLibrary(model)
    library.add("task", points(0).astype("float64"))
    library.save(tmp_path / "library.zip")
    loaded = keras_meta.TaskLibrary.load(tmp_path / "library.zip")
    assert same_weights(loaded.model, model)
    assert loaded.distances(points(2)) == library.distances(points(2))


def test_empty_library_is_saved(tmp_path):
    library = keras_meta.TaskLibrary(
        keras_meta.SiameseNetwork(identity_network())
    )
    library.save(tmp_path / "library.zip")
    assert not keras_meta.TaskLibrary.load(tmp_path / "library.zip").names


@pytest.mark.parametrize("fails", ["examples", "replace", "model"])
def test_failed_save_leaves_the_old_file(library, tmp_path, monkeypatch, fails):
    path = tmp_path / "library.zip"
    library.save(path)
    before = path.read_bytes()
    library.add("new", points(8))

    def fail(*arguments, **keywords):
        raise OSError("the disk is full")

    place, name = {
        "examples": (np, "save"),
        "replace": (os, "replace"),
        "model": (library.model, "save"),
    }[fails]
    monkeypatch.setattr(place, name, fail)
    with pytest.raises(OSError, match="disk is full"):
        library.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["library.zip"]
    assert "new" in library
    assert len(keras_meta.TaskLibrary.load(path)) == 3


def rewritten(path, target, change):
    """Writes a library with its entries changed by a function."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries = change(entries)
    with zipfile.ZipFile(target, "w") as archive:
        for name, contents in entries.items():
            archive.writestr(name, contents)


def with_manifest(**changes):
    def change(entries):
        manifest = {**json.loads(entries["manifest.json"]), **changes}
        return {**entries, "manifest.json": json.dumps(manifest)}

    return change


def without(name):
    return lambda entries: {
        key: value for key, value in entries.items() if key != name
    }


def pickled_examples(entries):
    file = io.BytesIO()
    np.save(file, np.array([{"an": "object"}]), allow_pickle=True)
    return {**entries, "tasks/0/examples.npy": file.getvalue()}


def with_examples(contents):
    return lambda entries: {**entries, "tasks/0/examples.npy": contents}


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz():
    file = io.BytesIO()
    np.savez(file, examples=points(0))
    return file.getvalue()


def npy_of_shape(shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n"
    return npy(0.0)[:8] + struct.pack("<H", len(header)) + header.encode()


@pytest.mark.parametrize(
    "change, message",
    [
        (without("manifest.json"), "something else or damaged.*manifest"),
        (without("tasks/1/examples.npy"), "damaged.*tasks/1/examples.npy"),
        (without("tasks/1/model.keras"), "damaged.*tasks/1/model.keras"),
        (without("siamese_network.keras"), "damaged.*siamese_network.keras"),
        (with_manifest(format="other"), "damaged.*format is 'other'"),
        (with_manifest(version=2), "version 1 to be read.*of version 2"),
        (with_manifest(tasks=None), "something else or damaged"),
        (with_manifest(version=True), "damaged.*version is True"),
        (with_manifest(version="1"), "damaged.*version is '1'"),
        (
            with_manifest(tasks=[{"name": None, "has_model": False}]),
            "damaged.*a task is named None",
        ),
        (
            with_manifest(tasks=2 * [{"name": "a", "has_model": False}]),
            "damaged.*two tasks are named 'a'",
        ),
        (with_manifest(tasks=[{"name": "a"}]), "damaged.*has_model"),
        (pickled_examples, "damaged.*allow_pickle=False"),
        (with_examples(npz()), "damaged.*magic string"),
        (with_examples(npy_of_shape((10**12, 4))), "damaged"),
        (with_examples(npy_of_shape((-1, 4))), "damaged"),
        (
            with_examples(npy(np.ones((3, 5)))),
            r"examples of the task 'near' of.*shape.*\(3, 5\)",
        ),
        (with_examples(npy(np.ones((0, 4)))), "'near' of.*at least one"),
        (with_examples(npy(3.0)), "'near' of.*at least one"),
        (with_examples(npy(np.full((3, 4), np.nan))), "'near' of.*finite"),
        (with_examples(npy(np.full((3, 4), "a"))), "'near' of.*compared"),
        (with_examples(npy(np.ones((3, 4), "M8[s]"))), "'near' of.*compared"),
        (lambda entries: {**entries, "manifest.json": "[1"}, "damaged"),
        (lambda entries: {**entries, "manifest.json": "[]"}, "damaged"),
        (
            lambda entries: {**entries, "siamese_network.keras": b"nothing"},
            "Siamese network of the task library.*could not be loaded",
        ),
    ],
)
def test_load_refuses_and_names_the_file(library, tmp_path, change, message):
    library.save(tmp_path / "good.zip")
    rewritten(tmp_path / "good.zip", tmp_path / "bad.zip", change)
    with pytest.raises(ValueError, match=message) as caught:
        keras_meta.TaskLibrary.load(tmp_path / "bad.zip")
    assert str(tmp_path / "bad.zip") in str(caught.value)


def test_load_refuses_truncated_and_damaged_files(library, tmp_path):
    library.save(tmp_path / "good.zip")
    contents = (tmp_path / "good.zip").read_bytes()
    bad = tmp_path / "bad.zip"
    damaged = bytearray(contents)
    # Within the compressed examples of the first task.
    place = contents.index(b"tasks/0/examples.npy") + 60
    damaged[place : place + 8] = bytes(
        255 - byte for byte in damaged[place : place + 8]
    )
    for wrong in (
        b"",
        b"hello",
        contents[: len(contents) // 2],
        contents[:-10],
        bytes(damaged),
    ):
        bad.write_bytes(wrong)
        with pytest.raises(ValueError, match="bad.zip, which is something"):
            keras_meta.TaskLibrary.load(bad)
    with pytest.raises(FileNotFoundError, match="nowhere.zip"):
        keras_meta.TaskLibrary.load(tmp_path / "nowhere.zip")
    linear_model(0).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="model.keras, which is something"):
        keras_meta.TaskLibrary.load(tmp_path / "model.keras")


def loads_or_names(path):
    try:
        keras_meta.TaskLibrary.load(path)
    except (TypeError, ValueError) as error:
        assert path.name in str(error)
        return False
    return True


def test_load_of_any_damaged_bytes_names_the_file(tmp_path):
    library = keras_meta.TaskLibrary(
        keras_meta.SiameseNetwork(identity_network())
    )
    library.add("near", points(0, examples=2), linear_model(0))
    library.add("far", points(9, examples=2))
    good, bad = tmp_path / "good.zip", tmp_path / "damaged.zip"
    library.save(good)
    contents = np.frombuffer(good.read_bytes(), "uint8")
    generator = np.random.default_rng(0)
    loaded = 0
    for number in range(400):
        damaged = contents.copy()
        # Half of them in the directory, at the end of the archive.
        start = [0, len(contents) - 400][number % 2]
        places = generator.integers(start, len(contents), 1 + number % 3)
        damaged[places] = generator.integers(0, 256, len(places))
        bad.write_bytes(damaged.tobytes())
        loaded += loads_or_names(bad)
    # Some bytes, such as those of a date, do not matter.
    assert 0 < loaded < 200
    # Now with sums that are right.
    for number in range(200):
        name = ["manifest.json", "tasks/0/examples.npy"][number % 2]

        def damage(entries):
            damaged = bytearray(entries[name])
            for place in generator.integers(0, min(len(damaged), 160), 2):
                damaged[place] = generator.integers(0, 256)
            return {**entries, name: bytes(damaged)}

        rewritten(good, bad, damage)
        loads_or_names(bad)


def test_warm_start_names_the_task_of_a_damaged_model(library, tmp_path):
    library.save(tmp_path / "good.zip")
    rewritten(
        tmp_path / "good.zip",
        tmp_path / "bad.zip",
        lambda entries: {**entries, "tasks/1/model.keras": b"nothing"},
    )
    loaded = keras_meta.TaskLibrary.load(tmp_path / "bad.zip")
    assert loaded.warm_start(points(0)).count_params() == 10
    with pytest.raises(ValueError, match="task 'middle' could not be loaded"):
        loaded.warm_start(points(3))


def test_models_that_hold_code_need_trust(library, tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x)]
    )
    library.add("code", points(100), model)
    # Added in this process: as safe as the process.
    assert library.warm_start(points(100)).count_params() == 0
    library.save(tmp_path / "library.zip")
    loaded = keras_meta.TaskLibrary.load(tmp_path / "library.zip")
    with pytest.raises(ValueError, match="safe_mode"):
        loaded.warm_start(points(100))
    trusted = keras_meta.TaskLibrary.load(
        tmp_path / "library.zip", safe_mode=False
    )
    assert trusted.warm_start(points(100)).count_params() == 0


def test_siamese_network_that_holds_code_needs_trust(tmp_path):
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x)]
    )
    library = keras_meta.TaskLibrary(keras_meta.SiameseNetwork(network))
    library.save(tmp_path / "library.zip")
    with pytest.raises(ValueError, match="library.zip could not.*safe_mode"):
        keras_meta.TaskLibrary.load(tmp_path / "library.zip")
    keras_meta.TaskLibrary.load(tmp_path / "library.zip", safe_mode=False)


def test_refuses_bad_input(library):
    with pytest.raises(TypeError, match="SiameseNetwork.*Received: Sequential"):
        keras_meta.TaskLibrary(linear_model(0))
    with pytest.raises(ValueError, match="name='near', which is there"):
        library.add("near", points(0))
    with pytest.raises(TypeError, match="must be a string. Received: name=3"):
        library.add(3, points(0))
    with pytest.raises(ValueError, match=r"shape of the network's input.*5\)"):
        library.add("new", np.zeros((3, 5)))
    with pytest.raises(ValueError, match="at least one example"):
        library.add("new", np.zeros((0, 4)))
    with pytest.raises(ValueError, match="finite. Received: NaN"):
        library.add("new", np.full((3, 4), np.nan))
    with pytest.raises(TypeError, match="one array.*Received: dict"):
        library.add("new", {"a": points(0)})
    with pytest.raises(TypeError, match="`model` must be a `keras.Model`"):
        library.add("new", points(0), model=keras.layers.Dense(1))
    assert len(library) == 3
    for ask in (library.distances, library.most_similar, library.warm_start):
        with pytest.raises(ValueError, match=r"shape of the network's input"):
            ask(np.zeros((3, 5)))


def test_refuses_a_model_that_could_not_be_loaded(library):
    class Unregistered(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

    model = Unregistered()
    model(points(0))
    with pytest.raises(ValueError, match="saved and loaded.*Received.*Unreg"):
        library.add("new", points(0), model)
    assert "new" not in library


def test_task_without_a_model_gives_no_warm_start(library):
    library.add("bare", points(30))
    assert library.most_similar(points(31)).name == "bare"
    with pytest.raises(ValueError, match="task 'bare', which.*without"):
        library.warm_start(points(31))


def test_empty_library_has_nothing_to_compare_with():
    library = keras_meta.TaskLibrary(
        keras_meta.SiameseNetwork(identity_network())
    )
    for ask in (library.distances, library.most_similar, library.warm_start):
        with pytest.raises(ValueError, match="empty library. Call `add"):
            ask(points(0))
