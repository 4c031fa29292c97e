import errno
import os
import time
import warnings
import zipfile

import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta.episodes import labeled_images
from keras_meta.episodes import reading_progress
from tests.episodes.test_labeled_images import alphabets
from tests.episodes.test_labeled_images import png
from tests.episodes.test_labeled_images import write_folder
from tests.episodes.test_labeled_images import write_zip

GRAY = dict(color="grayscale", episodes=20, meta_batch_size=4)


def batches(dataset):
    return [
        [np.asarray(leaf) for leaf in (x["support_x"], x["query_x"], y)]
        for x, y in dataset
    ]


def check_same(one, other):
    for batch, expected in zip(batches(one), batches(other), strict=True):
        for leaf, other_leaf in zip(batch, expected):
            np.testing.assert_array_equal(leaf, other_leaf)


def test_folder_and_archive_give_the_episodes_of_the_arrays(tmp_path):
    files = alphabets()
    folder = write_folder(tmp_path / "folder", files)
    archive = write_zip(tmp_path / "images.zip", files)
    images = np.stack([np.full((6, 6, 1), 10 * n, "uint8") for n in range(12)])
    expected = keras_meta.episodes.from_arrays(
        images,
        np.repeat(np.arange(4), 3),
        ways=3,
        shots=1,
        queries=2,
        episodes=20,
        meta_batch_size=4,
    )
    task = dict(ways=3, shots=1, queries=2)
    check_same(
        keras_meta.episodes.from_directory(folder, **task, **GRAY), expected
    )
    check_same(keras_meta.episodes.from_zip(archive, **task, **GRAY), expected)


def grays(dataset):
    """Returns which images were drawn, by their gray."""
    drawn = np.concatenate(
        [batch[0][..., 0, 0, 0] for batch in batches(dataset)]
    )
    return np.round(drawn * 25.5).astype(int)


def test_episodes_within_the_folder_of_a_group(tmp_path):
    folder = write_folder(tmp_path, alphabets())
    dataset = keras_meta.episodes.from_directory(
        folder, ways=2, shots=1, queries=2, within="group", **GRAY
    )
    groups = grays(dataset) // 6
    assert np.all(groups == groups[:, :1]) and set(np.unique(groups)) == {0, 1}


