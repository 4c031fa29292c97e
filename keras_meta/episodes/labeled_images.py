import collections
import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import threading
import warnings
import zipfile

import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import whole_files
from keras_meta.episodes.reading_progress import reading_progress

# What operating systems leave in folders and archives by themselves.
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")


class LabeledImages(
    collections.namedtuple(
        "LabeledImages", ["images", "labels", "classes", "groups", "files"]
    )
):
    """Images from a folder or an archive, with a number for each class.

    Attributes:
        images: Array `[examples, height, width, channels]`, uint8.
        labels: Integer array `[examples]`, 0 to the number of classes - 1.
        classes: List of strings, the name of each class.
        groups: List of strings, the group of each class: the folder that its
            folder is in, such as the alphabet of a character.
        files: List of strings, the name of each example's file, from the
            folder or archive that was read.
    """

    __slots__ = ()


def image_folders(
    path,
    image_size=None,
    color="rgb",
    on_error="raise",
    cache=None,
    verbose=True,
):
    """Reads a folder, or a zip archive, of one folder of images per class.

    The folders of the classes may lie in folders of groups, as the
    characters of the Omniglot repository lie in their alphabets; an archive
    is read as it is. Images (PNG, JPEG, GIF and BMP) are decoded in
    parallel, in the order of their names.

    Args:
        path: String or path, the folder or the zip archive.
        image_size: Tuple of integers, `(height, width)`, to which each image
            is resized: by the mean of an area where it shrinks, else
            bilinear. `None` (the default) keeps the size, which must then be
            the same for all.
        color: `"rgb"` (the default) or `"grayscale"`.
        on_error: What to do about a file that is damaged or no image:
            `"raise"` (the default), or `"skip"`, which warns how many there
            were and names the first. Files beside the folders of the classes
            are skipped, too.
        cache: Optional string or path of a file to keep the decoded images
            in, outside the folder. The next call reads them from there, as
            long as the names, sizes and times of the files and the settings
            are the same.
        verbose: Boolean, whether to draw a progress bar where reading takes
            long. Defaults to `True`.

    Returns:
        A `LabeledImages`, with the attributes `images`, `labels`, `classes`,
        `groups` and `files`.

    Raises:
        FileNotFoundError: Where there is nothing at the path.
        ValueError: Where a file is not an image or is damaged (it is named),
            where an archive holds two files of one name or one that points
            outside it, where the folder of a class is empty, where an image
            is in no folder of a class or beside folders of images, where the
            sizes differ, or where `cache` is in the folder or a file of
            another kind.

    Example:

    ```python
    import os

    for name in ("cat", "dog"):
        os.makedirs(f"animals/{name}")
        pixels = np.random.randint(0, 256, size=(32, 32, 3))
        keras.utils.save_img(f"animals/{name}/1.png", pixels)
        keras.utils.save_img(f"animals/{name}/2.png", pixels)

    animals = keras_meta.episodes.image_folders("animals", image_size=(28, 28))
    episodes = keras_meta.episodes.from_arrays(
        animals.images, animals.labels, ways=2, shots=1, queries=1
    )
    ```
    """
    channels = channels_of(color)
    if image_size is not None:
        check_image_size(image_size)
        image_size = tuple(int(size) for size in image_size)
    arguments.check_choice("on_error", on_error, ("raise", "skip"))
    path = pathlib.Path(path)
    _check_cache(path, cache)
    error = None
    with _opened(path) as source:
        _check_names(path, source, on_error)
        fingerprint = hashlib.sha256(
            repr((source.versions, image_size, channels, on_error)).encode()
        ).hexdigest()
        found = None if cache is None else _read_cache(cache, fingerprint)
        if found is None:
            images, names, error = _read(
                path, source, channels, image_size, on_error, verbose
            )
            found = images, names
            if cache is not None:
                _write_cache(cache, fingerprint, found)
    images, names = found
    if len(names) < len(source.names):
        _warn_of_skipped(path, source.names, names, error)
    return LabeledImages(images, *_classes_of(path, names), names)


def class_folders(path):
    """Tells the classes of a folder or an archive, by the names of its files.

    Args:
        path: String or path, the folder or the zip archive.

    Returns:
        A tuple of the labels, the names of the classes and their groups, as
        `image_folders()` returns them.
    """
    path = pathlib.Path(path)
    with _opened(path) as source:
        _check_names(path, source, "raise")
    return _classes_of(path, source.names)


