import collections
import concurrent.futures
import hashlib
import os
import pathlib
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
            were and names the first.
        cache: Optional string or path of a file to keep the decoded images
            in. The next call reads them from there, as long as the names,
            sizes and times of the files and the settings are the same.
        verbose: Boolean, whether to draw a progress bar where reading takes
            long. Defaults to `True`.

    Returns:
        A `LabeledImages`, with the attributes `images`, `labels`, `classes`,
        `groups` and `files`.

    Raises:
        FileNotFoundError: Where there is nothing at the path.
        ValueError: Where a file is not an image or is damaged (it is named),
            where an archive holds two files of one name or one that points
            outside it, where the folder of a class is empty, where there is
            no image in a folder of its class, where the sizes differ, or
            where `cache` is a file of another kind.

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
    source = _open(path)
    _check_names(path, source)
    fingerprint = hashlib.sha256(
        repr((source.versions, image_size, channels, on_error)).encode()
    ).hexdigest()
    found = None if cache is None else _read_cache(cache, fingerprint)
    if found is None:
        found = _read(path, source, channels, image_size, on_error, verbose)
        if cache is not None:
            _write_cache(cache, fingerprint, found)
    images, names = found
    folders = [str(pathlib.PurePosixPath(name).parent) for name in names]
    classes, labels = np.unique(folders, return_inverse=True)
    groups = _groups(path, classes)
    class_names = [
        f"{group}/{folder.split('/')[-1]}"
        for group, folder in zip(groups, classes)
    ]
    return LabeledImages(images, labels, class_names, groups, names)


def _read(path, source, channels, image_size, on_error, verbose):
    """Returns the images as one array, and the names of their files."""

    def read(name):
        try:
            content = source.read(name)
            return decode(content, f"{path}: {name}", channels, image_size)
        except ValueError as error:
            if on_error == "raise":
                raise
            return error

    with concurrent.futures.ThreadPoolExecutor() as pool:
        # A generator, so that an error does not wait for all the others.
        results = pool.map(read, source.names)
        try:
            results = list(
                reading_progress(results, len(source.names), verbose)
            )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    errors = [result for result in results if isinstance(result, ValueError)]
    names = [
        name
        for name, result in zip(source.names, results)
        if not isinstance(result, ValueError)
    ]
    images = [image for image in results if not isinstance(image, ValueError)]
    if errors:
        _report_skipped(path, source.names, names, errors)
    for name, image in zip(names, images):
        if image.shape != images[0].shape:
            raise ValueError(
                "The images must have the same size. Received: "
                f"{names[0]} of shape {images[0].shape} and {name} of shape "
                f"{image.shape}. Pass `image_size=(height, width)`."
            )
    return np.stack(images), names


def _report_skipped(path, names, left, errors):
    def folders(names):
        return {name.rpartition("/")[0] for name in names}

    lost = sorted(folders(names) - folders(left))
    if lost:
        raise ValueError(
            "Every class must have an image that can be read. Received: "
            f"{path}: {lost[0]}, where all are damaged: {errors[0]}"
        )
    warnings.warn(
        f"{len(errors)} of {len(names)} images were skipped. The first: "
        f"{errors[0]}",
        stacklevel=4,
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
    read: Function from a name to bytes.
"""


def _open(path):
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise FileNotFoundError(
            f"`path` must be a folder or a zip archive. Received: {path}, "
            "where there is nothing."
        )
    # A file that cannot be opened is an error of its own.
    with path.open("rb") as file:
        try:
            return _open_archive(file)
        except Exception as error:
            # There is no end to what wrong bytes make a reader raise.
            raise ValueError(
                f"`path` must be a folder or a zip archive. Received: {path}: "
                f"{error}."
            ) from error


def _open_folder(path):
    names, folders = [], []
    for file in path.rglob("*"):
        kind = folders if file.is_dir() else names if file.is_file() else []
        kind.append(file.relative_to(path).as_posix())
    names = _without_litter(names)
    versions = []
    for name in names:
        status = (path / name).stat()
        versions.append((name, status.st_size, status.st_mtime_ns))
    return _Source(
        names,
        set(_without_litter(folders)),
        versions,
        lambda name: (path / name).read_bytes(),
    )


def _open_archive(file):
    with zipfile.ZipFile(file) as archive:
        entries = {}
        for entry in archive.infolist():
            name = entry.filename
            # Nothing is unpacked here, but such an archive means no good.
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"its entry {name} points outside it")
            if name in entries and not entry.is_dir():
                raise ValueError(f"it holds two files named {name}")
            entries[name] = entry
        names = [name for name in entries if not entries[name].is_dir()]
        names = _without_litter(names)
        folders = [name[:-1] for name in entries if entries[name].is_dir()]
        contents = {}
        # One after another: what is slow is to decode.
        for name in names:
            try:
                contents[name] = archive.read(name)
            except Exception as error:
                raise ValueError(f"{name} is damaged ({error})") from error
    return _Source(
        names,
        set(_without_litter(folders)),
        [(name, entries[name].file_size, entries[name].CRC) for name in names],
        contents.__getitem__,
    )


def _without_litter(names):
    return sorted(
        name for name in names if not any(map(is_litter, name.split("/")))
    )


def _check_names(path, source):
    if not source.names:
        raise ValueError(
            f"There must be folders of images. Received: {path}, which holds "
            "no file."
        )
    for name in source.names:
        if "/" not in name:
            raise ValueError(
                "Every image must lie in the folder of its class. Received: "
                f"{path}: {name}, which lies in none."
            )
    filled = {
        str(folder)
        for name in [*source.names, *source.folders]
        for folder in pathlib.PurePosixPath(name).parents
    }
    empty = sorted(source.folders - filled)
    if empty:
        raise ValueError(
            "Every class must have an image. Received: "
            f"{path}: {empty[0]}, which is empty. Fill or remove it."
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
    # The classes may lie in the folder itself.
    return ["/".join(parent[shared:]) or path.stem for parent in parents]
