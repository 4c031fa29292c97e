import ast
import collections
import functools
import importlib
import inspect
import os
import sys
from concurrent import futures

import numpy as np
import pytest

from keras_meta.episodes.class_splits import class_split
from keras_meta.episodes.glyph_images import glyphs

matplotlib = pytest.importorskip("matplotlib")

# The package has the function under the name of the module.
glyphs_module = importlib.import_module("keras_meta.episodes.glyph_images")


@pytest.fixture(scope="module")
def data():
    return glyphs(cache=False)


@pytest.fixture
def few_scripts(monkeypatch):
    """Makes building quick."""
    scripts = {"hebrew": ((0x5D0, 0x5D9),), "ogham": ((0x1680, 0x168F),)}
    monkeypatch.setattr(glyphs_module, "_SCRIPTS", scripts)


@pytest.fixture
def cache_folder(tmp_path, monkeypatch, few_scripts):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path / "datasets" / "keras_meta"


@pytest.fixture
def builds(monkeypatch):
    """Counts how often something is drawn."""
    calls = []
    build = glyphs_module._build

    def counted(*settings):
        calls.append(settings)
        return build(*settings)

    monkeypatch.setattr(glyphs_module, "_build", counted)
    return calls


def assert_same(first, second):
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.images.dtype == second.images.dtype == "uint8"
    assert first.labels.dtype == second.labels.dtype == "int32"
    assert first.characters == second.characters
    assert first.scripts == second.scripts


def test_there_are_many_classes_in_many_scripts(data):
    classes = len(data.characters)
    assert classes >= 1000
    assert len(set(data.characters)) == len(data.scripts) == classes
    assert all(len(character) == 1 for character in data.characters)
    sizes = collections.Counter(data.scripts)
    assert len(sizes) >= 10
    assert min(sizes.values()) >= 10
    assert max(sizes.values()) < 0.2 * classes
    assert {"latin", "greek", "cyrillic", "braille", "arrows"} <= set(sizes)


def test_each_class_has_its_images_in_a_row(data):
    classes = len(data.characters)
    assert data.images.shape == (classes * 20, 28, 28, 1)
    assert data.images.dtype == np.uint8
    assert data.labels.dtype == np.int32
    np.testing.assert_array_equal(data.labels, np.arange(classes).repeat(20))


def test_classes_are_ordered_by_script_and_code_point(data):
    classes = list(zip(data.scripts, map(ord, data.characters)))
    assert classes == sorted(classes)


def test_images_are_white_on_black_and_never_blank(data):
    images = data.images[..., 0]
    assert images.max(axis=(1, 2)).min() > 180
    assert (images == 0).mean(axis=(1, 2)).min() > 0.3
    assert np.percentile(images.max(axis=(1, 2)), 5) == 255


def test_strokes_are_not_cut_off(data):
    images = data.images[..., 0]
    edges = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    assert np.max(edges) < 200
    assert images[:, [0, 0, -1, -1], [0, -1, 0, -1]].max() < 50


def test_images_fill_most_of_the_frame(data):
    ink = data.images[..., 0] > 60
    longest = np.maximum(extent(ink.any(axis=2)), extent(ink.any(axis=1)))
    # Stars reach into no corner, so that they fill less than others.
    assert longest.min() >= 10
    assert np.percentile(longest, 1) >= 15
    assert 18 <= np.median(longest) <= 24


def extent(lines):
    """Returns how far it is from the first line with ink to the last."""
    return lines.shape[1] - lines.argmax(1) - lines[:, ::-1].argmax(1)


def test_the_images_of_a_class_differ_from_each_other(data):
    images = data.images.reshape(len(data.characters), 20, -1)
    for first in range(20):
        for second in range(first):
            assert (images[:, first] != images[:, second]).any(axis=1).all()


def test_no_two_classes_have_the_same_picture(data):
    """Draws the characters with matplotlib, which glyphs() does not."""
    pictures = np.stack([draw(character) for character in data.characters])
    likeness = pictures @ pictures.T
    np.fill_diagonal(likeness, 0)
    assert likeness.max() < 0.99
    # What the same picture is like, so that the bound means something.
    assert draw("A") @ draw("\N{GREEK CAPITAL LETTER ALPHA}") > 0.999


