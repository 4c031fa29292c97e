import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta.episodes import meta_batches
from keras_meta.episodes import protocols
from keras_meta.episodes import random_streams

# Random numbers that neither draw classes nor augment.
_STREAM = 2


def mixed(
    datasets,
    weights=None,
    meta_batch_size=32,
    episodes=None,
    first_episode=0,
    shard=None,
    seed=0,
):
    """Mixes episodes of several sources, for learning across domains.

    Each episode comes from one of the sources, drawn by weight. Episode n is
    episode n of the source that it comes from, and so the same in any
    meta-batch and after a resume.

    Args:
        datasets: Sequence of data sets of episodes, made by functions of
            `keras_meta.episodes` and not changed since. Their episodes must
            have the same shapes; their own `meta_batch_size`, `episodes` and
            `first_episode` do not matter.
        weights: Optional sequence of numbers above 0, how often each source
            is drawn in relation to the others. `None` (the default) means
            equally often.
        meta_batch_size: Integer, the episodes of a meta-batch. Defaults to
            `32`.
        episodes: Integer, the number of episodes: a fixed list, for
            evaluation. `None` (the default) means without end.
        first_episode: Integer, the number of the episode to begin with.
            Defaults to `0`.
        shard: Optional pair `(index, count)`, for one of several workers.
        seed: Integer, of which source is drawn. Defaults to `0`.

    Returns:
        A `tf.data.Dataset` of meta-batches as those of `datasets`.

    Raises:
        ValueError, TypeError: Where the data sets are of different shapes or
            of another making, or an argument is not as described.

    Example:

    ```python
    def noise(classes):
        x = np.random.uniform(size=(20 * classes, 28, 28, 1))
        y = np.repeat(np.arange(classes), 20)
        return keras_meta.episodes.from_arrays(
            x.astype("float32"), y, ways=5, shots=1, queries=15
        )

    episodes = keras_meta.episodes.mixed([noise(10), noise(50)], weights=[1, 3])
    ```
    """
    meta_batches.check_meta_batch_arguments(
        meta_batch_size, episodes, seed, first_episode, shard
    )
    recipes = [recipe_of(dataset) for dataset in datasets]
    # A mixture of mixtures must not draw twice with the same numbers.
    depth = 1 + max((recipe.mixing_depth for recipe in recipes), default=0)
    if not recipes:
        raise ValueError(
            "There must be at least one data set to mix. Received: none."
        )
    limits = _limits(weights, len(recipes))
    specs = [_spec_of(recipe) for recipe in recipes]
    for number, spec in enumerate(specs):
        if spec != specs[0]:
            raise ValueError(
                "The episodes of all data sets must have the same parts, "
                f"shapes and dtypes. Received: {specs[0]} and, of data set "
                f"{number}, {spec}. Make them with the same ways, shots and "
                "queries, and examples of the same shape. Ways that are drawn "
                "are cut to the classes there are: draw no more than the "
                "smallest source has."
            )

    def make_one(arguments):
        number, chosen = arguments
        branches = [lambda make=one.make: make(number, 1) for one in recipes]
        batch = tf.switch_case(chosen, branches)
        return tf.nest.map_structure(lambda leaf: leaf[0], batch)

    def make(first_episode, count):
        draws = random_streams.integers(
            seed, first_episode, count, 1, stream=_STREAM + depth
        )
        chosen = tf.searchsorted(limits, draws[:, 0], side="right")
        numbers = first_episode + tf.range(count, dtype="int64")
        return tf.map_fn(
            make_one, (numbers, chosen), fn_output_signature=specs[0]
        )

    protocol = {
        "mixed": " and ".join(
            f"({protocols.in_words(one.protocol)})" for one in recipes
        ),
        "weights": "equal" if weights is None else str(list(weights)),
        "seed": int(seed),
    }
    return meta_batches.meta_batches(
        meta_batches.Recipe(make, protocol, mixing_depth=depth),
        meta_batch_size,
        episodes,
        first_episode,
        shard,
    )


def recipe_of(dataset):
    """Returns the `Recipe` of a data set that was not changed."""
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            "Each must be a data set of episodes. Received: "
            f"{type(dataset).__name__}."
        )
    origin, changed = meta_batches.origin_of(dataset)
    if origin is None or changed:
        raise ValueError(
            "Each data set must come from a function of "
            "`keras_meta.episodes` and not be changed by `map()` or its like. "
            f"Received: {dataset}. Change the result instead."
        )
    if origin.recipe.is_list:
        raise ValueError(
            "Only sources that can make any episode can be mixed. Received: a "
            "frozen list. Use the source it was drawn from."
        )
    return origin.recipe


def _limits(weights, count):
    """Returns above which integers of 32 bits the next source is chosen."""
    if weights is None:
        weights = [1.0] * count
    if len(weights) != count:
        raise ValueError(
            "`weights` must hold a number for each data set. Received: "
            f"{len(weights)} weights for {count} data sets."
        )
    for weight in weights:
        arguments.check_positive_number("weights", weight)
    shares = np.cumsum(np.asarray(weights, "float64"))[:-1] / np.sum(weights)
    limits = np.floor(shares * 2.0**32 - 2.0**31)
    return tf.constant(np.minimum(limits, 2.0**31 - 1).astype("int32"))


def _spec_of(recipe):
    """Returns the shapes and dtypes of a single episode."""
    made = tf.function(lambda: recipe.make(tf.constant(0, "int64"), 1))
    outputs = made.get_concrete_function().structured_outputs
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), outputs
    )
