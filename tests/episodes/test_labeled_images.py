import io
import pathlib
import zipfile

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import keras_meta

OMNIGLOT = pathlib.Path(__file__).parents[3] / "shared" / "data" / "omniglot"


def png(value, size=(6, 6), channels=1):
    pixels = np.full((*size, channels), value, "uint8")
    return tf.io.encode_png(pixels).numpy()


def alphabets():
    """Two groups of two classes of three images, each of its own gray."""
    files = {}
    for group in ("Greek", "Latin"):
        for character in ("character01", "character02"):
            for drawer in range(3):
                name = f"{group}/{character}/{drawer:02d}.png"
                files[name] = png(10 * len(files))
    return files


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_folder_and_zip_give_the_same(tmp_path):
    files = alphabets()
    folder = write_folder(tmp_path / "folder", files)
    archive = write_zip(
        tmp_path / "images.zip",
        {f"images/{name}": content for name, content in files.items()},
    )
    from_folder = keras_meta.episodes.image_folders(folder, color="grayscale")
    from_zip = keras_meta.episodes.image_folders(archive, color="grayscale")
    for read in (from_folder, from_zip):
        assert read.images.shape == (12, 6, 6, 1)
        assert read.images.dtype == np.uint8
        np.testing.assert_array_equal(
            read.images[:, 0, 0, 0], np.arange(12) * 10
        )
        np.testing.assert_array_equal(read.labels, np.repeat(np.arange(4), 3))
        assert read.groups == ["Greek", "Greek", "Latin", "Latin"]
        assert read.classes[2] == "Latin/character01"
    assert from_folder.files == sorted(files)
    assert from_zip.files[0] == "images/Greek/character01/00.png"


def test_classes_without_groups_are_in_the_group_of_their_folder(tmp_path):
    files = {f"{name}/1.png": png(0) for name in ("cat", "dog")}
    read = keras_meta.episodes.image_folders(
        write_folder(tmp_path / "animals", files)
    )
    assert read.classes == ["animals/cat", "animals/dog"]
    assert read.groups == ["animals", "animals"]
    assert read.images.shape == (2, 6, 6, 3)


def test_classes_of_one_name_in_two_groups_are_two(tmp_path):
    files = {
        "data/train/a/1.png": png(0),
        "data/test/a/1.png": png(1),
    }
    read = keras_meta.episodes.image_folders(write_zip(tmp_path / "z", files))
    assert read.classes == ["test/a", "train/a"]


def test_resizes_by_the_mean_of_an_area(tmp_path):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, size=(8, 12, 1)).astype("uint8")
    files = {"group/class/1.png": tf.io.encode_png(pixels).numpy()}
    folder = write_folder(tmp_path, files)
    read = keras_meta.episodes.image_folders(
        folder, image_size=(4, 4), color="grayscale"
    )
    means = pixels.reshape(4, 2, 4, 3).mean(axis=(1, 3))
    assert np.abs(read.images[0, :, :, 0] - means).max() <= 0.5
    larger = keras_meta.episodes.image_folders(folder, image_size=(16, 24))
    assert larger.images.shape == (1, 16, 24, 3)


@pytest.mark.parametrize("color", ["grayscale", "rgb"])
@pytest.mark.parametrize(
    "format, mode",
    [
        *[(format, "L") for format in ("BMP", "GIF", "JPEG", "PNG")],
        *[(format, "RGB") for format in ("BMP", "GIF", "JPEG", "PNG")],
        ("BMP", "RGBA"),
        ("JPEG", "CMYK"),
        ("PNG", "RGBA"),
    ],
)
def test_decodes_each_kind_of_image(tmp_path, format, mode, color):
    # Of one color, which the palette of a GIF then holds.
    drawn = PIL.Image.new("RGB", (5, 4), (255, 102, 0)).convert(mode)
    file = io.BytesIO()
    drawn.save(file, format)
    (tmp_path / "class").mkdir()
    (tmp_path / "class/1").write_bytes(file.getvalue())
    read = keras_meta.episodes.image_folders(tmp_path, color=color)
    expected = np.asarray(drawn.convert({"grayscale": "L"}.get(color, "RGB")))
    expected = expected.reshape(1, 4, 5, -1)
    assert read.images.shape == expected.shape
    assert read.images.dtype == np.uint8
    np.testing.assert_allclose(read.images, expected.astype("float"), atol=3)


def test_system_files_are_passed_over(tmp_path):
    files = alphabets()
    litter = (".DS_Store", "__MACOSX/Greek/._00.png", "Greek/Thumbs.db")
    for name in litter:
        files[name] = b"no image"
    read = keras_meta.episodes.image_folders(write_zip(tmp_path / "z", files))
    assert len(read.images) == 12