def _classes_of(path, names):
    """Returns the labels of files, the names of the classes, their groups."""
    classes, labels = np.unique(
        [_folder_of(name) for name in names], return_inverse=True
    )
    groups = _groups(path, classes)
    class_names = [
        f"{group}/{folder.split('/')[-1]}"
        for group, folder in zip(groups, classes)
    ]
    return labels, class_names, groups


def _read(path, source, channels, image_size, on_error, verbose):
    """Returns the images as one array, their names, and the first error."""

    def read(name):
        try:
            _check_place(path, name)
            content = source.read(name)
            return decode(content, f"{path}: {name}", channels, image_size)
        except ValueError as error:
            if on_error == "raise":
                raise
            return error

    images, names, errors = [], [], []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # A generator, so that an error does not wait for all the others.
        results = pool.map(read, source.names)
        results = reading_progress(results, len(source.names), verbose)
        try:
            # The results first, so that the progress bar sees their end.
            for result, name in zip(results, source.names):
                if isinstance(result, ValueError):
                    errors.append(result)
                    continue
                images.append(result)
                names.append(name)
                _check_same_size(images, names)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if errors:
        _check_left(path, source.names, names, errors[0])
    return np.stack(images), names, errors[0] if errors else None


def _check_same_size(images, names):
    """Checks the last image, so that the others need not be decoded."""
    if images[-1].shape != images[0].shape:
        raise ValueError(
            "The images must have the same size. Received: "
            f"{names[0]} of shape {images[0].shape} and {names[-1]} of shape "
            f"{images[-1].shape}. Pass `image_size=(height, width)`."
        )


def _check_left(path, names, left, error):
    """Checks what is left where files were skipped."""
    if not left:
        raise ValueError(
            f"There must be folders of images. Received: {path}, of which "
            f"every file was skipped. The first: {error}"
        )
    # A text beside the folders of classes is no class that was lost.
    kept = set(_folders_above(left))
    lost = sorted({_folder_of(name) for name in names} - kept)
    if lost:
        raise ValueError(
            "Every class must have an image that can be read. Received: "
            f"{path}: {lost[0]}, where all are damaged: {error}"
        )
    _check_levels(path, left)


def _warn_of_skipped(path, names, left, error):
    # A cache does not tell what was wrong with them.
    first = error or f"{path}: {sorted({*names} - {*left})[0]}."
    warnings.warn(
        f"{len(names) - len(left)} of {len(names)} files were skipped. The "
        f"first: {first}",
        stacklevel=3,
    )


def _check_cache(path, cache):
    if cache is None or not path.is_dir():
        return
    if pathlib.Path(cache).resolve().is_relative_to(path.resolve()):
        # The next time it would be taken for an image.
        raise ValueError(
            "`cache` must lie outside the folder of the images. Received: "
            f"cache={os.fspath(cache)!r} in {path}. Name a file elsewhere."
        )


_CACHE_ARRAYS = ("fingerprint", "images", "names")


def _read_cache(path, fingerprint):
    """Returns images and names, or `None` where they are of other files."""
    if not os.path.exists(path):
        return None
    try:
        with open(path, "rb") as file:
            arrays = np.load(file, allow_pickle=False)
            found, images, names = (arrays[name] for name in _CACHE_ARRAYS)
    except Exception as error:
        # There is no end to what wrong bytes make a reader raise.
        raise ValueError(
            "`cache` must be a file that `image_folders()` wrote, or one that "
            f"is not there yet. Received: cache={os.fspath(path)!r}, which is "
            "damaged or something else. Remove it, or name another."
        ) from error
    if str(found) != fingerprint:
        return None
    return images, names.tolist()


def _write_cache(path, fingerprint, found):
    arrays = dict(zip(_CACHE_ARRAYS, (np.array(fingerprint), *found)))
    try:
        with whole_files.writing(os.fspath(path)) as file:
            np.savez(file, **arrays)
    except OSError as error:
        # The images were read, which may have taken long.
        warnings.warn(
            f"The images could not be kept in {os.fspath(path)} and will be "
            f"read again the next time: {error}.",
            stacklevel=3,
        )