@pytest.mark.parametrize(
    "classes, expected",
    [
        (["Latin"], {2, 3}),
        (["Latin/character01", "Greek/character02"], {1, 2}),
        (["Greek", "Latin/character02"], {0, 1, 3}),
        ([0, 3], {0, 3}),
    ],
)
def test_classes_may_be_named(tmp_path, classes, expected):
    folder = write_folder(tmp_path, alphabets())
    dataset = keras_meta.episodes.from_directory(
        folder, ways=2, shots=1, queries=2, classes=classes, **GRAY
    )
    assert set(np.unique(grays(dataset) // 3)) == expected


def test_the_name_of_a_folder_alone_will_do_where_no_other_has_it(tmp_path):
    files = {
        f"{name}/{number}.png": png(10 * number)
        for name in ("cat", "cow", "dog")
        for number in range(2)
    }
    folder = write_folder(tmp_path, files)
    dataset = keras_meta.episodes.from_directory(
        folder, 2, 1, 1, classes=["cat", "dog"]
    )
    assert len(keras_meta.episodes.describe(dataset).classes) == 2
    with pytest.raises(ValueError, match="'bird'.*There are: .*'cat', 'cow'"):
        keras_meta.episodes.from_directory(
            folder, 2, 1, 1, classes=["cat", "bird"]
        )


def test_a_name_that_two_groups_share_is_not_enough(tmp_path):
    folder = write_folder(tmp_path, alphabets())
    with pytest.raises(ValueError, match="'character01'"):
        keras_meta.episodes.from_directory(
            folder, 2, 1, 1, classes=["character01", "Latin"]
        )


def test_groups_smaller_than_ways_are_an_error(tmp_path):
    folder = write_folder(tmp_path, alphabets())
    with pytest.raises(ValueError, match="ways=3, but 'Greek' has 2"):
        keras_meta.episodes.from_directory(folder, 3, 1, 2, within="group")


def test_each_kind_has_its_function(tmp_path):
    folder = write_folder(tmp_path / "folder", alphabets())
    archive = write_zip(tmp_path / "images.zip", alphabets())
    with pytest.raises(ValueError, match="is a file. Zip archives are read"):
        keras_meta.episodes.from_directory(archive, 2, 1, 2)
    with pytest.raises(ValueError, match="is a folder. Those are read"):
        keras_meta.episodes.from_zip(folder, 2, 1, 2)
    for function in (
        keras_meta.episodes.from_directory,
        keras_meta.episodes.from_zip,
    ):
        with pytest.raises(FileNotFoundError, match="there is nothing"):
            function(tmp_path / "absent", 2, 1, 2)
    text = tmp_path / "text.zip"
    text.write_text("no archive")
    with pytest.raises(ValueError, match="folder or a zip archive"):
        keras_meta.episodes.from_zip(text, 2, 1, 2)


def test_an_unknown_argument_is_an_error(tmp_path):
    folder = write_folder(tmp_path, alphabets())
    with pytest.raises(TypeError, match="way_s"):
        keras_meta.episodes.from_directory(folder, 2, 1, 2, way_s=3)


def truncated(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_damaged_images_are_named_or_skipped_and_counted(tmp_path, write):
    files = alphabets()
    whole = np.random.default_rng(0).integers(0, 256, (6, 6, 1))
    jpeg = tf.io.encode_jpeg(whole.astype("uint8")).numpy()
    files["Greek/character01/05.jpg"] = truncated(jpeg)
    files["Latin/character02/07.png"] = b"no image"
    path = write(tmp_path / "images", files)
    with pytest.raises(ValueError, match="character01/05.jpg, which is dam"):
        keras_meta.episodes.image_folders(path, color="grayscale")
    with pytest.warns(UserWarning, match="2 of 14 files were skipped.*05.jpg"):
        read = keras_meta.episodes.image_folders(
            path, color="grayscale", on_error="skip"
        )
    np.testing.assert_array_equal(read.images[:, 0, 0, 0], np.arange(12) * 10)
    np.testing.assert_array_equal(read.labels, np.repeat(np.arange(4), 3))
    assert "Greek/character01/05.jpg" not in " ".join(read.files)


@pytest.mark.parametrize("write", [write_folder, write_zip])
@pytest.mark.parametrize("name", ["README.txt", "Greek/README.txt"])
def test_files_beside_the_classes_are_skipped_and_counted(
    tmp_path, write, name
):
    path = write(tmp_path / "images", {**alphabets(), name: b"text"})
    with pytest.raises(ValueError, match="README.txt"):
        keras_meta.episodes.image_folders(path)
    with pytest.warns(UserWarning, match=f"1 of 13 files .*images: {name}"):
        read = keras_meta.episodes.image_folders(path, on_error="skip")
    assert len(read.images) == 12 and len(read.classes) == 4


def test_where_all_is_skipped_there_is_nothing(tmp_path):
    folder = write_folder(tmp_path, {"README.txt": b"text"})
    with pytest.raises(ValueError, match="every file was skipped.*README"):
        keras_meta.episodes.image_folders(folder, on_error="skip")


def test_a_damaged_entry_of_an_archive_is_skipped(tmp_path):
    path = write_zip(tmp_path / "data.zip", alphabets())
    whole = path.read_bytes()
    name = "Latin/character01/01.png"
    content = bytearray(whole)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    content[info.header_offset + 30 + len(name) + 5] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="^Every file of an archive must be"):
        keras_meta.episodes.image_folders(path)
    cache = tmp_path / "images.npz"
    settings = dict(on_error="skip", cache=cache)
    with pytest.warns(UserWarning, match=f"1 of 12 files .*data.zip: {name}"):
        read = keras_meta.episodes.image_folders(path, **settings)
    assert len(read.images) == 11
    # What is mended is no longer left out.
    path.write_bytes(whole)
    os.utime(path, (1, 1))
    read = keras_meta.episodes.image_folders(path, **settings)
    assert len(read.images) == 12


def test_a_class_without_a_good_image_is_an_error_even_so(tmp_path):
    files = {**alphabets(), "Greek/character03/01.png": b"no image"}
    folder = write_folder(tmp_path, files)
    with pytest.raises(ValueError, match="Greek/character03, where all are"):
        keras_meta.episodes.image_folders(folder, on_error="skip")


def test_an_empty_class_folder_is_an_error(tmp_path):
    folder = write_folder(tmp_path / "folder", alphabets())
    (folder / "Greek" / "character03").mkdir()
    with pytest.raises(ValueError, match="Greek/character03, which is empty"):
        keras_meta.episodes.from_directory(folder, 2, 1, 2)
    (folder / "Greek" / "character03" / ".DS_Store").write_bytes(b"litter")
    with pytest.raises(ValueError, match="Greek/character03, which is empty"):
        keras_meta.episodes.from_directory(folder, 2, 1, 2)
    archive = write_zip(tmp_path / "images.zip", alphabets())
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("Latin/character09/", b"")
    with pytest.raises(ValueError, match="Latin/character09, which is empty"):
        keras_meta.episodes.from_zip(archive, 2, 1, 2)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.png",
        "a/../../outside.png",
        "/etc/outside.png",
        "..\\outside.png",
        "C:/outside.png",
        "C:\\a\\outside.png",
    ],
)
def test_an_archive_that_points_outside_itself_is_refused(tmp_path, name):
    archive = write_zip(tmp_path / "z.zip", {**alphabets(), name: png(0)})
    with pytest.raises(ValueError, match="outside.png points outside it"):
        keras_meta.episodes.from_zip(archive, 2, 1, 2)


