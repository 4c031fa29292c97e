import keras
import numpy as np
import tensorflow as tf

from keras_meta.episodes import examples_in_memory
from keras_meta.episodes import labeled_examples
from keras_meta.episodes.labeled_examples import LabeledExamples
from keras_meta.episodes.reading_progress import reading_progress
from keras_meta.episodes.sampled_episodes import check_sampling
from keras_meta.episodes.sampled_episodes import sample_episodes

# How many texts are vectorized at once.
_CHUNK = 1024

_SAME_LENGTH = (
    "Give `keras.layers.TextVectorization` an `output_sequence_length`, and "
    "leave out `ragged`; or pad what `vectorize` returns to one length."
)


def from_text(
    texts,
    labels,
    ways,
    shots,
    queries,
    vectorize,
    groups=None,
    verbose=True,
    **sampling,
):
    """Makes episodes from labeled texts.

    Each text is vectorized once, and kept in memory as numbers.

    Args:
        texts: Sequence of strings.
        labels: Sequence of integers or strings, the class of each text.
            Strings are the names of the classes, which are numbered in their
            sorted order.
        ways: Integer or pair; see `keras_meta.episodes.from_arrays()`.
        shots: Integer, pair or `"imbalanced"`; see there.
        queries: Integer or pair; see there.
        vectorize: A `keras.layers.TextVectorization` that was adapted, or any
            layer or function from a string tensor `[batch]` to a tensor
            `[batch, ...]` or a nested structure of such, of the same length
            for all texts. Adapt it on the texts of the training classes
            alone, so that nothing of the others is known beforehand.
        groups: Optional sequence, the group of each class in the order of
            its label, or of each text.
        verbose: Boolean, whether to draw a progress bar where it takes long.
            Defaults to `True`.
        **sampling: The other arguments of
            `keras_meta.episodes.from_arrays()`. `classes` may also hold
            names of classes and groups.

    Returns:
        A `tf.data.Dataset` as that of `keras_meta.episodes.from_arrays()`.

    Raises:
        ValueError: Where `vectorize` was not adapted or returns texts of
            different lengths, or where there are too few classes or texts.
        TypeError: Where the texts are no strings.

    Example:

    ```python
    texts, labels = [], []
    for topic in ("sport", "music", "weather", "travel"):
        for word in ("early", "late", "good", "bad", "new"):
            texts.append(f"{word} {topic} today")
            labels.append(topic)

    # On what is trained with alone: the first three topics.
    vectorize = keras.layers.TextVectorization(output_sequence_length=8)
    vectorize.adapt(texts[:15])
    episodes = keras_meta.episodes.from_text(
        texts,
        labels,
        ways=2,
        shots=1,
        queries=2,
        vectorize=vectorize,
        classes=["music", "sport", "weather"],
    )
    model = keras_meta.PrototypicalNetwork(
        keras.Sequential(
            [
                keras.Input((8,), dtype="int64"),
                keras.layers.Embedding(len(vectorize.get_vocabulary()), 16),
                keras.layers.GlobalAveragePooling1D(),
            ]
        )
    )
    x, y = next(iter(episodes))
    logits = model(x)  # [32, 4, 2]
    ```
    """
    check_sampling(ways, shots, queries, sampling)
    texts = _strings(texts)
    numbers, class_names = labeled_examples.number_labels(labels)
    if len(texts) != numbers.size:
        raise ValueError(
            "There must be one label for each text. Received: "
            f"{len(texts)} texts and {numbers.size} labels."
        )
    _check(vectorize)
    starts = range(0, len(texts), _CHUNK)
    x = examples_in_memory.join(
        [
            _vectorized(vectorize, texts[start : start + _CHUNK])
            for start in reading_progress(starts, len(starts), verbose)
        ],
        _SAME_LENGTH,
    )
    examples = LabeledExamples(x, numbers, groups, class_names, name="texts")
    return sample_episodes(examples, ways, shots, queries, **sampling)


def _strings(texts):
    """Returns a list of strings."""
    if isinstance(texts, (str, bytes)):
        raise TypeError(
            "`texts` must be a sequence of strings. Received: a single one, "
            f"{texts[:50]!r}."
        )
    if tf.is_tensor(texts):
        texts = texts.numpy()
    strings = [
        text.decode() if isinstance(text, bytes) else text for text in texts
    ]
    for number, text in enumerate(strings):
        if not isinstance(text, str):
            raise TypeError(
                "`texts` must hold strings. Received: text number "
                f"{number}, {text!r}, of type {type(text).__name__}."
            )
    return strings


def _check(vectorize):
    if not callable(vectorize):
        raise TypeError(
            "`vectorize` must be a Keras layer or a function of strings. "
            f"Received: vectorize={vectorize!r}."
        )
    if not isinstance(vectorize, keras.layers.TextVectorization):
        return
    if not vectorize.get_vocabulary(include_special_tokens=False):
        raise ValueError(
            "`vectorize` must have a vocabulary. Received: a "
            "`TextVectorization` that was not adapted. Call "
            "`vectorize.adapt(texts)` before, with the texts of the training "
            "classes alone, so that nothing of the others is known."
        )
    config = vectorize.get_config()
    is_padded = config["output_sequence_length"] and not config["ragged"]
    if config["output_mode"] == "int" and not is_padded:
        # Some texts may happen to be of one length, but others will come.
        raise ValueError(
            "`vectorize` must turn all texts into the same length. Received: "
            "a `TextVectorization` with output_sequence_length="
            f"{config['output_sequence_length']} and "
            f"ragged={config['ragged']}. {_SAME_LENGTH}"
        )


def _vectorized(vectorize, texts):
    """Returns texts as arrays `[texts, ...]`."""
    output = vectorize(tf.constant(texts))
    if isinstance(output, list):
        # Of rows, and no structure.
        differ = len({np.shape(row) for row in output}) > 1
        output = tf.ragged.constant(output) if differ else np.array(output)

    def array(leaf):
        if isinstance(leaf, tf.RaggedTensor):
            raise ValueError(
                "`vectorize` must turn all texts into the same length. "
                f"Received: a ragged tensor. {_SAME_LENGTH}"
            )
        if isinstance(leaf, tf.SparseTensor):
            raise ValueError(
                "`vectorize` must return dense tensors. Received: a sparse "
                "one. Leave out `sparse=True`, or use `tf.sparse.to_dense()`."
            )
        leaf = np.asarray(leaf)
        if leaf.shape[:1] != (len(texts),):
            raise ValueError(
                "`vectorize` must return a row for each text, "
                f"[{len(texts)}, ...] for {len(texts)} texts. Received: shape "
                f"{leaf.shape}."
            )
        return leaf

    return tf.nest.map_structure(array, output)
