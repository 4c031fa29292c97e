import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta.algorithms import metric_model
from keras_meta.algorithms.adapted_embedding_model import AdaptedEmbeddingModel
from tests.algorithms import contract


@keras.saving.register_keras_serializable(package="test")
class NearestExample(metric_model.MetricModel):
    """The smallest metric learner: a class is its nearest example."""

    def __init__(self, network, distance="euclidean", ways=None, **kwargs):
        super().__init__(network, ways, **kwargs)
        self.distance = keras_meta.distances.get(distance)

    def score(self, support, labels, weight, queries, training):
        scores = -self.distance(queries, support)[..., None]
        of_class = (labels * weight[..., None])[:, None] > 0
        return tf.reduce_max(tf.where(of_class, scores, -1e6), axis=2)

    def get_config(self):
        distance = keras_meta.distances.serialize(self.distance)
        return {**super().get_config(), "distance": distance}

    @classmethod
    def from_config(cls, config):
        distance = keras_meta.distances.deserialize(config["distance"])
        return super().from_config({**config, "distance": distance})


def make_model(**arguments):
    network = keras_meta.backbones.mlp((8,), (16,), outputs=8)
    model = NearestExample(network, **arguments)
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def identity_network():
    inputs = keras.Input((8,))
    return keras.Model(inputs, keras.layers.Identity()(inputs))


@pytest.fixture
def batch():
    return next(iter(contract.blob_episodes()))


def adapted_to(model, x, task=0, **arguments):
    return model.adapt(x["support_x"][task], x["support_y"][task], **arguments)


def shifted(queries, references):
    """A distance that Keras could not find by its name."""
    return 1.0 + keras_meta.distances.euclidean(queries, references)


DISTANCES = {
    "euclidean": lambda: "euclidean",
    "learned": lambda: keras_meta.distances.LearnedDistance(8),
    "function": lambda: shifted,
}


@pytest.mark.parametrize("kind", DISTANCES)
@pytest.mark.parametrize(
    "algorithm", [NearestExample, keras_meta.PrototypicalNetwork]
)
def test_adapted_model_gives_the_logits_of_the_model(algorithm, kind, batch):
    network = keras_meta.backbones.mlp((8,), (16,), outputs=8)
    model = algorithm(network, distance=DISTANCES[kind]())
    for weight in model.trainable_weights:
        weight.assign(weight + 0.1)
    adapted = adapted_to(model, batch[0], task=1)
    assert type(adapted) is AdaptedEmbeddingModel
    answer = adapted.predict(batch[0]["query_x"][1], verbose=0)
    np.testing.assert_allclose(answer, model(batch[0])[1], rtol=1e-5)


def test_adapted_model_stays_as_it_was_when_the_model_is_trained(batch):
    model = make_model()
    adapted = adapted_to(model, batch[0])
    queries = batch[0]["query_x"][0]
    before = adapted.predict(queries, verbose=0)
    model_before = model(batch[0])[0]
    model.fit(contract.blob_episodes(), steps_per_epoch=5, verbose=0)
    assert not np.allclose(model(batch[0])[0], model_before)
    np.testing.assert_array_equal(adapted.predict(queries, verbose=0), before)


def test_adapted_model_ignores_padded_support(batch):
    model = make_model()
    x = batch[0]
    adapted = model.adapt(
        tf.concat([x["support_x"][0], x["query_x"][0]], axis=0),
        tf.concat([x["support_y"][0], batch[1][0]], axis=0),
        [1.0] * 6 + [0.0] * 12,
    )
    np.testing.assert_allclose(adapted(x["query_x"][0]), model(x)[0], rtol=1e-5)


def test_adapted_model_is_an_ordinary_keras_model(batch, tmp_path):
    adapted = adapted_to(make_model(), batch[0])
    queries = batch[0]["query_x"][0]
    assert adapted.predict(queries[:1], verbose=0).shape == (1, 3)
    assert adapted(keras.Input((8,))).shape == (None, 3)
    names = {variable.name for variable in adapted.non_trainable_variables}
    assert names == {"support", "labels", "support_weight"}
    adapted.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(
        exported.serve(queries), adapted(queries), rtol=1e-5
    )


