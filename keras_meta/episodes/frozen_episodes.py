import json
import os

import numpy as np
import tensorflow as tf

from keras_meta import arguments
from keras_meta import whole_files
from keras_meta.episodes import meta_batches
from keras_meta.episodes import protocols
from keras_meta.episodes.episode_sampler import Drawn
from keras_meta.episodes.sampled_episodes import SampledEpisodes

_FORMAT = "keras_meta frozen episodes"
_VERSION = 1
_PARTS = ("support", "query")


def freeze(episodes, path, examples=False):
    """Writes a list of episodes to a file, to evaluate on the very same ones.

    The file holds which examples the episodes have, and a hash of the
    examples and labels that they were drawn from; so it is small, and
    `load_frozen()` refuses other data. With `examples=True` it holds the
    examples themselves, and needs nothing else.

    Args:
        episodes: A finite `tf.data.Dataset` of episodes. Where it is not one
            of `keras_meta.episodes`, was changed by `map()` or its like, or
            augments, it can be kept with `examples=True` only.
        path: String or path of the file to write, `.npz` by custom.
        examples: Boolean, whether to keep the examples themselves. Defaults
            to `False`.

    Raises:
        ValueError, TypeError: Where the episodes are endless, cannot be kept
            without their examples, or where there is another file at the
            path, which is no list of episodes.

    Example:

    ```python
    x = np.random.uniform(size=(200, 28, 28, 1)).astype("float32")
    y = np.repeat(np.arange(10), 20)
    test = keras_meta.episodes.from_arrays(
        x, y, ways=5, shots=1, queries=15, episodes=600, seed=1
    )
    keras_meta.episodes.freeze(test, "test.npz")
    same = keras_meta.episodes.load_frozen("test.npz", test)
    ```
    """
    if not isinstance(episodes, tf.data.Dataset):
        raise TypeError(
            "`episodes` must be a `tf.data.Dataset` of episodes. Received: "
            f"{type(episodes).__name__}."
        )
    if episodes.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "Only a fixed list of episodes can be kept. Received: an endless "
            "data set. Make one with `episodes=600`."
        )
    arguments.check_boolean("examples", examples)
    path = os.fspath(path)
    _check_may_write(path)
    origin, changed = meta_batches.origin_of(episodes)
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "protocol": protocols.details_of(episodes),
    }
    if examples:
        arrays, header["structure"], header["dtypes"] = _examples_of(episodes)
    else:
        recipe = _recipe_to_draw(episodes, origin, changed)
        arrays = _drawn_by(recipe, origin)
        header["variants"] = recipe.variants
        header["fingerprint"] = recipe.examples.fingerprint()
    with whole_files.writing(path) as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)


def load_frozen(path, source=None, meta_batch_size=32):
    """Reads episodes that `keras_meta.episodes.freeze()` wrote.

    Args:
        path: String or path of the file.
        source: A data set of episodes over the same examples, made by any
            function of `keras_meta.episodes`; its ways, shots and seed do not
            matter. Needed where the file does not hold the examples.
        meta_batch_size: Integer, the episodes of a meta-batch. Defaults to
            `32`.

    Returns:
        A `tf.data.Dataset` as the one that was written.

    Raises:
        FileNotFoundError: Where there is no such file.
        ValueError: Where the file is damaged, was written by a later version,
            or holds episodes of other data than those of `source`.
        TypeError: Where `source` is no data set of episodes.

    Example:

    ```python
    x = np.random.uniform(size=(200, 28, 28, 1)).astype("float32")
    y = np.repeat(np.arange(10), 20)
    test = keras_meta.episodes.from_arrays(
        x, y, ways=5, shots=1, queries=15, episodes=600, seed=1
    )
    keras_meta.episodes.freeze(test, "test.npz")
    same = keras_meta.episodes.load_frozen("test.npz", test)
    ```
    """
    arguments.check_positive_integer("meta_batch_size", meta_batch_size)
    path = os.fspath(path)
    header, arrays = _read(path)
    protocol = {**header["protocol"], "frozen in": os.path.basename(path)}
    if "structure" in header:
        if source is not None:
            raise ValueError(
                "`source` must be left out where the file holds the examples. "
                f"Received: source={source} for {path}."
            )
        parts = {
            name: tf.bitcast(tf.constant(array), header["dtypes"][name])
            if name in header["dtypes"]
            else tf.constant(array)
            for name, array in arrays.items()
        }
        count = tf.nest.flatten(parts)[0].shape[0]
        make = _make_of_examples(_build(header["structure"], parts))
    else:
        examples = _examples_behind(source, path, header["fingerprint"])
        # What is drawn is in the file.
        sampled = SampledEpisodes(examples, None, header["variants"])
        drawn = [_drawn_from(arrays, part) for part in _PARTS]
        count = drawn[0].positions.shape[0]
        make = _make_of_drawn(sampled, drawn)
    recipe = meta_batches.Recipe(make, protocol, is_list=True)
    return meta_batches.meta_batches(recipe, meta_batch_size, count)


def _recipe_to_draw(episodes, origin, changed):
    whole = origin is not None and origin.episodes is not None
    if not whole or len(origin.starts()) != episodes.cardinality():
        changed = True
    recipe = None if origin is None or changed else origin.recipe
    if not isinstance(recipe, SampledEpisodes):
        raise ValueError(
            "Without their examples, only episodes that come straight from a "
            "function `from_...` of `keras_meta.episodes` can be kept. "
            f"Received: {episodes}. Pass `examples=True`."
        )
    if recipe.augment_support is not None or recipe.augment_query is not None:
        raise ValueError(
            "Episodes that are augmented cannot be kept without their "
            "examples: a layer may draw otherwise with another version of "
            "Keras. Pass `examples=True`."
        )
    return recipe


