"""Every picture is of one color, which is the number of its example."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes
from keras_meta.episodes import labeled_images
from keras_meta.episodes import meta_batches

tfds = pytest.importorskip(
    "tensorflow_datasets", reason="Needs tensorflow-datasets."
)

LETTERS = ["alpha", "beta", "gamma", "a", "b", "c"]
SAMPLING = dict(
    ways=2, shots=1, queries=2, meta_batch_size=4, episodes=8, seed=3
)


class AlphabetSheets(tfds.core.GeneratorBasedBuilder):
    """Six letters of two alphabets, six pictures of each."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="plain")]
    # TFDS would look beside the code for checksums of what it downloads.
    code_path = None

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(6, 8, 3)),
            "scan": tfds.features.Image(shape=(None, None, 1)),
            "label": tfds.features.ClassLabel(names=LETTERS),
            "alphabet": tfds.features.ClassLabel(names=["Greek", "Latin"]),
            "drawer": tfds.features.Scalar(np.int64),
            "script": tfds.features.Text(),
            "vector": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "strokes": tfds.features.Sequence(np.float32),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, manager):
        return {
            "train": self._generate_examples(range(36)),
            # Of gamma and of all Latin letters.
            "small": self._generate_examples(
                number for number in range(36) if number % 6 >= 2
            ),
            "unlabeled": self._generate_examples(range(36), labeled=False),
        }

    def _generate_examples(self, numbers, labeled=True):
        for number in numbers:
            label = number % 6
            size = (5 + number % 3, 6)
            yield (
                number,
                {
                    "image": np.full((6, 8, 3), number, "uint8"),
                    "scan": np.full((*size, 1), number, "uint8"),
                    "label": label if labeled else -1,
                    "alphabet": label // 3,
                    "drawer": number // 6,
                    "script": "from the left"
                    if label < 3
                    else "from the right",
                    "vector": np.full(4, number, "float32"),
                    "strokes": np.zeros(number % 4, "float32"),
                },
            )


@pytest.fixture(scope="module", autouse=True)
def offline():
    """Keeps releases of TFDS from looking for data sets in the cloud."""
    with pytest.MonkeyPatch.context() as patch:
        cloud = tfds.core.utils.gcs_utils
        patch.setattr(cloud, "_is_gcs_disabled", True, raising=False)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of TFDS that the data set was prepared in."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds.builder("alphabet_sheets", data_dir=folder).download_and_prepare()
    return folder


@pytest.fixture
def sheets(folder):
    """A function that makes episodes."""

    def make(**settings):
        settings = dict(data_dir=folder) | SAMPLING | settings
        return episodes.from_tfds("alphabet_sheets", **settings)

    return make


def numbers_and_labels(dataset):
    """Returns the numbers of the examples, and the labels of the episode."""
    found = []
    for x, y in dataset:
        for inputs, labels in (
            (x["support_x"], x["support_y"]),
            (x["query_x"], y),
        ):
            if inputs.dtype == tf.float32 and inputs.shape.rank == 5:
                inputs = inputs.numpy()
                # One color all over the picture.
                assert np.ptp(inputs, axis=(2, 3, 4)).max() == 0
                inputs = (inputs[:, :, 0, 0, 0] * 255).round()
            found.append((np.asarray(inputs).astype(int), labels.numpy()))
    return found


def classes_drawn(dataset):
    return {
        int(number) % 6
        for numbers, _ in numbers_and_labels(dataset)
        for number in numbers.ravel()
    }


def test_an_episode_has_examples_of_its_classes(sheets):
    dataset = sheets()
    x, y = next(iter(dataset))
    assert x["support_x"].shape == (4, 2, 6, 8, 3)
    assert x["support_x"].dtype == tf.float32
    for numbers, labels in numbers_and_labels(dataset):
        for row, of_row in zip(numbers % 6, labels):
            assert len(set(zip(row.tolist(), of_row.tolist()))) == 2
            assert len(set(row.tolist())) == 2
    assert_same(dataset, sheets())
    assert_same(sheets(classes=range(6)), dataset)


def assert_same(one, other):
    for pair in zip(one, other, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, *pair)