def check_image_size(image_size):
    """Raises a `ValueError` where it is not `(height, width)`."""
    if np.ndim(image_size) != 1 or len(image_size) != 2:
        raise ValueError(
            "`image_size` must be `(height, width)`. Received: "
            f"image_size={image_size!r}."
        )
    for size in image_size:
        arguments.check_positive_integer("image_size", size)


def channels_of(color):
    """Returns the number of channels of "rgb" or "grayscale"."""
    channels = {"rgb": 3, "grayscale": 1}
    arguments.check_choice("color", color, tuple(channels))
    return channels[color]


def is_litter(name):
    """Whether systems leave a file or folder of this name by themselves."""
    return name.startswith(".") or name in _LITTER


def decode(content, name, channels, image_size=None):
    """Returns an image as an array `[height, width, channels]`, uint8.

    Args:
        content: Bytes, an image file.
        name: String, what to call the file in an error.
        channels: Integer, 1 or 3.
        image_size: Optional tuple, `(height, width)`.
    """
    try:
        try:
            image = _decode(content, channels)
        except tf.errors.OpError:
            if channels == 3:
                raise
            # GIF, and some BMP and JPEG, are not decoded to gray.
            image = tf.image.rgb_to_grayscale(_decode(content, 3))
    except tf.errors.OpError as error:
        raise ValueError(
            "Every file must be an image that can be read (PNG, JPEG, GIF or "
            f"BMP). Received: {name}, which is damaged or no image. Mend or "
            "remove it."
        ) from error
    if image_size is None or tuple(image.shape[:2]) == tuple(image_size):
        return image.numpy()
    return resize(image, image_size).numpy()


def resize(image, image_size):
    """Returns an image `[height, width, channels]` resized, uint8.

    By the mean of an area where it shrinks, else bilinear; also in a graph,
    where the size of the image may not be known yet.
    """

    def by(method):
        resized = tf.image.resize(image[None], image_size, method)[0]
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), "uint8")

    if image.shape[:2].is_fully_defined():
        shrinks = all(new <= old for new, old in zip(image_size, image.shape))
        return by("area" if shrinks else "bilinear")
    return tf.cond(
        tf.reduce_all(tf.shape(image)[:2] >= image_size),
        lambda: by("area"),
        lambda: by("bilinear"),
    )


def _decode(content, channels):
    return tf.io.decode_image(content, channels, expand_animations=False)


_Source = collections.namedtuple(
    "_Source", ["names", "folders", "versions", "read"]
)
_Source.__doc__ = """Files by name, from a folder or an archive.

Attributes:
    names: List of strings, sorted.
    folders: Set of strings, the folders that are there.
    versions: List, what changes when a file does.
    read: Function from a name to bytes, from many threads. Raises a
        `ValueError` where the file is damaged.
"""


@contextlib.contextmanager
def _opened(path):
    """Gives a `_Source`, to be read from until the end of the block."""
    if path.is_dir():
        yield _open_folder(path)
        return
    if not path.exists():
        raise FileNotFoundError(
            f"`path` must be a folder or a zip archive. Received: {path}, "
            "where there is nothing."
        )
    # A file that cannot be opened is an error of its own.
    with path.open("rb") as file:
        try:
            source = _open_archive(path, zipfile.ZipFile(file))
        except Exception as error:
            # There is no end to what wrong bytes make a reader raise.
            raise ValueError(
                f"`path` must be a folder or a zip archive. Received: {path}: "
                f"{error}."
            ) from error
        yield source


def _open_folder(path):
    names, folders = [], []
    for folder, inner, files in _walk(path):
        place = pathlib.Path(folder).relative_to(path)
        names.extend((place / name).as_posix() for name in files)
        folders.extend((place / name).as_posix() for name in inner)
    names = _without_litter(names)

    def read(name):
        # A pipe, say, would never end.
        if not (path / name).is_file():
            raise ValueError(
                "Every file must be an image that can be read. Received: "
                f"{path}: {name}, which is a broken link or no file. Mend or "
                "remove it."
            )
        return (path / name).read_bytes()

    return _Source(
        names,
        set(_without_litter(folders)),
        [(name, *_version(path / name)) for name in names],
        read,
    )