def _drawn_by(recipe, origin):
    """Returns what was drawn for all episodes, as arrays by name."""
    batches = []
    for first, count in origin.starts():
        number = tf.constant(first, "int64")
        batch = {}
        for part, drawn in zip(_PARTS, recipe.sampler.sample(number, count)):
            for name, value in drawn._asdict().items():
                if value is not None:
                    batch[f"{part}_{name}"] = value.numpy()
        batches.append(batch)
    return {
        name: np.concatenate([batch[name] for batch in batches])
        for name in batches[0]
    }


def _examples_of(episodes):
    """Returns all leaves of all episodes by name, and what they make up.

    Returns:
        A tuple of the arrays by name, their structure, and the dtypes of those
        that are kept as another.
    """
    batches = [
        [np.asarray(leaf) for leaf in tf.nest.flatten(batch)]
        for batch in episodes
    ]
    if not batches:
        raise ValueError(
            "There must be at least one episode. Received: an empty data set."
        )
    names = iter(range(len(batches[0])))
    structure = _described(
        tf.nest.map_structure(
            lambda _: f"leaf{next(names)}", episodes.element_spec
        )
    )
    arrays = {
        f"leaf{number}": np.concatenate(leaves)
        for number, leaves in enumerate(zip(*batches))
    }
    dtypes = {}
    for name, array in arrays.items():
        if array.dtype == object:
            # Text; no file of arrays holds Python's objects.
            arrays[name] = array.astype("S")
            if np.any(arrays[name] != array):
                raise ValueError(
                    "Text must not end in a null character to be kept. "
                    "Received: text that does."
                )
        elif array.dtype.name == "bfloat16":
            # NumPy does not know it.
            dtypes[name] = array.dtype.name
            arrays[name] = array.view("uint16")
    return arrays, structure, dtypes


def _described(structure):
    """Returns a structure as JSON has it, its leaves being strings."""
    if isinstance(structure, dict):
        return {key: _described(value) for key, value in structure.items()}
    if isinstance(structure, (tuple, list)):
        return [_described(value) for value in structure]
    return structure


def _build(structure, leaves):
    if isinstance(structure, dict):
        return {key: _build(part, leaves) for key, part in structure.items()}
    if isinstance(structure, list):
        return tuple(_build(part, leaves) for part in structure)
    return leaves[structure]


def _check_may_write(path):
    if os.path.isdir(path):
        raise ValueError(
            "`path` must be a file to write. Received: "
            f"{path}, which is a folder."
        )
    if os.path.exists(path):
        try:
            _read(path)
        except ValueError as error:
            raise ValueError(
                "`path` must be a new file, or a list of episodes to replace. "
                f"Received: {path}, which is another file. Remove it, or name "
                "another."
            ) from error


def _read(path):
    if not os.path.exists(path):
        raise FileNotFoundError(
            "`path` must be a file that `freeze()` wrote. Received: "
            f"{path}, where there is none."
        )
    try:
        with open(path, "rb") as file:
            arrays = dict(np.load(file, allow_pickle=False).items())
        header = json.loads(str(arrays.pop("header")))
        if header["format"] != _FORMAT or not arrays:
            raise ValueError("it is of another kind")
        version = int(header["version"])
    except Exception as error:
        # There is no end to what wrong bytes make a reader raise.
        raise ValueError(
            "`path` must be a file that `freeze()` wrote. Received: "
            f"{path}, which is damaged or something else: {error}."
        ) from error
    if version > _VERSION:
        raise ValueError(
            "The file must be of this version or an earlier one. Received: "
            f"{path} of version {version}; this one reads {_VERSION}. "
            "Install a later release of keras_meta."
        )
    return header, arrays


def _examples_behind(source, path, fingerprint):
    if source is None:
        raise ValueError(
            "`source` must be given where the file does not hold the examples: "
            "a data set of episodes over the same data. Received: source=None "
            f"for {path}."
        )
    if not isinstance(source, tf.data.Dataset):
        raise TypeError(
            "`source` must be a `tf.data.Dataset` of episodes. Received: "
            f"{type(source).__name__}."
        )
    origin, _ = meta_batches.origin_of(source)
    examples = getattr(getattr(origin, "recipe", None), "examples", None)
    if examples is None:
        raise TypeError(
            "`source` must come from a function `from_...` of "
            f"`keras_meta.episodes`. Received: {source}."
        )
    found = examples.fingerprint()
    if found != fingerprint:
        raise ValueError(
            "The episodes must be of the data of `source`. Received: "
            f"{path}, of data with the hash {fingerprint[:16]}, and a source "
            f"with the hash {found[:16]}. The data changed, or are others."
        )
    return examples


def _drawn_from(arrays, part):
    values = {name: arrays.get(f"{part}_{name}") for name in Drawn._fields}
    return Drawn(
        *(
            None if value is None else tf.constant(value)
            for value in values.values()
        )
    )


def _make_of_drawn(sampled, drawn):
    def make(first_episode, count):
        rows = _rows(drawn, first_episode, count)
        return sampled.assemble(*rows, first_episode)

    return make


def _make_of_examples(parts):
    def make(first_episode, count):
        return _rows(parts, first_episode, count)

    return make


def _rows(structure, first, count):
    def rows(leaf):
        return tf.ensure_shape(
            leaf[first : first + count], [count, *leaf.shape[1:]]
        )

    return tf.nest.map_structure(
        lambda leaf: None if leaf is None else rows(leaf), structure
    )