def test_adapted_model_refuses_a_support_set_that_lacks_a_class(batch):
    model = make_model(ways=3)
    with pytest.raises(ValueError, match=r"lacks the classes \[2\]"):
        model.adapt(batch[0]["support_x"][0], [0, 0, 1, 1, 1, 1])


def test_logits_have_full_precision_in_mixed_precision(batch):
    x = {**batch[0], "support_y": tf.minimum(batch[0]["support_y"], 1)}
    x["support_y"] = tf.tensor_scatter_nd_update(x["support_y"], [[0, 5]], [2])
    network = keras_meta.backbones.mlp((8,), (16,), outputs=8)
    model = NearestExample(network, dtype="mixed_float16", unknown=True)
    model.unknown_threshold.assign(-1.0001)
    logits = model(x)
    assert logits.dtype == "float32"
    assert model.compute_output_spec(x).dtype == "float32"
    np.testing.assert_array_equal(logits[1:, :, 2], -1e9)
    np.testing.assert_array_equal(logits[..., 3], np.float32(-1.0001))


def make_unknown(kind, network=None, **arguments):
    """Returns a model that knows "none of these", not compiled."""
    network = network or keras_meta.backbones.mlp((8,), (16,), outputs=8)
    if kind == "nearest":
        return NearestExample(network, unknown=True, **arguments)
    return keras_meta.PrototypicalNetwork(
        network, distance=kind, unknown=True, **arguments
    )


every_unknown = pytest.mark.parametrize(
    "kind", ["nearest", "squared_euclidean", "euclidean", "cosine"]
)


def distractors(batch):
    """Returns episodes whose queries are of other classes, or mostly so."""
    x, y = batch
    # Each task is asked about the next one's queries, of other classes.
    return {**x, "query_x": tf.roll(x["query_x"], 1, axis=0)}


def many_episodes(classes, **settings):
    arrays = contract.blobs(classes=200, examples=10)
    return keras_meta.episodes.from_arrays(
        *arrays, classes=classes, shots=2, queries=4, **settings
    )


@every_unknown
def test_unknown_changes_nothing_before_it_is_calibrated(kind, batch):
    model = make_unknown(kind)
    assert model(batch[0]).shape == (4, 12, 4)
    config = {**model.get_config(), "unknown": False}
    plain = type(model).from_config(config)
    plain.network.set_weights(model.network.get_weights())
    logits = model(batch[0])
    np.testing.assert_array_equal(logits[..., :3], plain(batch[0]))
    np.testing.assert_array_equal(logits[..., 3], -1e9)


@every_unknown
def test_calibrated_model_knows_what_it_does_not_know(kind):
    model = make_unknown(kind, identity_network())
    # One way more than are used: then as many as are used are left.
    calibrated = model.calibrate_unknown(
        many_episodes(range(100), ways=5, episodes=200),
        false_accept_rate=0.1,
    )
    assert 0.099 < calibrated.false_accept_rate <= 0.1
    test = dict(ways=4, episodes=200, meta_batch_size=50)
    known = many_episodes(range(100, 150), **test)
    other = many_episodes(range(150, 200), **test, seed=1)
    accepted, right = [], []
    for (x, y), (other_x, _) in zip(known, other):
        right.append(np.argmax(model(x), axis=-1) == y)
        x["query_x"] = other_x["query_x"]
        accepted.append(np.argmax(model(x), axis=-1) < 4)
    # 3,200 queries of no class, 16 to an episode.
    assert abs(np.mean(accepted) - 0.1) < 0.03
    # Those of a class are refused about as often as was counted.
    assert np.mean(right) > 0.8
    refused = 1 - np.mean(right)
    assert abs(refused - calibrated.false_reject_rate) < 0.05