def _walk(path):
    """Walks a folder as `os.walk()` does, and links to other folders."""

    def fail(error):
        # A folder that cannot be listed would be left out in silence.
        raise error

    real = pathlib.Path(path).resolve()
    above = {os.fspath(path): {real, *real.parents}}
    for folder, inner, files in os.walk(path, onerror=fail, followlinks=True):
        outer = above.pop(folder)
        for name in list(inner):
            place = os.path.join(folder, name)
            real = pathlib.Path(place).resolve()
            if real in outer or is_litter(name):
                # A link to a folder that it lies in leads nowhere new.
                inner.remove(name)
            else:
                above[place] = {real, *outer}
        yield folder, inner, files


def _version(file):
    try:
        status = file.stat()
    except OSError:
        # A link to nothing.
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _open_archive(path, archive):
    entries, folders = {}, []
    for entry in archive.infolist():
        # As some programs for Windows write them.
        name = entry.filename.replace("\\", "/")
        # Nothing is unpacked here, but such an archive means no good.
        drive = pathlib.PureWindowsPath(name).drive
        if drive or name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"its entry {name} points outside it")
        if name.endswith("/"):
            folders.append(name[:-1])
            continue
        if name in entries:
            raise ValueError(f"it holds two files named {name}")
        entries[name] = entry
    # One after another: what is slow is to decode.
    lock = threading.Lock()

    def read(name):
        try:
            with lock:
                return archive.read(entries[name])
        except Exception as error:
            # There is no end to what wrong bytes make a reader raise.
            raise ValueError(
                "Every file of an archive must be whole. Received: "
                f"{path}: {name}, which is damaged ({error}). Mend the "
                "archive, or leave such files out with `on_error='skip'`."
            ) from error

    names = _without_litter(entries)
    versions = [
        (name, entries[name].file_size, entries[name].CRC) for name in names
    ]
    # What is mended has the sum again that it should have had.
    versions.append(_version(path))
    return _Source(names, set(_without_litter(folders)), versions, read)


def _without_litter(names):
    return sorted(
        name for name in names if not any(map(is_litter, name.split("/")))
    )


def _folder_of(name):
    return str(pathlib.PurePosixPath(name).parent)


def _folders_above(names):
    """Yields the folders that the files and folders lie in, at any depth."""
    for name in names:
        yield from map(str, pathlib.PurePosixPath(name).parents)


def _check_names(path, source, on_error):
    if not source.names:
        raise ValueError(
            f"There must be folders of images. Received: {path}, which holds "
            "no file."
        )
    empty = source.folders - {*_folders_above([*source.names, *source.folders])}
    if empty:
        raise ValueError(
            "Every class must have an image. Received: "
            f"{path}: {min(empty)}, which is empty. Fill or remove it."
        )
    if on_error == "raise":
        # Else those that are no images are skipped first.
        for name in source.names:
            _check_place(path, name)
        _check_levels(path, source.names)


def _check_place(path, name):
    if "/" not in name:
        raise ValueError(
            "Every image must lie in the folder of its class. Received: "
            f"{path}: {name}, which lies in none. Move or remove it."
        )


def _check_levels(path, names):
    """Checks that no folder is a class and a group at once."""
    holders = {_folder_of(name): name for name in reversed(names)}
    for folder, name in sorted(holders.items()):
        for above in _folders_above([folder]):
            if above in holders:
                raise ValueError(
                    "A folder must hold images, or folders of images, but "
                    f"not both. Received: {path}: {above}, which holds "
                    f"{holders[above]} and {name}. Move the files of {above} "
                    "to a folder of their own, or remove them."
                )


def _groups(path, folders):
    """Returns the folder that each folder is in, named as short as can be."""
    parents = [folder.split("/")[:-1] for folder in folders]
    shared = 0
    while all(
        len(parent) > shared + 1 and parent[shared] == parents[0][shared]
        for parent in parents
    ):
        shared += 1
    groups = ["/".join(parent[shared:]) for parent in parents]
    if "" in groups and path.stem in groups:
        # They would be one group, and two classes might have one name.
        raise ValueError(
            "A folder of classes must not be called what the whole is, where "
            f"other classes lie beside it. Received: {path}: "
            f"{folders[groups.index('')]} and "
            f"{folders[groups.index(path.stem)]}. Rename or move the folder "
            f"{path.stem}."
        )
    # The classes may lie in the folder itself.
    return [group or path.stem for group in groups]
