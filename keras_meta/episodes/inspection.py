import collections
import os

import numpy as np
import tensorflow as tf

from keras_meta import episode
from keras_meta.episodes import meta_batches
from keras_meta.episodes.episode_pictures import draw_episode
from keras_meta.episodes.labeled_examples import groups_of
from keras_meta.episodes.labeled_examples import labels_of
from keras_meta.episodes.labeled_images import LabeledImages
from keras_meta.episodes.labeled_images import image_folders


class Description(
    collections.namedtuple(
        "Description",
        ["source", "examples", "classes", "sizes", "groups", "shape"],
    )
):
    """What `keras_meta.episodes.describe()` found; print it.

    Attributes:
        source: String, what the examples are called.
        examples: Integer, how many there are.
        classes: List, the name or else the label of each class.
        sizes: Integer array, the examples of each class.
        groups: Dictionary, the number of classes of each group; empty where
            there are none.
        shape: Shapes of an example, as strings, in the structure of it;
            `None` where only labels are known.
    """

    __slots__ = ()

    def __str__(self):
        sizes = np.sort(self.sizes)
        lines = [
            f"{self.source}: {self.examples} examples of "
            f"{len(self.classes)} classes"
            + ("" if self.shape is None else f", each {self.shape}"),
            f"examples a class: {_spread(sizes)}",
        ]
        if self.groups:
            counts = list(self.groups.values())
            names = ", ".join(
                f"{name} {count}"
                for name, count in list(self.groups.items())[:10]
            )
            more = ", ..." if len(self.groups) > 10 else ""
            lines.append(f"groups: {len(self.groups)} ({names}{more})")
        lines.append(
            f"episodes: up to {len(self.classes)} ways, with shots + queries "
            f"up to {sizes[0]}"
        )
        if sizes[0] != sizes[-1]:
            half = int(np.median(sizes))
            fit = int(np.sum(sizes >= half))
            lines.append(f"  of {fit} classes: shots + queries up to {half}")
        if self.groups:
            lines.append(
                f"  within a group: up to {min(counts)} ways in each"
                + (
                    f", up to {max(counts)} in the largest"
                    if min(counts) != max(counts)
                    else ""
                )
            )
        return "\n".join(lines)


def describe(source, groups=None):
    """Tells the classes of a source, their sizes, and what episodes it gives.

    Args:
        source: A data set of episodes made by a function `from_...` of
            `keras_meta.episodes`; a folder or zip archive of images by class,
            as a string or path; what
            `keras_meta.episodes.image_folders()` returned; or the labels of
            examples, integers `[examples]`.
        groups: Optional sequence, the group of each class, with labels alone.

    Returns:
        A `Description`, to be printed, with the attributes `source`,
        `examples`, `classes`, `sizes`, `groups` and `shape`. Of a data set of
        episodes only the classes that it draws from are told.

    Raises:
        TypeError: Where it is none of these.

    Example:

    ```python
    labels = np.repeat(np.arange(10), 20)
    print(keras_meta.episodes.describe(labels))
    ```
    """
    if isinstance(source, (str, os.PathLike)):
        source = image_folders(source)
    if isinstance(source, LabeledImages):
        shape = str(source.images.shape[1:])
        return _describe(
            "images", source.labels, source.groups, source.classes, shape
        )
    if not isinstance(source, tf.data.Dataset):
        labels = np.asarray(source)
        labels = labels_of(tf.zeros(labels.shape[:1]), labels)
        return _describe("labels", labels, groups, None, None)
    origin, _ = meta_batches.origin_of(source)
    recipe = getattr(origin, "recipe", None)
    if not hasattr(recipe, "sampler"):
        raise TypeError(
            "`source` must be a data set of a function `from_...` of "
            "`keras_meta.episodes`, a folder, a zip archive, or labels. "
            f"Received: {source}."
        )
    examples = recipe.examples
    shape = tf.nest.map_structure(
        lambda leaf: str(tuple(leaf.shape)), examples.element_spec
    )
    return _describe(
        examples.name,
        examples.labels,
        examples.groups,
        examples.class_names,
        shape,
        recipe.sampler.classes,
    )


def _describe(source, labels, groups, names, shape, classes=None):
    present, sizes = np.unique(labels, return_counts=True)
    if classes is None:
        classes = present
    sizes = sizes[np.searchsorted(present, classes)]
    counts = collections.Counter(groups_of(labels, groups, classes) or ())
    named = [
        label if names is None else names[label] for label in classes.tolist()
    ]
    return Description(
        source, int(sizes.sum()), named, sizes, dict(counts), shape
    )


def show_episode(episodes, task=0, queries=5, figure=None):
    """Draws an episode: its support set, and some of its queries.

    Images are drawn, a row for each way. Of other examples the values are
    drawn, each example a line of them.

    Args:
        episodes: A `tf.data.Dataset` of episodes of classification, of which
            the first meta-batch is taken, or a meta-batch, `(x, y)` or `(x,
            y, sample_weight)`.
        task: Integer, which episode of the meta-batch. Defaults to `0`.
        queries: Integer, how many queries of each class to draw at most.
            Defaults to `5`.
        figure: Optional `matplotlib.figure.Figure` or `SubFigure` to draw
            in. `None` (the default) makes one.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ImportError: Where matplotlib is not installed.

    Example:

    ```python
    data = keras_meta.episodes.glyphs()
    episodes = keras_meta.episodes.from_arrays(
        data.images, data.labels, ways=5, shots=3, queries=5
    )
    figure = keras_meta.episodes.show_episode(episodes)
    figure.savefig("episode.png")
    ```
    """
    if isinstance(episodes, tf.data.Dataset):
        episodes = next(iter(episodes))
    episode.check(*episodes)
    return draw_episode(episodes, task, queries, figure)


def _spread(sizes):
    if sizes[0] == sizes[-1]:
        return f"{sizes[0]}"
    return f"{sizes[0]} to {sizes[-1]}, median {int(np.median(sizes))}"
