import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes

WORDS = ["zero", "one", "two", "three", "four", "five"]
SAMPLING = dict(
    ways=3, shots=1, queries=2, meta_batch_size=4, episodes=8, seed=3
)


def sentences(each=4):
    """Returns texts, their topics, and the numbers of their words."""
    generator = np.random.default_rng(0)
    topics = generator.permutation(np.repeat(["sea", "sky", "air"], each))
    numbers = generator.integers(0, len(WORDS), (len(topics), 3))
    texts = [" ".join(WORDS[n] for n in row) for row in numbers]
    return texts, topics.tolist(), numbers


def text_vectorization(**settings):
    settings = dict(output_sequence_length=5) | settings
    return keras.layers.TextVectorization(vocabulary=WORDS, **settings)


def assert_same(one, other):
    for pair in zip(one, other, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, *pair)


def expected_of(topics, numbers):
    # 0 stands for padding there, and 1 for unknown words.
    x = np.pad(numbers + 2, [(0, 0), (0, 2)])
    y = [sorted(set(topics)).index(topic) for topic in topics]
    return episodes.from_arrays(x, y, **SAMPLING)


@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        np.array,
        tf.constant,
        lambda texts: [text.encode() for text in texts],
        lambda texts: np.array(texts, object),
    ],
    ids=["list", "tuple", "array", "tensor", "bytes", "objects"],
)
def test_gives_the_episodes_of_the_numbers_of_words(kind):
    texts, topics, numbers = sentences()
    found = episodes.from_text(
        kind(texts), kind(topics), vectorize=text_vectorization(), **SAMPLING
    )
    assert_same(found, expected_of(topics, numbers))


def test_texts_are_vectorized_once_in_parts():
    texts, topics, _ = sentences(each=1000)
    sizes = []

    def length(batch):
        assert batch.dtype == tf.string
        sizes.append(len(batch))
        return tf.strings.length(batch)

    found = episodes.from_text(texts, topics, vectorize=length, **SAMPLING)
    _, y = np.unique(topics, return_inverse=True)
    expected = episodes.from_arrays(
        np.array([len(text) for text in texts], "int32"), y, **SAMPLING
    )
    assert_same(found, expected)
    assert sum(sizes) == 3000 and len(sizes) > 1


def test_an_adapted_layer_and_integers_as_labels():
    texts, topics, _ = sentences()
    layer = keras.layers.TextVectorization(output_mode="multi_hot")
    layer.adapt(texts)
    y = np.array([{"sea": -4, "sky": 7, "air": 20}[topic] for topic in topics])
    found = episodes.from_text(texts, y, vectorize=layer, **SAMPLING)
    vocabulary = layer.get_vocabulary()
    x = [[word in text.split() for word in vocabulary] for text in texts]
    expected = episodes.from_arrays(np.array(x, "int64"), y, **SAMPLING)
    assert_same(found, expected)


def test_what_vectorize_returns_may_be_nested_or_lists():
    texts, topics, numbers = sentences()
    layer = text_vectorization()
    found = episodes.from_text(
        texts,
        topics,
        vectorize=lambda batch: {"a": layer(batch), "b": (layer(batch) > 0,)},
        **SAMPLING,
    )
    plain = expected_of(topics, numbers)
    expected = [(x, y) for x, y in plain]
    for (x, y), (expected_x, expected_y) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(y, expected_y)
        given = expected_x["query_x"].numpy()
        np.testing.assert_array_equal(x["query_x"]["a"], given)
        np.testing.assert_array_equal(x["query_x"]["b"][0], given > 0)
    lists = episodes.from_text(
        texts,
        topics,
        vectorize=lambda batch: layer(batch).numpy().tolist(),
        **SAMPLING,
    )
    assert_same(lists, plain)


def test_classes_and_groups_by_name():
    texts, topics, _ = sentences()
    settings = SAMPLING | dict(ways=2, vectorize=text_vectorization())
    by_class = episodes.from_text(
        texts, topics, classes=["sea", "air"], **settings
    )
    groups = ["above", "below", "above"]  # Of air, sea and sky.
    by_group = episodes.from_text(
        texts, topics, groups=groups, classes=["below", "air"], **settings
    )
    assert_same(by_class, by_group)
    of_each = [{"sea": "below"}.get(topic, "above") for topic in topics]
    by_example = episodes.from_text(
        texts, topics, groups=of_each, classes=["below", "air"], **settings
    )
    assert_same(by_class, by_example)
    with pytest.raises(ValueError, match="'moon'.*There are: .*'below'"):
        episodes.from_text(
            texts, topics, groups=groups, classes=["moon"], **settings
        )


@pytest.mark.parametrize("mode", ["int", "multi_hot", "tf_idf"])
def test_a_layer_that_was_never_adapted_is_an_error(mode):
    texts, topics, _ = sentences()
    layer = keras.layers.TextVectorization(output_mode=mode)
    match = "not adapted. Call `vectorize.adapt.*training classes alone"
    with pytest.raises(ValueError, match=match):
        episodes.from_text(texts, topics, vectorize=layer, **SAMPLING)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(output_sequence_length=None), "output_sequence_length=None"),
        (dict(output_sequence_length=None, ragged=True), "ragged=True. Give"),
        (dict(ragged=True), "ragged=True. Give `keras"),
        (
            dict(
                output_mode="multi_hot",
                output_sequence_length=None,
                sparse=True,
            ),
            "dense tensors.*Leave out `sparse=True`",
        ),
    ],
)
def test_texts_of_different_lengths_are_an_error(settings, message):
    texts, topics, _ = sentences()
    with pytest.raises(ValueError, match=message):
        episodes.from_text(
            texts, topics, vectorize=text_vectorization(**settings), **SAMPLING
        )


def words_of(batch):
    return tf.strings.split(batch)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(texts="sea"), TypeError, "a single one, 'sea'"),
        (dict(texts=["a", 3.5, "b"]), TypeError, "text number 1, 3.5, of type"),
        (dict(texts=["a", None, "b"]), TypeError, "number 1, None"),
        (dict(texts=["a"]), ValueError, "1 texts and 12 labels"),
        (dict(labels=["a"]), ValueError, "12 texts and 1 labels"),
        (dict(texts=[], labels=[]), ValueError, "at least one example"),
        (dict(labels=[0.5] * 12), TypeError, "must hold integers"),
        (dict(vectorize="tf_idf"), TypeError, "vectorize='tf_idf'"),
        (dict(vectorize=tf.size), ValueError, r"Received: shape \(\)"),
        (dict(vectorize=words_of), ValueError, "a ragged tensor. Give"),
        (
            dict(vectorize=lambda batch: [[0] * (n + 1) for n in range(12)]),
            ValueError,
            "a ragged tensor. Give",
        ),
    ],
)
def test_refuses(change, error, message):
    texts, topics, _ = sentences()
    given = dict(texts=texts, labels=topics, vectorize=text_vectorization())
    with pytest.raises(error, match=message):
        episodes.from_text(**given | change, **SAMPLING)


def test_lengths_that_differ_from_part_to_part_are_an_error():
    texts = ["a"] * 2000 + ["a b"] * 1000
    layer = text_vectorization(output_sequence_length=None)
    match = r"example 2048 of shape \(2,\), but example 0 of shape \(1,\). Give"
    with pytest.raises(ValueError, match="All examples must have.*" + match):
        episodes.from_text(
            # The second part has texts of two words and is padded to that.
            texts[:1024] + ["a"] * 1024 + ["a b"] * 952,
            np.arange(3000) % 3,
            vectorize=lambda batch: layer(batch),
            **SAMPLING,
        )
