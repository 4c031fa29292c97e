import numpy as np
import pytest

from keras_meta import episodes
from keras_meta.episodes.glyph_images import Glyphs
from tests.episodes.test_labeled_images import alphabets
from tests.episodes.test_labeled_images import write_folder
from tests.episodes.test_labeled_images import write_zip


def test_describes_labels_with_gaps_and_unequal_sizes():
    labels = np.repeat([3, 7, 9, 20], [2, 5, 5, 30])
    description = episodes.describe(labels, groups=[*"aabb"])
    assert description.classes == [3, 7, 9, 20]
    assert description.sizes.tolist() == [2, 5, 5, 30]
    assert description.groups == {"a": 2, "b": 2}
    assert str(description).splitlines() == [
        "labels: 42 examples of 4 classes",
        "examples a class: 2 to 30, median 5",
        "groups: 2 (a 2, b 2)",
        "episodes: up to 4 ways, with shots + queries up to 2",
        "  of 3 classes: shots + queries up to 5",
        "  within a group: up to 2 ways in each",
    ]


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_describes_folders_and_archives(tmp_path, write):
    path = write(tmp_path / "images", alphabets())
    for source in (path, str(path), episodes.image_folders(path)):
        description = episodes.describe(source)
        assert description.examples == 12
        assert description.classes[0] == "Greek/character01"
        assert description.groups == {"Greek": 2, "Latin": 2}
    assert description.shape == "(6, 6, 3)"


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_of_folders_only_the_names_are_read(tmp_path, write):
    files = {f"{name}/1.png": b"no image" for name in ("cat", "dog")}
    description = episodes.describe(write(tmp_path / "animals", files))
    assert description.classes == ["animals/cat", "animals/dog"]
    assert description.shape is None


def test_describes_glyphs():
    data = Glyphs(
        np.zeros((6, 8, 8, 1)), np.repeat(np.arange(3), 2), "abc", [*"xyy"]
    )
    description = episodes.describe(data)
    assert description.classes == ["a", "b", "c"]
    assert description.groups == {"x": 1, "y": 2}
    assert str(description).startswith("glyphs: 6 examples of 3 classes, each")


def test_variants_count_as_ways():
    x = np.zeros((80, 4, 4))
    settings = dict(groups=[*"aaabbbbb"], quarter_turns=True)
    description = episodes.describe(few_shot(x, **settings))
    assert description.variants == 4
    text = str(description)
    assert "up to 32 ways (8 classes in 4 variants), with" in text
    assert "up to 12 ways in each, up to 20 in the largest" in text
    few_shot(x, **{**settings, "ways": 32})


def test_describes_what_a_data_set_draws_from(tmp_path):
    folder = write_folder(tmp_path, alphabets())
    dataset = episodes.from_directory(folder, 2, 1, 2, classes=["Latin"])
    description = episodes.describe(dataset.prefetch(1))
    assert description.classes == ["Latin/character01", "Latin/character02"]
    assert description.groups == {"Latin": 2}
    assert description.sizes.tolist() == [3, 3]
    assert str(description).startswith(f"{folder.name}: 6 examples of 2 cl")


def test_what_is_said_to_be_possible_is():
    labels = np.repeat([3, 7, 9, 20], [4, 5, 5, 30])
    description = episodes.describe(labels)
    assert "up to 4 ways, with shots + queries up to 4" in str(description)
    x = np.zeros(len(labels))
    episodes.from_arrays(x, labels, ways=4, shots=1, queries=3)
    with pytest.raises(ValueError):
        episodes.from_arrays(x, labels, ways=4, shots=1, queries=4)
    with pytest.raises(ValueError):
        episodes.from_arrays(x, labels, ways=5, shots=1, queries=3)


def test_other_things_cannot_be_described(tmp_path):
    with pytest.raises(TypeError, match="`source` must be a data set"):
        episodes.describe(episodes.sinusoids())
    source = few_shot(np.zeros((80, 4)), episodes=4)
    episodes.freeze(source, tmp_path / "frozen.npz")
    frozen = episodes.load_frozen(tmp_path / "frozen.npz", source)
    for dataset in (frozen, episodes.mixed([source, source])):
        with pytest.raises(TypeError, match="Frozen lists and mixtures do not"):
            episodes.describe(dataset)
    with pytest.raises(TypeError, match="`y` must hold integers"):
        episodes.describe(np.zeros(3))
    with pytest.raises(FileNotFoundError):
        episodes.describe("no such folder")