@every_unknown
def test_threshold_is_the_quantile_of_scores_without_the_class(kind):
    model = make_unknown(kind)
    episodes = contract.blob_episodes(episodes=3, meta_batch_size=2)
    known, unknown = [], []
    for x, y in episodes.unbatch():
        x = {key: value.numpy() for key, value in x.items()}
        for query, label in zip(x["query_x"], y.numpy()):
            for without, scores in ((False, known), (True, unknown)):
                kept = x["support_y"] != (label if without else -1)
                classes = x["support_y"][kept]
                task = {
                    "support_x": x["support_x"][kept][None],
                    "support_y": np.unique(classes, return_inverse=True)[1][
                        None
                    ],
                    "query_x": query[None, None],
                }
                scores.append(np.max(model(task)[0, 0, :-1]))
    result = model.calibrate_unknown(episodes, false_accept_rate=0.25)
    expected = np.sort(unknown)[::-1][len(unknown) // 4]
    np.testing.assert_allclose(result.threshold, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        result.false_reject_rate, np.mean(known < expected), atol=0.03
    )
    np.testing.assert_allclose(
        model.unknown_threshold, expected, rtol=1e-3, atol=1e-5
    )


def test_a_logit_that_equals_the_threshold_is_refused(batch):
    # What `calibrate()` counts is what `argmax` does, for every query.
    model = make_unknown("nearest")
    x, y = batch
    episodes = tf.data.Dataset.from_tensors((x, y))
    result = model.calibrate_unknown(episodes, false_accept_rate=0.0)
    highest = np.max(model(x)[..., :-1], axis=-1)
    accepted = np.argmax(model(x), axis=-1) < 3
    assert np.array_equal(accepted, highest > result.threshold)
    assert np.mean(~accepted) == result.false_reject_rate


@every_unknown
def test_calibration_of_padded_ways_and_weights(kind, batch):
    x, y = batch
    one = {key: value[:1] for key, value in x.items()}
    whole = tf.data.Dataset.from_tensors((one, y[:1]))
    # A way that the task lacks, padded examples, and queries that count for
    # nothing and would change everything.
    padded = {
        "support_x": tf.concat([one["support_x"], one["query_x"]], axis=1),
        "support_y": tf.concat([one["support_y"], 3 - 0 * y[:1]], axis=1),
        "support_weight": [[1.0] * 6 + [0.0] * 12],
        "query_x": tf.concat([one["query_x"], one["support_x"]], axis=1),
    }
    asked = tf.concat([y[:1], one["support_y"]], axis=1)
    weight = np.array([[1.0] * 12 + [0.0] * 6], "float32")
    padded = tf.data.Dataset.from_tensors((padded, asked, weight))
    results = []
    for episodes in (whole, padded):
        model = make_unknown(kind)
        keras.utils.set_random_seed(0)
        for variable in model.network.weights:
            variable.assign(keras.random.normal(variable.shape, seed=1))
        results.append(model.calibrate_unknown(episodes, 0.2))
    for name in ("threshold", "false_accept_rate", "false_reject_rate"):
        values = [getattr(result, name) for result in results]
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)


def test_queries_of_no_class_are_counted_as_they_are(batch):
    x, y = batch
    model = make_unknown("nearest")
    none = tf.fill(tf.shape(y), 3)
    # Nothing but these and one query of each class.
    mixed = {
        **x,
        "query_x": tf.concat(
            [distractors(batch)["query_x"], x["query_x"]], axis=1
        ),
    }
    labels = tf.concat([none, y], axis=1)
    episodes = tf.data.Dataset.from_tensors((mixed, labels))
    result = model.calibrate_unknown(episodes, 0.5)
    logits = model(distractors(batch))
    unknown = list(np.ravel(np.max(logits[..., :3], axis=-1)))
    for way in range(3):
        weight = tf.cast(x["support_y"] != way, "float32")
        left_out = model({**x, "support_weight": weight})[..., :3]
        unknown.extend(np.max(left_out, axis=-1)[y == way])
    expected = np.sort(unknown)[::-1][len(unknown) // 2]
    np.testing.assert_allclose(result.threshold, expected, rtol=1e-5)


@every_unknown
def test_adapted_loaded_and_exported_models_know_it_too(kind, batch, tmp_path):
    model = make_unknown(kind, ways=3)
    episodes = contract.blob_episodes(episodes=20, seed=3)
    model.calibrate_unknown(episodes, false_accept_rate=0.2)
    x = distractors(batch)
    expected = model(x)
    assert len(np.unique(np.argmax(expected, axis=-1))) == 4

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), expected)

    model.export(tmp_path / "exported", verbose=False)
    endpoint = tf.saved_model.load(tmp_path / "exported").signatures[
        "adapt_and_predict"
    ]
    (answer,) = endpoint(**x).values()
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)

    adapted = adapted_to(model, x)
    answer = adapted.predict(x["query_x"][0], verbose=0)
    np.testing.assert_allclose(
        keras.ops.softmax(answer),
        keras.ops.softmax(expected[0]),
        rtol=1e-3,
        atol=1e-5,
    )
    # Calibrating the model again does not change it.
    model.unknown_threshold.assign(1e9)
    np.testing.assert_array_equal(
        adapted.predict(x["query_x"][0], verbose=0), answer
    )
    # An adapted copy of a calibrated model can be adapted from, too.
    adapted.save(tmp_path / "adapted.keras")
    again = keras.saving.load_model(tmp_path / "adapted.keras")
    np.testing.assert_array_equal(
        again.predict(x["query_x"][0], verbose=0), answer
    )