def test_feeds_episodes(tmp_path):
    read = keras_meta.episodes.image_folders(
        write_folder(tmp_path, alphabets())
    )
    train, test = keras_meta.episodes.class_split(
        read.labels, (0.5, 0.5), groups=read.groups
    )
    episodes = keras_meta.episodes.from_arrays(
        read.images, read.labels, ways=2, shots=1, queries=2, classes=train
    )
    x, _ = next(iter(episodes))
    assert x["support_x"].shape == (32, 2, 6, 6, 3)
    assert {read.groups[label] for label in train}.isdisjoint(
        read.groups[label] for label in test
    )


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("content", [b"", b"words", png(3)[:40]])
def test_names_the_file_that_is_no_image(tmp_path, content, as_zip):
    files = {**alphabets(), "Latin/character02/notes.png": content}
    write = write_zip if as_zip else write_folder
    path = write(tmp_path / "data", files)
    with pytest.raises(ValueError, match="Received: .*data: Latin/.*notes.png"):
        keras_meta.episodes.image_folders(path)


def test_names_the_damaged_member_of_an_archive(tmp_path):
    path = write_zip(tmp_path / "data.zip", alphabets())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("Latin/character01/01.png")
    start = info.header_offset + 30 + len(info.filename)
    content[start : start + info.compress_size] = bytes(info.compress_size)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="data.zip.*Latin/character01/01.png"):
        keras_meta.episodes.image_folders(path)


def test_refuses_a_truncated_archive(tmp_path):
    path = write_zip(tmp_path / "data.zip", alphabets())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="zip archive. Received: .*data.zip"):
        keras_meta.episodes.image_folders(path)


def test_any_damaged_bytes_of_an_archive_name_it(tmp_path):
    files = {f"{name}/1.png": png(9, (2, 2)) for name in ("cat", "dog")}
    path = write_zip(tmp_path / "good.zip", files)
    contents = np.frombuffer(path.read_bytes(), "uint8")
    path = tmp_path / "damaged.zip"
    generator = np.random.default_rng(0)
    read = 0
    for number in range(600):
        damaged = contents.copy()
        places = generator.integers(0, len(contents), 1 + number % 3)
        damaged[places] = generator.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        try:
            keras_meta.episodes.image_folders(path)
            read += 1
        except (TypeError, ValueError) as error:
            assert "damaged.zip" in str(error)
    # Some bytes, such as those of a date, do not matter.
    assert 0 < read < 300


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_two_files_of_one_name(tmp_path):
    path = write_zip(tmp_path / "data.zip", alphabets())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("Greek/character01/00.png", png(77))
    with pytest.raises(
        ValueError, match="data.zip: it holds two files named G"
    ):
        keras_meta.episodes.image_folders(path)


@pytest.mark.parametrize(
    "files, arguments, message",
    [
        ({}, {}, "holds no file"),
        ({"1.png": png(0)}, {}, "1.png, which lies in none"),
        (
            {"a/b/1.png": png(0), "a/b/2.png": png(0, (5, 6))},
            {},
            "same size. Received: .*2.png of shape",
        ),
        ({"a/b/1.png": png(0)}, {"image_size": 28}, "image_size=28"),
        ({"a/b/1.png": png(0)}, {"image_size": (28, 0)}, "Received"),
        ({"a/b/1.png": png(0)}, {"color": "blue"}, "color='blue'"),
    ],
)
def test_refuses(tmp_path, files, arguments, message):
    folder = write_folder(tmp_path, files)
    with pytest.raises(ValueError, match=message):
        keras_meta.episodes.image_folders(folder, **arguments)


def test_refuses_a_path_with_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere, where there is noth"):
        keras_meta.episodes.image_folders(tmp_path / "nowhere")


@pytest.mark.skipif(
    not OMNIGLOT.is_dir(), reason="The Omniglot archives are not there."
)
def test_reads_the_archives_of_omniglot():
    read = keras_meta.episodes.image_folders(
        OMNIGLOT / "images_background_small1.zip",
        image_size=(28, 28),
        color="grayscale",
    )
    assert read.images.shape == (2720, 28, 28, 1)
    alphabets, sizes = np.unique(read.groups, return_counts=True)
    assert dict(zip(alphabets.tolist(), sizes.tolist())) == {
        "Balinese": 24,
        "Early_Aramaic": 22,
        "Greek": 24,
        "Korean": 40,
        "Latin": 26,
    }
    assert np.all(np.bincount(read.labels) == 20)
    # Black strokes on white.
    assert read.images.mean() > 200