def draw(character):
    """Returns a picture 20 pixels long, as a vector of length 1.

    A character without a glyph fails here, too.
    """
    from PIL import Image

    for face in ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral"):
        font = load_face(face)
        if font.get_char_index(ord(character)):
            break
    else:
        raise AssertionError(f"No face has {character!r}.")
    font.set_text(character)
    font.draw_glyphs_to_bitmap(antialiased=True)
    picture = Image.fromarray(np.array(font.get_image()))
    picture = picture.crop(picture.getbbox())
    scale = 20 / max(picture.size)
    width, height = (max(1, round(scale * side)) for side in picture.size)
    frame = Image.new("L", (20, 20))
    frame.paste(
        picture.resize((width, height), Image.Resampling.BOX),
        ((20 - width) // 2, (20 - height) // 2),
    )
    vector = np.asarray(frame, "float32").ravel()
    return vector / np.linalg.norm(vector)


@functools.cache
def load_face(face):
    from matplotlib import ft2font

    folder = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
    font = ft2font.FT2Font(os.path.join(folder, f"{face}.ttf"))
    font.set_size(60, 72)
    return font


def test_look_alikes_are_there_once(data):
    assert set("ABHOTX") <= set(data.characters)
    greek, cyrillic = "\u0391\u0392\u0397\u039f", "\u0410\u0412\u041d\u041e"
    small, bars, circles = "csvwxz", "\u01c0\u0406\u2223", "\u25cb\u25ef\u2d54"
    left_out = set(greek + cyrillic + small + bars + circles)
    assert not left_out & set(data.characters)


def test_marks_blanks_and_accented_letters_are_left_out(data):
    left_out = " .\u0301\u00a0\u00e9\u0439\u00b2\u2800\u0e31\ufffd"
    assert not set(left_out) & set(data.characters)


def test_a_class_depends_neither_on_other_classes_nor_on_the_run(
    data, few_scripts
):
    few = glyphs(cache=False)
    assert_same(few, glyphs(cache=False))
    images = data.images.reshape(-1, 20, 28, 28, 1)
    shared = set(few.characters) & set(data.characters)
    assert len(shared) > 10
    for number, character in enumerate(few.characters):
        if character in shared:
            np.testing.assert_array_equal(
                few.images[20 * number : 20 * number + 20],
                images[data.characters.index(character)],
            )


def test_another_seed_gives_other_images_of_the_same_classes(few_scripts):
    first = glyphs(cache=False)
    for seed in (1, -1, 2**40):
        second = glyphs(cache=False, seed=seed)
        assert first.characters == second.characters
        assert first.scripts == second.scripts
        differ = (first.images != second.images).any(axis=(1, 2, 3))
        assert differ.all()


@pytest.mark.parametrize("examples, size", [(1, 28), (3, 8), (2, 45)])
def test_any_number_and_size_of_images(few_scripts, examples, size):
    standard = glyphs(cache=False)
    other = glyphs(examples, size, cache=False)
    assert other.characters == standard.characters
    count = examples * len(other.characters)
    assert other.images.shape == (count, size, size, 1)
    assert other.labels.shape == (count,)
    assert other.images.max(axis=(1, 2, 3)).min() > 100


def test_the_scripts_split_the_classes(data):
    train, test = class_split(data.labels, groups=data.scripts)
    scripts = np.array(data.scripts)
    assert not set(scripts[train]) & set(scripts[test])
    assert 0.1 < len(test) / len(scripts) < 0.3


def test_pixels_tell_classes_apart_but_not_well(data):
    """5-way 1-shot by the nearest neighbor, chance being 20 %."""
    generator = np.random.default_rng(0)
    images = data.images.reshape(len(data.characters), 20, -1) / np.float32(255)
    accuracies = []
    for _ in range(1000):
        chosen = generator.choice(len(images), 5, replace=False)
        support, query = generator.choice(20, 2, replace=False)
        supports, queries = images[chosen, support], images[chosen, query]
        distances = ((queries[:, None] - supports) ** 2).sum(-1)
        accuracies.append((distances.argmin(1) == np.arange(5)).mean())
    assert 0.35 < np.mean(accuracies) < 0.85


def test_the_second_call_reads_the_cache(cache_folder, builds):
    drawn = glyphs()
    assert [path.suffix for path in cache_folder.iterdir()] == [".npz"]
    assert_same(drawn, glyphs())
    assert len(builds) == 1
    assert_same(drawn, glyphs(cache=False))
    assert len(builds) == 2


def test_without_cache_nothing_is_written(cache_folder):
    glyphs(examples=1, cache=False)
    assert not cache_folder.exists()


def test_other_settings_are_drawn_anew(cache_folder, builds, monkeypatch):
    settings = [{}, {"examples": 3}, {"size": 20}, {"seed": 1}]
    for setting in settings:
        glyphs(**setting)
        glyphs(**setting)
    assert len(builds) == 4
    for module, name in (
        ("matplotlib", "__version__"),
        ("PIL", "__version__"),
        ("keras_meta.episodes.glyph_images", "_VERSION"),
        ("keras_meta.episodes.glyph_images", "_FACES"),
    ):
        with monkeypatch.context() as patch:
            other = ("DejaVuSans",) if name == "_FACES" else "0"
            patch.setattr(sys.modules[module], name, other)
            glyphs()
    assert len(builds) == 8
    assert len(list(cache_folder.iterdir())) == 8
    glyphs()
    assert len(builds) == 8


def _cut(contents):
    return contents[: len(contents) // 2]


def _flip(contents):
    middle = len(contents) // 2
    return contents[:middle] + b"glyph" + contents[middle + 5 :]


@pytest.mark.parametrize(
    "damage", [_cut, _flip, lambda _: b"", lambda _: b"not an archive"]
)
def test_a_damaged_cache_is_drawn_anew(cache_folder, builds, damage):
    drawn = glyphs()
    (path,) = cache_folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert_same(drawn, glyphs())
    assert len(builds) == 2
    assert_same(drawn, glyphs())
    assert len(builds) == 2
    assert list(cache_folder.iterdir()) == [path]


def test_the_cache_holds_no_pickle(cache_folder):
    drawn = glyphs(examples=2)
    (path,) = cache_folder.iterdir()
    with np.load(path, allow_pickle=False) as kept:
        assert sorted(kept) == ["characters", "images", "scripts"]
        np.testing.assert_array_equal(kept["images"], drawn.images)


def test_two_may_build_at_once(cache_folder):
    with futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: glyphs(examples=2), range(4)))
    for result in results[1:]:
        assert_same(results[0], result)
    assert len(list(cache_folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written_costs_only_the_cache(
    tmp_path, monkeypatch, few_scripts
):
    # Not even the superuser of a test machine can write below a file.
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("KERAS_HOME", str(file))
    with pytest.warns(UserWarning, match="Set KERAS_HOME"):
        drawn = glyphs(examples=2)
    assert_same(drawn, glyphs(examples=2, cache=False))


@pytest.mark.parametrize("name", ["savez_compressed", "replace"])
def test_a_write_that_fails_leaves_nothing_behind(
    cache_folder, monkeypatch, name
):
    def fail(file, *_, **__):
        if name == "savez_compressed":
            file.write(b"half a")
        raise OSError("No space left on device")

    owner = np if name == "savez_compressed" else os
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.warns(UserWarning, match="No space left"):
            drawn = glyphs(examples=2)
    assert not list(cache_folder.iterdir())
    assert_same(drawn, glyphs(examples=2))


def test_the_cache_is_in_the_home_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = glyphs_module._cache_path(20, 28, 0)
    folder = tmp_path / ".keras" / "datasets" / "keras_meta"
    assert os.path.dirname(path) == str(folder)


@pytest.mark.parametrize(
    "bad",
    [
        {"examples": 0},
        {"examples": 2.0},
        {"examples": True},
        {"size": -28},
        {"size": "28"},
        {"size": 7},
        {"seed": 0.5},
        {"seed": None},
    ],
)
def test_bad_arguments_raise(bad):
    ((name, value),) = bad.items()
    with pytest.raises(
        ValueError, match=f"`{name}` must be .*: {name}={value!r}"
    ):
        glyphs(**bad, cache=False)


@pytest.mark.parametrize("name", ["examples", "size", "seed"])
def test_numpy_integers_are_integers(cache_folder, builds, name):
    arguments = {"examples": 2, "size": 12, "seed": 3}
    drawn = glyphs(**arguments)
    arguments[name] = np.int64(arguments[name])
    assert_same(drawn, glyphs(**arguments))
    assert len(builds) == 1


@pytest.mark.parametrize("name", ["matplotlib", "PIL"])
def test_without_its_libraries_it_says_what_to_install(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"keras-meta\[visualization\]"):
        glyphs()


def test_the_libraries_are_imported_only_inside_functions():
    tree = ast.parse(inspect.getsource(glyphs_module))
    imports = (ast.Import, ast.ImportFrom)
    outside = [node for node in tree.body if isinstance(node, imports)]
    outside = " ".join(ast.unparse(node) for node in outside)
    assert "matplotlib" not in outside and "PIL" not in outside
    everywhere = ast.unparse(tree)
    assert "pyplot" not in everywhere and "rcParams" not in everywhere