def test_archives_of_windows_are_read(tmp_path):
    files = {
        "cat\\": b"",
        "cat\\1.png": png(0),
        "dog\\1.png": png(1),
        "__MACOSX\\dog\\1.png": b"",
    }
    read = keras_meta.episodes.image_folders(write_zip(tmp_path / "z", files))
    assert read.classes == ["z/cat", "z/dog"]
    assert read.images[:, 0, 0, 0].tolist() == [0, 1]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    classes = write_folder(tmp_path / "kept", alphabets()) / "Greek"
    folder = tmp_path / "animals"
    folder.mkdir()
    for name in ("cat", "dog"):
        (folder / name).symlink_to(classes / "character01")
    (classes / "character01" / "again").symlink_to(folder)
    (classes / "character01" / "up").symlink_to(tmp_path)
    read = keras_meta.episodes.image_folders(folder)
    assert read.classes == ["animals/cat", "animals/dog"]
    assert read.files[3] == "dog/00.png" and len(read.files) == 6


def test_a_broken_link_is_named_or_skipped(tmp_path):
    folder = write_folder(tmp_path / "images", alphabets())
    (folder / "Greek/character01/9.png").symlink_to("nowhere")
    with pytest.raises(ValueError, match="character01/9.png, which is a brok"):
        keras_meta.episodes.image_folders(folder)
    with pytest.warns(UserWarning, match="1 of 13 files .*9.png"):
        read = keras_meta.episodes.image_folders(folder, on_error="skip")
    assert len(read.images) == 12


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "images", alphabets())
    scan = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("character02"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="character02"):
        keras_meta.episodes.image_folders(folder)


def test_sizes_that_differ_are_found_at_once(tmp_path, monkeypatch):
    files = {f"cat/{number:03d}.png": png(0) for number in range(300)}
    files["cat/001.png"] = png(0, (5, 6))
    folder = write_folder(tmp_path, files)
    calls = count_reads(monkeypatch)
    decode = labeled_images.decode

    def slow(content, name, *arguments):
        time.sleep(0.01)
        return decode(content, name, *arguments)

    monkeypatch.setattr(labeled_images, "decode", slow)
    with pytest.raises(ValueError, match="cat/000.png of .*cat/001.png of"):
        keras_meta.episodes.image_folders(folder)
    assert len(calls) < 200


@pytest.mark.parametrize("write", [write_folder, write_zip])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_images_beside_folders_of_images_are_an_error(
    tmp_path, write, on_error
):
    files = {
        "cat/1.png": png(0),
        "cat/kittens/1.png": png(0),
        "cat/kittens/2.png": png(0)[:20] if on_error == "skip" else png(0),
        "dog/1.png": png(0),
    }
    path = write(tmp_path / "animals", files)
    with pytest.raises(ValueError, match="both. Received: .*animals: cat, wh"):
        keras_meta.episodes.image_folders(path, on_error=on_error)