@pytest.mark.parametrize("ways", [3, None])
def test_trains_and_evaluates_with_queries_of_no_class(ways, batch):
    model = make_model(unknown=True, ways=ways)
    model.calibrate_unknown(contract.blob_episodes(episodes=8))
    x = distractors(batch)
    y = tf.fill(tf.shape(batch[1]), 3)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    refused = np.mean(np.argmax(model(x), axis=-1) == 3)
    np.testing.assert_allclose(logs["accuracy"], refused, atol=1e-6)
    episodes = tf.data.Dataset.from_tensors((x, y))
    result = keras_meta.evaluate_episodes(model, episodes)
    np.testing.assert_allclose(result.mean, refused, atol=1e-6)
    before = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    model.fit(x, y, epochs=5, verbose=0)
    assert model.evaluate(x, y, verbose=0, return_dict=True)["loss"] < before
    for labels, bad in ((y + 1, "query"), (y, "support")):
        wrong = x
        if bad == "support":
            wrong = {**x, "support_y": x["support_y"] + 1}
        if bad == "support" and ways is None:
            # Then there are as many ways as the support set says.
            continue
        with pytest.raises(ValueError, match="none of these|Received.*4"):
            model.fit(wrong, labels, verbose=0)


def test_calibration_refuses_what_it_cannot_use(batch):
    episodes = contract.blob_episodes(episodes=4)
    with pytest.raises(ValueError, match="`unknown=True`. Received"):
        make_model().calibrate_unknown(episodes)
    with pytest.raises(ValueError, match="`unknown` must be one of.*'maybe'"):
        make_model(unknown="maybe")
    model = make_model(unknown=True)
    with pytest.raises(ValueError, match="must be finite.*endless"):
        model.calibrate_unknown(contract.blob_episodes())
    with pytest.raises(TypeError, match="`tf.data.Dataset`.*Received: tuple"):
        model.calibrate_unknown(batch)
    with pytest.raises(ValueError, match="labels of the queries"):
        model.calibrate_unknown(episodes.map(lambda x, y: x))
    with pytest.raises(ValueError, match="two classes or more"):
        model.calibrate_unknown(contract.blob_episodes(ways=1, episodes=4))
    with pytest.raises(ValueError, match="0 to accept"):
        model.calibrate_unknown(episodes.take(0))
    with pytest.raises(ValueError, match="`false_accept_rate` must be"):
        model.calibrate_unknown(episodes, 1.5)
    assert model.unknown_threshold.numpy() == np.float32(-1e9)


def test_refuses_queries_of_another_shape_than_the_support(batch):
    model = make_model()
    x = {**batch[0], "query_x": batch[0]["query_x"][..., :7]}
    for call in (
        lambda: model(x),
        lambda: model.fit(x, batch[1], verbose=0),
        lambda: model.predict(x, verbose=0),
    ):
        with pytest.raises(ValueError, match=r"same shape.*\(8,\).*\(7,\)"):
            call()


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

LEARNERS = {
    "prototypical": keras_meta.PrototypicalNetwork,
    "matching": keras_meta.MatchingNetwork,
    "context": lambda network, **arguments: keras_meta.MatchingNetwork(
        network, context_steps=1, **arguments
    ),
    "relation": keras_meta.RelationNetwork,
    "siamese": keras_meta.SiameseNetwork,
}

every_learner = pytest.mark.parametrize("learner", LEARNERS)