def test_is_prepared_where_it_is_not_there(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="alphabet_sheets, which is not in .*download="
    ):
        episodes.from_tfds(
            "alphabet_sheets", **SAMPLING, data_dir=tmp_path, download=False
        )
    assert not list(tmp_path.rglob("*.tfrecord*"))
    episodes.from_tfds("alphabet_sheets:1.2.0", **SAMPLING, data_dir=tmp_path)
    assert list(tmp_path.rglob("*.tfrecord*"))


def test_a_builder_and_a_folder_that_was_prepared(folder, sheets):
    builder = tfds.builder("alphabet_sheets", data_dir=folder)
    assert_same(episodes.from_tfds(builder, **SAMPLING), sheets())
    (prepared,) = folder.glob("alphabet_sheets/plain/1.2.0")
    builder = tfds.builder_from_directory(prepared)
    found = episodes.from_tfds(builder, **SAMPLING, download=False)
    assert_same(found, sheets())
    with pytest.raises(ValueError, match="must not be given with a builder"):
        episodes.from_tfds(builder, **SAMPLING, data_dir=folder)


def test_classes_and_groups_by_name(sheets):
    assert classes_drawn(sheets(classes=["beta", "c"])) == {1, 5}
    latin = sheets(group="alphabet", classes=["Latin"])
    assert classes_drawn(latin) == {3, 4, 5}
    assert_same(latin, sheets(classes=[3, 4, 5]))
    by_text = sheets(group="script", classes=["from the right", "alpha"])
    assert classes_drawn(by_text) == {0, 3, 4, 5}


def test_a_split_that_lacks_classes_keeps_their_numbers_and_names(sheets):
    settings = dict(split="small", group="alphabet")
    assert classes_drawn(sheets(**settings)) == {2, 3, 4, 5}
    assert classes_drawn(sheets(**settings, classes=["Latin"])) == {3, 4, 5}
    named = sheets(**settings, classes=["Greek", "b"])
    assert classes_drawn(named) == {2, 4}
    assert_same(named, sheets(split="small", classes=[2, 4]))


def test_episodes_within_a_group(sheets):
    for numbers, _ in numbers_and_labels(
        sheets(group="alphabet", within="group")
    ):
        alphabets = numbers % 6 // 3
        assert np.all(alphabets == alphabets[:, :1])


def test_a_group_of_plain_integers_that_divides_a_class_is_an_error(sheets):
    with pytest.raises(ValueError, match="class 0, which lies in the groups"):
        sheets(group="drawer")


def test_splits_of_tfds(sheets):
    half = sheets(split="train[:50%]", shots=1, queries=1)
    seen = [numbers.ravel() for numbers, _ in numbers_and_labels(half)]
    assert len(np.unique(np.concatenate(seen))) <= 18
    # Six of each class are in one split alone.
    settings = dict(shots=6, queries=4, classes=["b", "c"])
    assert classes_drawn(sheets(split="train+small", **settings)) == {4, 5}
    with pytest.raises(ValueError, match="class 4 has 6 examples"):
        sheets(**settings)


@pytest.mark.parametrize("inputs", ["vector", "script", "drawer"])
def test_any_feature_of_one_shape_is_shown(sheets, inputs):
    x, _ = next(iter(sheets(inputs=inputs)))
    shape = {"vector": (4, 2, 4)}.get(inputs, (4, 2))
    dtype = {"vector": "float32", "script": "string", "drawer": "int64"}
    assert x["support_x"].shape == shape
    assert x["support_x"].dtype == dtype[inputs]
    if inputs == "vector":
        numbers = x["support_x"].numpy()[..., 0].astype(int)
        pictures = numbers_and_labels(sheets())[0][0]
        np.testing.assert_array_equal(numbers, pictures)


