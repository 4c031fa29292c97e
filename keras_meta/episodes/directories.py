import pathlib

from keras_meta.episodes.labeled_examples import LabeledExamples
from keras_meta.episodes.labeled_images import image_folders
from keras_meta.episodes.sampled_episodes import check_sampling
from keras_meta.episodes.sampled_episodes import sample_episodes


def from_directory(
    path,
    ways,
    shots,
    queries,
    image_size=None,
    color="rgb",
    on_error="raise",
    cache=None,
    verbose=True,
    **sampling,
):
    """Makes episodes from a folder with one folder of images per class.

    The folders of the classes may lie in folders of groups, as characters lie
    in their alphabets: `within="group"` then draws each episode within one.

    The images are read once, in parallel, and kept in memory. To split the
    classes, read them with `keras_meta.episodes.image_folders()`, and make
    episodes with `from_arrays()`; or name the classes or groups to draw from.

    Args:
        path: String or path, the folder.
        ways: Integer or pair; see `keras_meta.episodes.from_arrays()`.
        shots: Integer, pair or `"imbalanced"`; see there.
        queries: Integer or pair; see there.
        image_size: Optional tuple of integers, `(height, width)`, to resize
            to. `None` (the default) keeps the size, which must then be the
            same for all.
        color: `"rgb"` (the default) or `"grayscale"`.
        on_error: `"raise"` (the default) or `"skip"`, which leaves out files
            that are damaged or no image, and warns how many there were.
        cache: Optional string or path of a file outside the folder, to keep
            the decoded images in for the next time. `None` (the default) means
            in memory only.
        verbose: Boolean, whether to draw a progress bar where reading takes
            long. Defaults to `True`.
        **sampling: The other arguments of
            `keras_meta.episodes.from_arrays()`, but for `groups`. `classes`
            may also hold names: of folders of classes, or of groups.

    Returns:
        A `tf.data.Dataset` as that of `keras_meta.episodes.from_arrays()`.

    Raises:
        FileNotFoundError: Where there is nothing at the path.
        ValueError: Where a file is damaged or no image (it is named), where
            the folder of a class is empty, or where there are too few classes
            or images.

    Example:

    ```python
    import os

    for name in ("cat", "dog"):
        os.makedirs(f"animals/{name}")
        for number in range(3):
            pixels = np.random.randint(0, 256, size=(32, 32, 3))
            keras.utils.save_img(f"animals/{name}/{number}.png", pixels)

    episodes = keras_meta.episodes.from_directory(
        "animals", ways=2, shots=1, queries=2, image_size=(28, 28)
    )
    ```
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"`path` must be a folder. Received: {path}, which is a file. Zip "
            "archives are read by `keras_meta.episodes.from_zip()`."
        )
    reading = (image_size, color, on_error, cache, verbose)
    return _from_image_folders(path, reading, ways, shots, queries, sampling)


def from_zip(
    path,
    ways,
    shots,
    queries,
    image_size=None,
    color="rgb",
    on_error="raise",
    cache=None,
    verbose=True,
    **sampling,
):
    """Makes episodes from a zip archive of folders of images.

    The same as `keras_meta.episodes.from_directory()`, without unpacking.

    Args:
        path: String or path, the archive.
        ways: Integer or pair; see `keras_meta.episodes.from_arrays()`.
        shots: Integer, pair or `"imbalanced"`; see there.
        queries: Integer or pair; see there.
        image_size: Optional tuple of integers, `(height, width)`.
        color: `"rgb"` (the default) or `"grayscale"`.
        on_error: `"raise"` (the default) or `"skip"`.
        cache: Optional string or path of a file to keep the decoded images
            in.
        verbose: Boolean. Defaults to `True`.
        **sampling: The other arguments of
            `keras_meta.episodes.from_arrays()`, but for `groups`. `classes`
            may also hold names: of folders of classes, or of groups.

    Returns:
        A `tf.data.Dataset` as that of `keras_meta.episodes.from_arrays()`.

    Raises:
        FileNotFoundError: Where there is nothing at the path.
        ValueError: Where it is no zip archive, is damaged or has an entry
            that points outside it; else as `from_directory()`.

    Example:

    ```python
    import zipfile

    with zipfile.ZipFile("animals.zip", "w") as archive:
        for name in ("cat", "dog"):
            for number in range(3):
                pixels = np.random.randint(0, 256, size=(32, 32, 3))
                keras.utils.save_img("image.png", pixels)
                archive.write("image.png", f"animals/{name}/{number}.png")

    episodes = keras_meta.episodes.from_zip(
        "animals.zip", ways=2, shots=1, queries=2, image_size=(28, 28)
    )
    ```
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise ValueError(
            f"`path` must be a zip archive. Received: {path}, which is a "
            "folder. Those are read by `keras_meta.episodes.from_directory()`."
        )
    reading = (image_size, color, on_error, cache, verbose)
    return _from_image_folders(path, reading, ways, shots, queries, sampling)


def _from_image_folders(path, reading, ways, shots, queries, sampling):
    check_sampling(ways, shots, queries, sampling)
    images = image_folders(path, *reading)
    examples = LabeledExamples(
        images.images, images.labels, images.groups, images.classes, path.name
    )
    return sample_episodes(examples, ways, shots, queries, **sampling)
