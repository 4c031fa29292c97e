import pathlib

import numpy as np
import tensorflow as tf

from keras_meta import episode
from keras_meta.episodes import labeled_images

_LABELS = "class_labels.txt"


def one_shot_runs(path, image_size, color="grayscale"):
    """Reads runs in the format of the Omniglot one-shot challenge.

    The folder holds a folder for each run (`run01` to `run20`), and that one
    `training/`, with one image of each class, `test/`, and
    `class_labels.txt`. Each line of it is a trial: the test image, a space,
    and the training image of the same class, as paths from the folder that
    holds the runs.

    Each run becomes an episode, whose support set is the training images in
    the order of their names. A trial is a query, and is answered on its own.

    Args:
        path: String or path, the folder that holds the runs.
        image_size: Tuple of integers, `(height, width)`, to which each image
            is resized.
        color: `"grayscale"` (the default) or `"rgb"`.

    Returns:
        A `tf.data.Dataset` of `(x, y)` with one run in each meta-batch, in
        the order of their names. Images are float32 from 0 to 1.

    Raises:
        FileNotFoundError: Where there is no run, or a file of one is missing.
        ValueError: Where a line is no trial, a file no image or no text, or
            where an argument is not as described.

    Example:

    ```python
    import os

    for name in ("training/class1", "training/class2", "test/item1"):
        os.makedirs(f"runs/run01/{name.split('/')[0]}", exist_ok=True)
        pixels = np.random.randint(0, 256, size=(105, 105, 1))
        keras.utils.save_img(f"runs/run01/{name}.png", pixels)
    with open("runs/run01/class_labels.txt", "w") as file:
        file.write("run01/test/item1.png run01/training/class2.png")

    runs = keras_meta.episodes.one_shot_runs("runs", image_size=(28, 28))
    ```

    Reference:
        - Lake et al., Human-level concept learning through probabilistic
          program induction, 2015
    """
    channels = labeled_images.channels_of(color)
    labeled_images.check_image_size(image_size)
    path = pathlib.Path(path)
    folders = sorted(file.parent for file in path.glob(f"*/{_LABELS}"))
    if not folders:
        raise FileNotFoundError(
            "`path` must hold a folder for each run, with `training`, `test` "
            f"and `{_LABELS}` in it. Received: {path}, which holds none."
        )

    def read(file):
        return labeled_images.decode(
            file.read_bytes(), file, channels, image_size
        )

    runs = [_read_run(path, folder, read) for folder in folders]

    def generate():
        for x, y in runs:
            yield tf.nest.map_structure(lambda leaf: leaf[None], (x, y))

    images = tf.TensorSpec((1, None, *image_size, channels), "float32")
    labels = tf.TensorSpec((1, None), "int32")
    x = {
        episode.SUPPORT_X: images,
        episode.SUPPORT_Y: labels,
        episode.QUERY_X: images,
    }
    episodes = tf.data.Dataset.from_generator(
        generate, output_signature=(x, labels)
    )
    return episodes.apply(tf.data.experimental.assert_cardinality(len(runs)))


def _read_run(path, folder, read):
    training = sorted(
        file
        for file in (folder / "training").glob("*")
        if file.is_file() and not labeled_images.is_litter(file.name)
    )
    if not training:
        raise FileNotFoundError(
            "A run must have training images. Received: "
            f"{folder / 'training'}, which is missing or empty."
        )
    numbers = {file: number for number, file in enumerate(training)}
    queries, labels = [], []
    labels_file = folder / _LABELS
    for number, line in enumerate(_lines(labels_file), 1):
        if not line.strip():
            continue
        where = f"line {number} of {labels_file}"
        names = line.split()
        if len(names) != 2:
            raise ValueError(
                "A trial must be a test file, a space, and a training file. "
                f"Received: {line!r}, {where}."
            )
        query, answer = (path / name for name in names)
        for file in (query, answer):
            if not file.is_file():
                raise FileNotFoundError(
                    "The files of a trial must exist, as paths from the "
                    f"folder that holds the runs. Received: {file}, which is "
                    f"missing, {where}."
                )
        if answer not in numbers:
            raise ValueError(
                "The second file of a trial must be a training image of its "
                f"run. Received: {answer}, {where}."
            )
        queries.append(query)
        labels.append(numbers[answer])
    if not queries:
        raise ValueError(
            f"A run must have trials. Received: {labels_file}, which is empty."
        )
    x = {
        episode.SUPPORT_X: _stack(read, training),
        episode.SUPPORT_Y: np.arange(len(training), dtype="int32"),
        episode.QUERY_X: _stack(read, queries),
    }
    return x, np.array(labels, "int32")


def _lines(file):
    try:
        # Some editors put a mark before the first line.
        return file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The trials must be text in UTF-8. Received: {file}: {error}. "
            "Save it in that encoding."
        ) from error


def _stack(read, files):
    return np.stack([read(file) for file in files]).astype("float32") / 255.0