def test_a_label_without_names(sheets):
    found = sheets(label="drawer")
    for numbers, labels in numbers_and_labels(found):
        for row, of_row in zip(numbers // 6, labels):
            assert len(set(zip(row.tolist(), of_row.tolist()))) == 2


def test_images_are_resized_and_recolored(sheets):
    x, _ = next(iter(sheets(image_size=(3, 4), color="grayscale")))
    assert x["query_x"].shape == (4, 4, 3, 4, 1)
    # Of one size, then; larger in one direction and of the same in another.
    found = sheets(inputs="scan", image_size=(7, 6), color="rgb")
    x, _ = next(iter(found))
    assert x["query_x"].shape == (4, 4, 7, 6, 3)
    for numbers, labels in numbers_and_labels(found):
        for row, of_row in zip(numbers % 6, labels):
            assert len(set(zip(row.tolist(), of_row.tolist()))) == 2
    assert classes_drawn(found) <= set(range(6))


@pytest.mark.parametrize("size", [(4, 4), (16, 24), (4, 24), (8, 12)])
def test_images_of_unknown_size_are_resized_as_others(size):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 1), "uint8")
    in_graph = tf.function(
        lambda image: labeled_images.resize(image, size),
        input_signature=[tf.TensorSpec([None, None, None], "uint8")],
    )
    found = in_graph(pixels).numpy()
    assert found.shape == (*size, 1)
    np.testing.assert_array_equal(
        found, labeled_images.resize(tf.constant(pixels), size)
    )
    if size == (4, 4):
        means = pixels.reshape(4, 2, 4, 3).mean(axis=(1, 3))
        assert np.abs(found[..., 0] - means).max() <= 0.5
    if size == (8, 12):
        np.testing.assert_array_equal(found, pixels)


def test_the_protocol_tells_which_version_and_split(sheets):
    origin, _ = meta_batches.origin_of(sheets(split="small"))
    source = origin.recipe.protocol["source"]
    assert source == "TFDS alphabet_sheets/plain:1.2.0, split small"


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(split="trai"), "'trai'. There are: .'small', 'train', 'unlab"),
        (dict(split="train+x"), "'train.x'. There are"),
        (dict(split=None), "split=None. There are"),
        (dict(split=["train"]), r"split=\['train'\]. There are"),
        (dict(inputs="picture"), "inputs='picture'. There are: .'alphabet'"),
        (dict(label="letter"), "label='letter'. There are"),
        (dict(group="script_"), "group='script_'. There are"),
        (dict(label="script"), "single integers. Received: label='script'"),
        (dict(label="vector"), "single integers. Received: label='vector'"),
        (dict(group="vector"), "integers or strings. Received: group='vector'"),
        (dict(split="unlabeled"), "36 of 36 have none"),
        (
            dict(inputs="scan"),
            "same shape. Received: example .*Pass `image_size=",
        ),
        (dict(inputs="strokes"), "same shape.*from_dataset"),
        (dict(inputs="vector", image_size=(3, 3)), "inputs='vector', which is"),
        (dict(inputs="script", color="rgb"), "inputs='script', which is"),
        (dict(image_size=3), "image_size=3"),
        (dict(color="blue"), "color='blue'"),
        (dict(download="no"), "download='no'"),
        (dict(ways=7), "ways=7, but there are 6 classes"),
    ],
)
def test_refuses(sheets, settings, message):
    with pytest.raises(ValueError, match=message):
        sheets(**settings)


def test_a_data_set_that_is_unknown_is_an_error_that_lists_others(tmp_path):
    with pytest.raises(ValueError, match="no_such_sheets not found"):
        episodes.from_tfds("no_such_sheets", **SAMPLING, data_dir=tmp_path)
    with pytest.raises(TypeError, match="name=3"):
        episodes.from_tfds(3, **SAMPLING)


def test_features_are_looked_for_before_anything_is_downloaded(tmp_path):
    # The real one, by name; its download would fail here.
    with pytest.raises(
        ValueError,
        match="feature of omniglot. Received: group='script'. There are: "
        ".'alphabet', 'alphabet_char_id', 'image', 'label'",
    ):
        episodes.from_tfds(
            "omniglot",
            **SAMPLING,
            group="script",
            image_size=(28, 28),
            data_dir=tmp_path,
        )
    assert not list(tmp_path.rglob("*.zip"))


def test_omniglot_by_name(tmp_path):
    # Its features, and pictures of noise, of which there are too few for all
    # its letters.
    with tfds.testing.mock_data(num_examples=400):
        found = episodes.from_tfds(
            "omniglot",
            **SAMPLING | dict(ways=20, queries=1),
            label="alphabet",
            group="alphabet",
            image_size=(28, 28),
            color="grayscale",
            data_dir=tmp_path,
        )
    assert next(iter(found))[0]["support_x"].shape == (4, 20, 28, 28, 1)


def test_tells_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="pip install 'keras-meta.datasets."):
        episodes.from_tfds("omniglot", **SAMPLING)