@every_learner
def test_queries_are_not_cut_to_the_integers_of_the_support(learner, batch):
    model = LEARNERS[learner](identity_network())
    x = {**batch[0], "support_x": tf.round(batch[0]["support_x"])}
    whole = {**x, "support_x": tf.cast(x["support_x"], "int64")}
    np.testing.assert_array_equal(model(whole), model(x))


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "SparseCategoricalCrossentropy",
        "crossentropy",
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.SparseCategoricalCrossentropy(),
        keras.losses.BinaryCrossentropy(),
        ["binary_crossentropy"],
    ],
)
def test_refuses_losses_of_probabilities(loss):
    for model in (
        NearestExample(identity_network()),
        keras_meta.SiameseNetwork(identity_network(), head="verification"),
    ):
        with pytest.raises(ValueError, match="must take logits.*Received: lo"):
            model.compile("sgd", loss=loss)


def test_takes_losses_of_logits_and_of_targets():
    def of_logits(y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True
        )

    for loss in (None, LOSS, of_logits, keras_meta.losses.ContrastiveLoss()):
        NearestExample(identity_network()).compile("sgd", loss)
    # The mean of one-hot targets is a probability.
    regression = keras_meta.MatchingNetwork(identity_network(), regression=True)
    regression.compile("sgd", "categorical_crossentropy")


@every_learner
def test_large_embeddings_are_compared_in_full_precision(learner, batch):
    # Their squares are above 65504, the largest number of half precision.
    x = {
        **batch[0],
        "support_x": tf.round(100 * batch[0]["support_x"]),
        "query_x": tf.round(100 * batch[0]["query_x"]),
    }
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = LEARNERS[learner](identity_network(), unknown=True)
        logits = model(x)
        answer = adapted_to(model, x)(x["query_x"][0])
    finally:
        keras.config.set_dtype_policy("float32")
    single = LEARNERS[learner](identity_network(), unknown=True)
    single.set_weights(model.get_weights())
    # The relation is a network, and computes in half precision.
    tolerance = 2e-2 if learner == "relation" else 1e-4
    np.testing.assert_allclose(logits, single(x), tolerance, 10 * tolerance)
    expected = keras.ops.softmax(logits[0])
    np.testing.assert_allclose(keras.ops.softmax(answer), expected, atol=1e-3)


