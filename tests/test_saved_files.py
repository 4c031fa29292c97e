"""Files of earlier versions of this package, and files that are no good."""

import pathlib
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_meta
from tests import small_models
from tests.algorithms import contract

FILES = pathlib.Path(__file__).parent / "files"
VERSIONS = sorted(folder.name for folder in FILES.iterdir() if folder.is_dir())


def training_batch(algorithm):
    if algorithm in small_models.PRETRAINED:
        return next(iter(keras_meta.episodes.examples(*contract.blobs())))
    return contract.first_batch()


@pytest.mark.parametrize("algorithm", small_models.SETTINGS)
@pytest.mark.parametrize("version", VERSIONS)
def test_file_of_an_earlier_version_answers_and_trains(version, algorithm):
    path = FILES / version / f"{algorithm}.keras"
    if not path.exists():
        pytest.skip(f"{algorithm} came after {version}.")
    model = keras.saving.load_model(path)
    x, _ = contract.first_batch()
    with np.load(FILES / version / "answers.npz") as answers:
        # Written on another machine, maybe.
        np.testing.assert_allclose(
            model(x), answers[algorithm], rtol=1e-4, atol=1e-4
        )
    assert model.optimizer.iterations == 1
    model.run_eagerly = True
    model.train_on_batch(*training_batch(algorithm))
    assert model.optimizer.iterations == 2


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(4, activation="relu")
        self.dropout = keras.layers.Dropout(0.5)
        self.head = keras.layers.Dense(3)

    def build(self, shape):
        self.hidden.build(shape)
        self.head.build((None, 4))
        super().build(shape)

    def call(self, x, training=False):
        return self.head(self.dropout(self.hidden(x), training=training))


def subclassed():
    network = Subclassed()
    network.build((None, 8))
    return network


def nested():
    inner = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
            keras.layers.GaussianDropout(0.5),
        ]
    )
    inputs = keras.Input((8,))
    both = keras.layers.Add()([inner(inputs), keras.layers.Dense(4)(inputs)])
    return keras.Model(inputs, keras.layers.Dense(3)(both))


def recurrent():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Reshape((4, 2)),
            keras.layers.GRU(3, use_cudnn=False, dropout=0.5),
            keras.layers.Dense(3),
        ]
    )


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Reshape((8, 1)),
            keras.layers.Conv1D(2, 3),
            keras.layers.SpatialDropout1D(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


@pytest.mark.parametrize(
    "network", [subclassed, nested, recurrent, convolutional]
)
@pytest.mark.parametrize("algorithm", ["MAML", "PrototypicalNetwork"])
def test_training_goes_on_with_networks_of_any_kind(
    algorithm, network, tmp_path
):
    model = getattr(keras_meta, algorithm)(network())
    model.compile(
        "adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    batch = next(iter(contract.blob_episodes(1)))
    model.train_on_batch(*batch)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(batch[0]), loaded(batch[0]))
    # Two steps: dropout, too, draws what it would have drawn.
    for _ in range(2):
        for either in (model, loaded):
            either.train_on_batch(*batch)
    for one, other in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_files_are_small():
    for path in FILES.rglob("*.*"):
        assert path.stat().st_size < 30_000, path


@pytest.fixture
def model():
    return small_models.make_model("PrototypicalNetwork")


def test_a_truncated_file_is_named(model, tmp_path):
    path = tmp_path / "truncated.keras"
    model.save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="truncated.keras"):
        keras.saving.load_model(path)


def test_a_foreign_file_is_named(tmp_path):
    path = tmp_path / "foreign.keras"
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="foreign.keras"):
        keras.saving.load_model(path)


class FullDisk(OSError):
    pass


def break_after_some_bytes(monkeypatch):
    """Makes each file of weights end in an error, as on a full disk."""
    write = h5py.Group.create_dataset
    written = []

    def create_dataset(self, *args, **kwargs):
        written.append(1)
        if len(written) > 2:
            raise FullDisk("No space left on device")
        return write(self, *args, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", create_dataset)


def test_a_full_disk_leaves_the_file_that_was_there(
    model, tmp_path, monkeypatch
):
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    break_after_some_bytes(monkeypatch)
    with pytest.raises(FullDisk):
        model.save(tmp_path / "model.keras")
    with pytest.raises(FullDisk):
        model.save_weights(tmp_path / "model.weights.h5")
    after = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert after == before


def test_saving_replaces_what_was_there(model, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"something else")
    model.save(path)
    # As `ModelCheckpoint` and `BackupAndRestore` do.
    model.save(str(path), overwrite=True)
    model.save_weights(tmp_path / "model.weights.h5", overwrite=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model.keras", "model.weights.h5"]
    keras.saving.load_model(path).load_weights(tmp_path / "model.weights.h5")


def test_a_model_that_was_never_trained_loads_without_a_warning(
    model, tmp_path
):
    # Warnings are errors here.
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.built and loaded.optimizer.iterations == 0


def test_other_names_are_refused_as_by_keras(model, tmp_path):
    with pytest.raises(ValueError, match="Invalid filepath extension"):
        model.save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=".weights.h5"):
        model.save_weights(tmp_path / "model.h5")


def write_files(folder):
    """Writes the files of this version."""
    folder.mkdir(exist_ok=False)
    x, _ = contract.first_batch()
    answers = {}
    for algorithm in small_models.SETTINGS:
        keras.utils.set_random_seed(0)
        model = small_models.make_model(algorithm)
        model.run_eagerly = True
        model.train_on_batch(*training_batch(algorithm))
        path = folder / f"{algorithm}.keras"
        model.save(path)
        compress(path)
        answers[algorithm] = np.asarray(model(x))
    np.savez_compressed(folder / "answers.npz", **answers)


def compress(path):
    """Makes a `.keras` file, a zip archive, small."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


if __name__ == "__main__":
    write_files(FILES / keras_meta.__version__)
