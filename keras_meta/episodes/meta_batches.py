import collections

import numpy as np
import tensorflow as tf

from keras_meta import arguments

# What keeps the episodes of a data set as they are.
_KEEPS_EPISODES = (
    "CacheDataset",
    "_OptionsDataset",
    "_PrefetchDataset",
    "_TakeDataset",
)

Recipe = collections.namedtuple(
    "Recipe",
    ["make", "protocol", "mixing_depth", "is_list"],
    defaults=(0, False),
)
Recipe.__doc__ = """What makes episodes by their numbers.

Attributes:
    make: Function `(first_episode, count)` that returns a meta-batch: the
        episodes from number `first_episode` on.
    protocol: Dictionary of strings and integers, what they are, to be printed
        with a result.
    mixing_depth: Integer, how many mixtures lie within each other.
    is_list: Boolean, whether there is an end to them.
"""


class Origin(
    collections.namedtuple(
        "Origin",
        ["recipe", "meta_batch_size", "episodes", "first_episode", "shard"],
    )
):
    """Where a data set of episodes comes from.

    Attributes:
        recipe: A `Recipe`, or what has its attributes.
        meta_batch_size: Integer.
        episodes: Integer, or `None` where they have no end.
        first_episode: Integer.
        shard: Pair of integers, the index and the count.
    """

    __slots__ = ()

    def starts(self):
        """Returns pairs of the first number and the size of meta-batches."""
        index, workers = self.shard
        firsts = range(0, self.episodes, self.meta_batch_size)
        return [
            (
                self.first_episode + first,
                min(self.meta_batch_size, self.episodes - first),
            )
            for first in firsts[index::workers]
        ]

    def from_meta_batch(self, number):
        """Returns the data set from its meta-batch `number` on.

        Args:
            number: Integer tensor; of episodes that have no end.
        """
        index, workers = self.shard
        size = self.meta_batch_size
        first = self.first_episode + (index + number * workers) * size
        starts = tf.data.Dataset.counter(first, workers * size)
        return _make_each(starts, self.recipe.make, size)


def meta_batches(
    recipe, meta_batch_size, episodes, first_episode=0, shard=None
):
    """Returns a data set of meta-batches, made by number.

    Args:
        recipe: A `Recipe`, or what has its attributes.
        meta_batch_size: Integer, the episodes of a meta-batch.
        episodes: Integer, the number of episodes, the last meta-batch being
            smaller where it does not divide; or `None`, without end.
        first_episode: Integer, the number of the first. Defaults to `0`.
        shard: Optional pair `(index, count)`: meta-batch `index` of every
            `count` ones.

    Returns:
        A `tf.data.Dataset`.
    """
    size, first = int(meta_batch_size), int(first_episode)
    episodes = None if episodes is None else int(episodes)
    index, workers = shard = shard or (0, 1)
    origin = Origin(recipe, size, episodes, first, shard)
    if episodes is None:
        dataset = origin.from_meta_batch(0)
    else:
        dataset = _fixed_list(
            recipe.make, size, episodes, first, index, workers
        )
    # An attribute of an object of TensorFlow, but there is no other way to
    # tell what a data set is made of.
    dataset.keras_meta_origin = origin
    return dataset


def origin_of(dataset):
    """Returns the `Origin` of a data set, and whether it was changed since.

    Returns:
        A tuple `(origin, changed)`; `(None, False)` where the data set does
        not come from this package.
    """
    changed = False
    while dataset is not None:
        origin = getattr(dataset, "keras_meta_origin", None)
        if origin is not None:
            return origin, changed
        changed |= type(dataset).__name__ not in _KEEPS_EPISODES
        inputs = getattr(dataset, "_inputs", tuple)()
        dataset = inputs[0] if len(inputs) == 1 else None
    return None, False


def check_meta_batch_arguments(
    meta_batch_size, episodes, seed, first_episode=0, shard=None
):
    """Checks the arguments that all episode data sets share."""
    arguments.check_positive_integer("meta_batch_size", meta_batch_size)
    if episodes is not None:
        arguments.check_positive_integer(
            "episodes", episodes, "Use `None` for endless episodes."
        )
    arguments.check_integer("seed", seed)
    arguments.check_integer_from_zero("first_episode", first_episode)
    if shard is None:
        return
    if np.ndim(shard) != 1 or len(shard) != 2:
        raise ValueError(
            "`shard` must be a pair, `(index, count)`. Received: "
            f"shard={shard!r}."
        )
    arguments.check_integer_from_zero("shard[0]", shard[0])
    arguments.check_positive_integer("shard[1]", shard[1])
    batches = shard[1] if episodes is None else -(-episodes // meta_batch_size)
    if shard[0] >= min(shard[1], batches):
        raise ValueError(
            "The index of a shard must be less than their count, and than the "
            f"number of meta-batches. Received: shard={shard!r}"
            f"{'' if episodes is None else f' of {batches} meta-batches'}."
        )


def _fixed_list(make, size, episodes, first, index, workers):
    # Whole meta-batches keep their static shape; only the rest is odd.
    rest = episodes % size
    whole = episodes // size
    starts = tf.data.Dataset.range(
        first + index * size, first + whole * size, workers * size
    )
    dataset = _make_each(starts, make, size)
    if not rest or whole % workers != index:
        return dataset
    last = first + whole * size
    last = _make_each(tf.data.Dataset.range(last, last + 1), make, rest)
    return dataset.concatenate(last) if index < whole else last


def _make_each(starts, make, count):
    # There is nothing in it for AutoGraph, which takes as long as the rest.
    make_from = tf.autograph.experimental.do_not_convert(
        lambda first_episode: make(first_episode, int(count))
    )
    return ahead(starts.map(make_from, num_parallel_calls=tf.data.AUTOTUNE))


def ahead(dataset):
    """Returns a data set that makes its elements before they are asked for.

    What `tf.data` tunes by itself it leaves as it is. Its tuner sleeps for
    ever longer, 20 ms, 40 ms and so on, and an iterator is deleted only when
    the tuner wakes up: each `fit()` would wait at its end for up to as long
    as it took.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