def few_shot(x, **settings):
    settings = dict(ways=3, shots=2, queries=4) | settings
    return episodes.from_arrays(x, np.arange(80) // 10, **settings)


def drawn_axes(figure):
    return [axis for axis in figure.axes if axis.axison]


def texts_of(figure):
    """Returns what is written in frames."""
    return [
        text.get_text() for axis in drawn_axes(figure) for text in axis.texts
    ]


def images_of(figure):
    return [
        np.asarray(image.get_array())
        for axis in figure.axes
        for image in axis.images
    ]


def test_draws_the_images_of_an_episode():
    x = np.random.default_rng(0).uniform(size=(80, 5, 5, 1)).astype("float32")
    dataset = few_shot(x)
    figure = episodes.show_episode(dataset, task=1, queries=3)
    batch, labels = next(iter(dataset))
    images = images_of(figure)
    assert len(images) == 3 * (2 + 3)
    # The first row: the support set of way 0, then its queries.
    shown = batch["support_x"][1][batch["support_y"][1] == 0]
    asked = batch["query_x"][1][labels[1] == 0]
    for image, expected in zip(images, [*shown, *asked[:3]]):
        np.testing.assert_array_equal(image, expected[..., 0])
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts == ["0", "1", "2"]


def test_padding_is_not_drawn():
    x = np.zeros((80, 5, 5, 3))
    dataset = few_shot(x, ways=(2, 6), shots=(1, 4), meta_batch_size=20)
    batch, _, query_weight = next(iter(dataset))
    for task in range(20):
        figure = episodes.show_episode((batch, *next(iter(dataset))[1:]), task)
        support = np.sum(batch["support_weight"][task] > 0)
        asked = np.sum(query_weight[task] > 0)
        assert len(images_of(figure)) == support + asked
        if task == 3:
            break


def test_no_more_than_asked_for_is_drawn():
    dataset = few_shot(np.zeros((80, 5, 5)), ways=2, shots=7, queries=3)
    for shots, count in ((2, 2), (9, 7)):
        figure = episodes.show_episode(dataset, shots=shots, queries=1)
        assert len(images_of(figure)) == 2 * (count + 1)
    assert len(images_of(episodes.show_episode(dataset))) == 2 * (5 + 3)


def test_text_is_wrapped_at_words_inside_its_frame():
    x = np.array(["it costs $5 or $6 incomprehensibilities " * 4] * 80)
    figure = episodes.show_episode(few_shot(x), queries=2)
    lines = texts_of(figure)[0].splitlines()
    assert lines[:3] == ["it costs $5 or", "$6 incomprehens", "ibilities it"]
    assert lines[-1].endswith("...")
    figure.canvas.draw()
    for axis in drawn_axes(figure):
        text, frame = axis.texts[0].get_window_extent(), axis.bbox
        assert text.height < frame.height and text.width < frame.width


def test_numbers_of_tokens_are_written():
    figure = episodes.show_episode(few_shot(np.tile([7, 15, 0], (80, 1))))
    assert set(texts_of(figure)) == {"7 15 0"}


def test_images_with_transparency_are_images():
    x = np.random.default_rng(0).uniform(size=(80, 4, 4, 4))
    figure = episodes.show_episode(few_shot(x), queries=2)
    assert images_of(figure)[0].shape == (4, 4, 4)


@pytest.mark.parametrize("kind", ["vectors", "text", "gray", "nested"])
def test_draws_what_is_no_color_image(kind):
    x = {
        "vectors": np.random.default_rng(0).uniform(size=(80, 7)),
        "text": np.array(["a long text " * 9] * 80),
        "gray": np.zeros((80, 4, 4)),
        "nested": {"image": np.zeros((80, 4, 4, 3)), "more": np.zeros(80)},
    }[kind]
    figure = episodes.show_episode(few_shot(x), queries=2)
    assert len(drawn_axes(figure)) == 3 * (2 + 2)
    figure.canvas.draw()


def test_draws_in_a_figure_that_is_given():
    from matplotlib.figure import Figure

    figure = Figure()
    assert episodes.show_episode(
        few_shot(np.zeros((80, 4))), figure=figure
    ) is (figure)


def test_what_is_no_episode_is_an_error():
    with pytest.raises(TypeError, match="must be a dictionary"):
        episodes.show_episode((np.zeros((2, 3)), np.zeros(2)))
    dataset = few_shot(np.zeros((80, 4)))
    not_batches = (
        np.zeros((2, 3)),
        (next(iter(dataset))[0],),
        dataset.map(lambda x, y: x),
    )
    for given in not_batches:
        with pytest.raises(TypeError, match="must be a `tf.data.Dataset` of"):
            episodes.show_episode(given)
    with pytest.raises(TypeError, match="Only episodes of classification"):
        episodes.show_episode(episodes.sinusoids())
    with pytest.raises(ValueError, match="at least one meta-batch"):
        episodes.show_episode(dataset.take(0))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"task": 4}, "task=4 of 4"),
        ({"task": -1}, "`task` must be an integer of 0"),
        ({"task": 0.0}, "`task` must be an integer of 0"),
        ({"shots": 0}, "`shots` must be an integer of 1"),
        ({"queries": 2.5}, "`queries` must be an integer of 1"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(settings, message):
    dataset = few_shot(np.zeros((80, 4)), meta_batch_size=4)
    with pytest.raises(ValueError, match=message):
        episodes.show_episode(dataset, **settings)
