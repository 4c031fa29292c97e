import collections
import os

import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import episode
from keras_meta.episodes import meta_batches
from keras_meta.episodes.episode_pictures import draw_episode
from keras_meta.episodes.glyph_images import Glyphs
from keras_meta.episodes.labeled_examples import groups_of
from keras_meta.episodes.labeled_examples import labels_of
from keras_meta.episodes.labeled_images import LabeledImages
from keras_meta.episodes.labeled_images import class_folders


class Description(
    collections.namedtuple(
        "Description",
        [
            "source",
            "examples",
            "classes",
            "sizes",
            "groups",
            "shape",
            "variants",
        ],
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
            `None` where only labels are known, as of a folder.
        variants: Integer, how many classes each one stands for, turned and
            mirrored; 1 where it is only itself.
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
        ways = f"{len(self.classes) * self.variants} ways"
        if self.variants > 1:
            ways += (
                f" ({len(self.classes)} classes in {self.variants} variants)"
            )
        lines.append(
            f"episodes: up to {ways}, with shots + queries up to {sizes[0]}"
        )
        if sizes[0] != sizes[-1]:
            half = int(np.median(sizes))
            fit = int(np.sum(sizes >= half))
            lines.append(f"  of {fit} classes: shots + queries up to {half}")
        if self.groups:
            least, most = (
                count * self.variants for count in (min(counts), max(counts))
            )
            lines.append(
                f"  within a group: up to {least} ways in each"
                + (f", up to {most} in the largest" if least != most else "")
            )
        return "\n".join(lines)


def describe(source, groups=None):
    """Tells the classes of a source, their sizes, and what episodes it gives.

    Args:
        source: A data set of episodes made by a function `from_...` of
            `keras_meta.episodes`; a folder or zip archive of images by class,
            as a string or path, of which only names are read; what
            `keras_meta.episodes.image_folders()` or `glyphs()` returned; or
            the labels of examples, integers `[examples]`.
        groups: Optional sequence, the group of each class, with labels alone.

    Returns:
        A `Description`, to be printed, with the attributes `source`,
        `examples`, `classes`, `sizes`, `groups`, `shape` and `variants`. Of a
        data set of episodes only the classes that it draws from are told.

    Raises:
        TypeError: Where it is none of these.

    Example:

    ```python
    labels = np.repeat(np.arange(10), 20)
    print(keras_meta.episodes.describe(labels))
    ```
    """
    if isinstance(source, (str, os.PathLike)):
        labels, names, groups = class_folders(source)
        return _describe("images", labels, groups, names, None)
    if isinstance(source, LabeledImages):
        shape = str(source.images.shape[1:])
        return _describe(
            "images", source.labels, source.groups, source.classes, shape
        )
    if isinstance(source, Glyphs):
        shape = str(source.images.shape[1:])
        return _describe(
            "glyphs", source.labels, source.scripts, source.characters, shape
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
            f"Received: {source}. Frozen lists and mixtures do not tell their "
            "classes: give the data set that was frozen, or each of those "
            "that were mixed."
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
        recipe.sampler.variants,
    )


def _describe(source, labels, groups, names, shape, classes=None, variants=1):
    present, sizes = np.unique(labels, return_counts=True)
    if classes is None:
        classes = present
    sizes = sizes[np.searchsorted(present, classes)]
    counts = collections.Counter(groups_of(labels, groups, classes) or ())
    named = [
        label if names is None else names[label] for label in classes.tolist()
    ]
    return Description(
        source,
        int(sizes.sum()),
        named,
        sizes,
        dict(counts),
        shape,
        variants,
    )


def show_episode(episodes, task=0, shots=5, queries=5, figure=None):
    """Draws an episode: its support set, and some of its queries.

    Images are drawn, a row for each way. Text and integers are written out,
    as far as there is room; of other examples the values are drawn, each
    example a line of them.

    Args:
        episodes: A `tf.data.Dataset` of episodes of classification, of which
            the first meta-batch is taken, or a meta-batch, `(x, y)` or `(x,
            y, sample_weight)`.
        task: Integer, which episode of the meta-batch. Defaults to `0`.
        shots: Integer, how many support examples of each class to draw at
            most. Defaults to `5`.
        queries: Integer, how many queries of each class to draw at most.
            Defaults to `5`.
        figure: Optional `matplotlib.figure.Figure` or `SubFigure` to draw
            in. `None` (the default) makes one.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        TypeError: Where it is no data set or meta-batch of episodes of
            classification.
        ValueError: Where an argument is not as described.
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
    arguments.check_integer_from_zero("task", task)
    arguments.check_positive_integer("shots", shots)
    arguments.check_positive_integer("queries", queries)
    batch = _meta_batch_of(episodes)
    episode.check(*batch)
    support_y, query_y = batch[0][episode.SUPPORT_Y], batch[1]
    _check_class_numbers(episode.SUPPORT_Y, support_y)
    _check_class_numbers("the query labels `y`", query_y)
    if task >= len(query_y):
        raise ValueError(
            "`task` must be less than the number of episodes in a meta-batch. "
            f"Received: task={task} of {len(query_y)}."
        )
    return draw_episode(batch, task, shots, queries, figure)


def _meta_batch_of(episodes):
    batch = episodes
    if isinstance(episodes, tf.data.Dataset):
        batch = next(iter(episodes), None)
        if batch is None:
            raise ValueError(
                "There must be at least one meta-batch. Received: an empty "
                "data set."
            )
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise TypeError(
            "`episodes` must be a `tf.data.Dataset` of episodes, or a "
            "meta-batch, `(x, y)` or `(x, y, sample_weight)`. Received: "
            f"{type(episodes).__name__}"
            f"{'' if batch is episodes else f' of {type(batch).__name__}'}."
        )
    return batch


def _check_class_numbers(name, labels):
    if tf.nest.is_nested(labels):
        received = f"a {type(labels).__name__}"
    else:
        labels = np.asarray(labels)
        if labels.ndim == 2 and np.issubdtype(labels.dtype, np.integer):
            return
        received = f"dtype {labels.dtype} and shape {labels.shape}"
    raise TypeError(
        "Only episodes of classification can be drawn, whose labels are "
        f"integers `[tasks, examples]`. Received: {name} of {received}."
    )


def _spread(sizes):
    if sizes[0] == sizes[-1]:
        return f"{sizes[0]}"
    return f"{sizes[0]} to {sizes[-1]}, median {int(np.median(sizes))}"
