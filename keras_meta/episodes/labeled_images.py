import collections
import concurrent.futures
import pathlib
import zipfile

import numpy as np
import tensorflow as tf

from keras_meta import arguments

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


def image_folders(path, image_size=None, color="rgb"):
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

    Returns:
        A `LabeledImages`, with the attributes `images`, `labels`, `classes`,
        `groups` and `files`.

    Raises:
        FileNotFoundError: Where there is nothing at the path.
        ValueError: Where a file is not an image or is damaged (it is named),
            where an archive holds two files of one name, where there is no
            image in a folder of its class, or where the sizes differ.

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
    path = pathlib.Path(path)
    names, read = _contents(path)
    _check_names(path, names)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = list(
            pool.map(
                lambda name: decode(
                    read(name), f"{path}: {name}", channels, image_size
                ),
                names,
            )
        )
    for name, image in zip(names, images):
        if image.shape != images[0].shape:
            raise ValueError(
                "The images must have the same size. Received: "
                f"{names[0]} of shape {images[0].shape} and {name} of shape "
                f"{image.shape}. Pass `image_size=(height, width)`."
            )
    folders = [str(pathlib.PurePosixPath(name).parent) for name in names]
    classes, labels = np.unique(folders, return_inverse=True)
    groups = _groups(path, classes)
    class_names = [
        f"{group}/{folder.split('/')[-1]}"
        for group, folder in zip(groups, classes)
    ]
    return LabeledImages(np.stack(images), labels, class_names, groups, names)


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
    shrinks = all(new <= old for new, old in zip(image_size, image.shape))
    method = "area" if shrinks else "bilinear"
    resized = tf.image.resize(image[None], image_size, method=method)[0]
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), "uint8").numpy()


def _decode(content, channels):
    return tf.io.decode_image(content, channels, expand_animations=False)


def _contents(path):
    """Returns the names of the files, and a function that reads one."""
    if path.is_dir():
        names = [
            file.relative_to(path).as_posix()
            for file in path.rglob("*")
            if file.is_file()
        ]
        return _without_litter(names), lambda name: (path / name).read_bytes()
    if not path.exists():
        raise FileNotFoundError(
            f"`path` must be a folder or a zip archive. Received: {path}, "
            "where there is nothing."
        )
    # A file that cannot be opened is an error of its own.
    with path.open("rb") as file:
        try:
            return _contents_of_archive(file)
        except Exception as error:
            # There is no end to what wrong bytes make a reader raise.
            raise ValueError(
                f"`path` must be a folder or a zip archive. Received: {path}: "
                f"{error}."
            ) from error


def _contents_of_archive(file):
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name[-1:] != "/"]
        names = _without_litter(names)
        contents = {}
        # One after another: what is slow is to decode.
        for name in names:
            if name in contents:
                raise ValueError(f"it holds two files named {name}")
            try:
                contents[name] = archive.read(name)
            except Exception as error:
                raise ValueError(f"{name} is damaged ({error})") from error
    return names, contents.__getitem__


def _without_litter(names):
    return sorted(
        name for name in names if not any(map(is_litter, name.split("/")))
    )


def _check_names(path, names):
    if not names:
        raise ValueError(
            f"There must be folders of images. Received: {path}, which holds "
            "no file."
        )
    for name in names:
        if "/" not in name:
            raise ValueError(
                "Every image must lie in the folder of its class. Received: "
                f"{path}: {name}, which lies in none."
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