@keras.saving.register_keras_serializable(package="test")
class OwnNetwork(keras.Model):
    """A network of one or two inputs that Keras knows no graph of."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4)

    def call(self, x):
        if isinstance(x, dict):
            return self.dense(x["left"]) - self.dense(x["right"])
        return self.dense(x)


def in_two(examples):
    return {"left": examples, "right": 2 * examples}


def two_input_network():
    inputs = {side: keras.Input((8,), name=side) for side in ("left", "right")}
    dense = keras.layers.Dense(4)
    return keras.Model(inputs, dense(inputs["left"]) - dense(inputs["right"]))


def own_network(examples):
    network = OwnNetwork()
    network(examples)
    return network


NETWORKS = {
    "two inputs": (two_input_network, in_two),
    "own": (lambda: own_network(np.zeros((1, 8), "float32")), lambda x: x),
    "own of two inputs": (
        lambda: own_network(in_two(np.zeros((1, 8), "float32"))),
        in_two,
    ),
}


@pytest.mark.parametrize("kind", NETWORKS)
@every_learner
def test_takes_networks_of_every_kind(learner, kind, batch, tmp_path):
    make, parts = NETWORKS[kind]
    model = LEARNERS[learner](make())
    model.compile(keras.optimizers.SGD(0.1), LOSS, run_eagerly=True)
    x = {**batch[0]}
    x["support_x"], x["query_x"] = parts(x["support_x"]), parts(x["query_x"])
    before = model.network.get_weights()[0]
    model.fit(x, batch[1], verbose=0)
    assert np.any(model.network.get_weights()[0] != before)
    adapted = model.adapt(
        parts(batch[0]["support_x"][0]), batch[0]["support_y"][0]
    )
    queries = parts(batch[0]["query_x"][0])
    np.testing.assert_allclose(
        keras.ops.softmax(adapted(queries)),
        keras.ops.softmax(model(x)[0]),
        rtol=1e-3,
        atol=1e-5,
    )
    adapted.save(tmp_path / "adapted.keras")
    loaded = keras.saving.load_model(tmp_path / "adapted.keras")
    np.testing.assert_array_equal(loaded(queries), adapted(queries))


@every_learner
def test_padding_may_be_nan(learner, batch):
    x, y = batch
    nan = tf.fill(x["query_x"].shape, np.nan)
    padded = {
        **x,
        "support_x": tf.concat([x["support_x"], nan], axis=1),
        "support_y": tf.concat([x["support_y"], y], axis=1),
        "support_weight": np.array([[1.0] * 6 + [0.0] * 12] * 4, "float32"),
    }
    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    model = LEARNERS[learner](network)
    np.testing.assert_allclose(model(padded), model(x), rtol=1e-4, atol=1e-5)
    model.compile("sgd", LOSS, run_eagerly=True)
    model.fit(padded, y, verbose=0)
    assert np.all(np.isfinite(network.get_weights()[0]))


def test_padded_targets_may_be_nan():
    model = keras_meta.MatchingNetwork(identity_network(), regression=True)
    x = {
        "support_x": np.ones((1, 3, 8), "float32"),
        "support_y": np.array([[[1.0], [2.0], [np.nan]]], "float32"),
        "support_weight": np.array([[1.0, 1.0, 0.0]], "float32"),
        "query_x": np.ones((1, 1, 8), "float32"),
    }
    np.testing.assert_allclose(model(x), [[[1.5]]])


def test_features_must_be_vectors():
    inputs = keras.Input((2, 2, 3))
    maps = keras.Model(inputs, keras.layers.Identity()(inputs))
    for learner in ("prototypical", "matching", "context", "siamese"):
        with pytest.raises(ValueError, match=r"one flat.*\(2, 2, 3\).*Flatten"):
            LEARNERS[learner](maps)
    LEARNERS["relation"](maps)


@pytest.mark.parametrize("ways", [None, 3])
@pytest.mark.parametrize(
    "key, change, message",
    [
        ("support_y", lambda y: y - 1, "numbered from 0.*-1|labels from -1"),
        (
            "support_y",
            lambda y: tf.one_hot(y, 3),
            "`support_y`.*float32.*argma",
        ),
        (
            "support_y",
            lambda y: y[..., None],
            r"`support_y` .*\(4, 6, 1\).*reg",
        ),
        (
            "y",
            lambda y: tf.cast(y, "float32"),
            "labels `y` of.*float32.*regres",
        ),
        ("y", lambda y: y[..., None], r"labels `y` of shape \(4, 12, 1\)"),
        ("support_weight", lambda w: -w, "finite and not neg.*Received: -1.0"),
        ("support_weight", lambda w: w * np.nan, "finite.*Received: nan"),
    ],
)
def test_refuses_labels_and_weights(key, change, message, ways, batch):
    model = NearestExample(identity_network(), ways=ways, unknown=True)
    # "mse" is the loss of those who mean a regression.
    model.compile("sgd", "mse" if key == "y" else LOSS)
    parts = {**batch[0], "y": batch[1], "support_weight": tf.ones((4, 6))}
    x = {**parts, key: change(parts[key])}
    y = x.pop("y")
    episodes = tf.data.Dataset.from_tensors((x, y))
    for call in (
        lambda: model.fit(x, y, verbose=0),
        lambda: model.evaluate(episodes, verbose=0),
        lambda: model.calibrate_unknown(episodes),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()


def test_labels_of_a_generator_are_checked_where_they_are_used(batch):
    model = make_model()
    x = tf.nest.map_structure(np.asarray, batch[0])
    x["support_y"] = x["support_y"].astype("float32")
    with pytest.raises(TypeError, match="class numbers.*`support_y`.*float32"):
        model.fit((part for part in [(x, batch[1])]), shuffle=False, verbose=0)


def test_refuses_other_parts_in_queries_than_in_the_support(batch):
    model = NearestExample(two_input_network())
    x = {**batch[0], "support_x": in_two(batch[0]["support_x"])}
    right = x["support_x"]["right"]
    for queries in ({"left": right, "other": right}, {"left": right}, right):
        with pytest.raises(ValueError, match="Support and query.*same parts"):
            model({**x, "query_x": queries})


def test_without_ways_xla_is_left_out_with_a_warning():
    model = NearestExample(identity_network())
    with pytest.warns(UserWarning, match="support `jit_compile=True`"):
        model.compile("sgd", LOSS, jit_compile=True)
    assert model.jit_compile is False