def test_a_group_must_not_be_called_what_the_whole_is(tmp_path):
    files = {"cat/1.png": png(0), "animals/cat/1.png": png(0)}
    folder = write_folder(tmp_path / "animals", files)
    with pytest.raises(ValueError, match="animals: cat and animals/cat. Ren"):
        keras_meta.episodes.image_folders(folder)


def count_reads(monkeypatch):
    calls = []
    decode = labeled_images.decode

    def counting(content, name, *arguments):
        calls.append(name)
        return decode(content, name, *arguments)

    monkeypatch.setattr(labeled_images, "decode", counting)
    return calls


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_a_cache_spares_decoding(tmp_path, monkeypatch, write):
    path = write(tmp_path / "images", alphabets())
    cache = tmp_path / "images.npz"
    calls = count_reads(monkeypatch)
    first = keras_meta.episodes.image_folders(path, cache=cache)
    assert len(calls) == 12
    second = keras_meta.episodes.image_folders(path, cache=cache)
    assert len(calls) == 12
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one, other)
    # Other settings and other files are read anew.
    keras_meta.episodes.image_folders(path, image_size=(3, 3), cache=cache)
    assert len(calls) == 24
    assert np.load(cache)["images"].shape == (12, 3, 3, 3)


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_a_cache_still_tells_what_was_skipped(tmp_path, write):
    files = {**alphabets(), "Latin/character02/07.png": b"no image"}
    path = write(tmp_path / "images", files)
    cache = tmp_path / "images.npz"
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 13 files .*07.png"):
            read = keras_meta.episodes.image_folders(
                path, on_error="skip", cache=cache
            )
        assert len(read.images) == 12


def test_a_cache_in_the_folder_is_refused(tmp_path):
    folder = write_folder(tmp_path / "images", alphabets())
    cache = folder / "Greek" / ".." / "images.npz"
    with pytest.raises(ValueError, match="`cache` must lie outside the fold"):
        keras_meta.episodes.image_folders(folder, cache=cache)
    assert not cache.exists()


def test_a_changed_file_is_read_anew(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "images", alphabets())
    cache = tmp_path / "images.npz"
    keras_meta.episodes.image_folders(folder, cache=cache)
    name = folder / "Greek/character01/00.png"
    name.write_bytes(png(77))
    os.utime(name, (1, 1))
    read = keras_meta.episodes.image_folders(folder, cache=cache)
    assert read.images[0, 0, 0, 0] == 77
    again = keras_meta.episodes.image_folders(folder, cache=cache)
    assert again.images[0, 0, 0, 0] == 77


def test_a_full_disk_loses_nothing_and_leaves_nothing(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "images", alphabets())
    cache = tmp_path / "images.npz"
    save = np.savez

    def fill(file, **arrays):
        save(file, **arrays)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", fill)
    with pytest.warns(UserWarning, match="could not be kept.*No space left"):
        read = keras_meta.episodes.image_folders(folder, cache=cache)
    assert read.images.shape == (12, 6, 6, 3)
    assert os.listdir(tmp_path) == ["images"]
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras_meta.episodes.image_folders(folder, cache=cache)
    assert cache.exists()


def test_a_file_that_is_no_cache_is_not_overwritten(tmp_path):
    folder = write_folder(tmp_path / "images", alphabets())
    cache = tmp_path / "thesis.txt"
    cache.write_text("years of work")
    with pytest.raises(ValueError, match="`cache` must be a file that"):
        keras_meta.episodes.image_folders(folder, cache=cache)
    assert cache.read_text() == "years of work"


def test_a_damaged_cache_is_told(tmp_path):
    folder = write_folder(tmp_path / "images", alphabets())
    cache = tmp_path / "images.npz"
    keras_meta.episodes.image_folders(folder, cache=cache)
    content = bytearray(cache.read_bytes())
    content[len(content) // 2] ^= 255
    for damaged in (bytes(content), truncated(bytes(content))):
        cache.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or something else"):
            keras_meta.episodes.image_folders(folder, cache=cache)


def test_long_reads_draw_a_progress_bar(tmp_path, monkeypatch, capsys):
    folder = write_folder(tmp_path, alphabets())
    monkeypatch.setattr(reading_progress, "_PATIENCE", 0.0)
    keras_meta.episodes.image_folders(folder, verbose=False)
    assert not capsys.readouterr().out
    keras_meta.episodes.image_folders(folder)
    assert "12/12" in capsys.readouterr().out
