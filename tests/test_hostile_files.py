"""Files that want to do more than be read."""

import io
import json
import os
import pickle
import stat
import zipfile

import keras
import numpy as np
import pytest

import keras_meta
from tests import small_models
from tests.algorithms import contract


class Bomb:
    """Makes a file, should anybody unpickle it."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def pickled_array(path):
    return np.array([Bomb(path)], object)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to be in, beside which nothing may be written."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return inner


def assert_nothing_is_outside(folder):
    assert os.listdir(folder.parent) == ["inner"]
    assert os.listdir(folder.parent.parent) == ["outer"]


def add_hostile_entries(path):
    """Adds entries of names that lead elsewhere, and a link that does."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../escaped.txt", "out")
        archive.writestr("../../escaped.txt", "out")
        archive.writestr(f"{path.parent.parent}/escaped.txt", "out")
        link = zipfile.ZipInfo("link")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(path.parent.parent))
        archive.writestr("link/escaped.txt", "out")


def lambda_network():
    return keras.Sequential(
        [keras.Input((8,)), keras.layers.Lambda(lambda x: 2 * x)]
    )


def test_a_task_library_writes_nothing_when_it_is_loaded(folder):
    model = small_models.make_model("SiameseNetwork")
    library = keras_meta.TaskLibrary(model)
    library.add("known", contract.blobs()[0], small_models.embedding())
    library.save(folder / "tasks.zip")
    add_hostile_entries(folder / "tasks.zip")
    loaded = keras_meta.TaskLibrary.load(folder / "tasks.zip")
    loaded.warm_start(contract.blobs()[0])
    assert os.listdir(folder) == ["tasks.zip"]
    assert_nothing_is_outside(folder)


def test_a_task_library_does_not_unpickle(folder):
    model = small_models.make_model("SiameseNetwork")
    library = keras_meta.TaskLibrary(model)
    library.add("known", contract.blobs()[0])
    library.save(folder / "tasks.zip")
    with zipfile.ZipFile(folder / "tasks.zip") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    array = io.BytesIO()
    np.save(array, pickled_array(folder / "bomb"), allow_pickle=True)
    entries["tasks/0/examples.npy"] = array.getvalue()
    with zipfile.ZipFile(folder / "tasks.zip", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="tasks.zip"):
        keras_meta.TaskLibrary.load(folder / "tasks.zip")
    assert not (folder / "bomb").exists()
    # The bomb is a real one.
    pickle.loads(pickle.dumps(Bomb(folder / "bomb")))
    assert (folder / "bomb").exists()


@pytest.mark.parametrize("header", [True, False])
def test_frozen_episodes_do_not_unpickle(folder, header):
    path = folder / "frozen.npz"
    arrays = {"leaf0": pickled_array(folder / "bomb")}
    if header:
        about = {"format": "keras_meta frozen episodes", "version": 1}
        arrays["header"] = np.array(json.dumps(about))
    np.savez(path, allow_pickle=True, **arrays)
    with pytest.raises(ValueError, match="frozen.npz, which is damaged"):
        keras_meta.episodes.load_frozen(path)
    assert not (folder / "bomb").exists()


def test_frozen_episodes_write_nothing_when_they_are_loaded(folder):
    path = folder / "frozen.npz"
    episodes = contract.blob_episodes(episodes=4)
    keras_meta.episodes.freeze(episodes, path)
    add_hostile_entries(path)
    # Entries that are no arrays are left alone, or refused.
    try:
        keras_meta.episodes.load_frozen(path, episodes)
    except ValueError as error:
        assert "frozen.npz" in str(error)
    assert os.listdir(folder) == ["frozen.npz"]
    assert_nothing_is_outside(folder)


def test_archives_of_images_write_nothing_and_refuse_ways_out(folder):
    path = folder / "images.zip"
    keras.utils.save_img(folder / "image.png", np.zeros((8, 8, 3)))
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("cat/0", "cat/1", "dog/0", "dog/1", "../../bird/0"):
            archive.write(folder / "image.png", f"{name}.png")
    with pytest.raises(ValueError, match="outside"):
        keras_meta.episodes.from_zip(path, ways=2, shots=1, queries=1)
    assert_nothing_is_outside(folder)


@pytest.mark.parametrize("algorithm", ["PrototypicalNetwork", "RidgeHead"])
def test_models_with_code_are_refused_unless_trusted(folder, algorithm):
    model = getattr(keras_meta, algorithm)(lambda_network())
    model.save(folder / "model.keras")
    with pytest.raises(ValueError, match="safe_mode"):
        keras.saving.load_model(folder / "model.keras")
    keras.saving.load_model(folder / "model.keras", safe_mode=False)


def test_models_write_nothing_when_they_are_loaded(folder):
    path = folder / "model.keras"
    small_models.make_model("PrototypicalNetwork").save(path)
    add_hostile_entries(path)
    try:
        keras.saving.load_model(path)
    except Exception as error:
        # Keras may refuse it, but for the right reason.
        assert "escape" in str(error) or "link" in str(error)
    assert os.listdir(folder) == ["model.keras"]
    assert_nothing_is_outside(folder)
