import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_attentive_neural_process import softmax
from tests.algorithms.test_conditional_neural_process import embed
from tests.algorithms.test_conditional_neural_process import one_hot
from tests.algorithms.test_generating_learners import embedding_network
from tests.algorithms.test_generating_learners import make_learner
from tests.algorithms.test_generating_learners import random_tasks
from tests.algorithms.test_prototypical_network import identity_network
from tests.algorithms.test_ridge_head import DEGENERATE
from tests.algorithms.test_ridge_head import LOSS
from tests.algorithms.test_ridge_head import check_finite
from tests.algorithms.test_ridge_head import ridge


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.FrozenRepresentation(
        network, pretraining_outputs=20, **{"ways": 3} | settings
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


HEADS = ("nearest_centroid", "cosine", "ridge", "logistic")


def test_nearest_centroid_equals_distances_to_the_means():
    model = make_learner("nearest_centroid")
    x = random_tasks(tasks=2, supports=7)
    answers = model(x)
    for task in range(2):
        features = embed(model, x["support_x"][task])
        labels = x["support_y"][task]
        means = [features[labels == way].mean(axis=0) for way in range(3)]
        for query, answer in zip(x["query_x"][task], answers[task]):
            distances = [
                np.sum((embed(model, query) - mean) ** 2) for mean in means
            ]
            np.testing.assert_allclose(
                softmax(answer.numpy()),
                softmax(-np.array(distances)),
                rtol=1e-3,
                atol=1e-5,
            )


@pytest.mark.parametrize("supports", [4, 12])
@pytest.mark.parametrize("regression", [False, True])
def test_ridge_equals_the_formula_on_what_is_centered(regression, supports):
    name = "frozen_representation"
    model = make_learner(name, regression)
    x = random_tasks(regression, tasks=2, supports=supports)
    weight = np.random.default_rng(5).uniform(0.5, 2.0, size=(2, supports))
    answers = model({**x, "support_weight": weight.astype("float32")})
    for task in range(2):
        features = embed(model, x["support_x"][task])
        labels = one_hot(x["support_y"][task], regression)
        middle = np.average(features, axis=0, weights=weight[task])
        level = np.average(labels, axis=0, weights=weight[task])
        head = ridge(features - middle, labels - level, 1.0, weight[task])
        for query, answer in zip(x["query_x"][task], answers[task]):
            expected = (embed(model, query) - middle) @ head + level
            if not regression:
                expected = 10.0 * expected
            np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-3)


def features_of(model, x):
    """The embeddings of the first task's support set, of length 1."""
    features = embed(model, x["support_x"][0])
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


@pytest.mark.parametrize("strength", [0.1, 3.0])
def test_logistic_head_is_where_the_regularized_loss_has_no_slope(strength):
    model = keras_meta.FrozenRepresentation(
        embedding_network(), "logistic", strength=strength, iterations=1000
    )
    x = random_tasks(supports=7)
    weight = np.array([1.0, 2.0, 1.0, 0.5, 1.0, 1.0, 3.0], "float32")
    features, labels = features_of(model, x), x["support_y"][0]
    parts = [
        tf.constant(part[None], "float32")
        for part in (features, np.eye(3)[labels], weight)
    ]
    # As a graph, in which so many steps take no time.
    kernel, bias = (
        part[0].numpy() for part in tf.function(model.fit_head)(*parts)
    )
    slopes = [strength * kernel, strength * bias]
    for example, label, counts in zip(features, labels, weight):
        wrong = softmax(example @ kernel + bias) - np.eye(3)[label]
        slopes[0] = slopes[0] + counts * np.outer(example, wrong)
        slopes[1] = slopes[1] + counts * wrong
    for slope, part in zip(slopes, (kernel, bias)):
        assert np.max(np.abs(slope)) < 1e-4 < 0.01 < np.max(np.abs(part))
    # The default number of steps is near to that.
    few = keras_meta.FrozenRepresentation(
        model.network, "logistic", strength=strength
    )
    close, _ = tf.function(few.fit_head)(*parts)
    np.testing.assert_allclose(close[0], kernel, atol=0.05)
    # And that is what an adapted model ends in.
    adapted = few.adapt(x["support_x"][0], labels, weight)
    np.testing.assert_allclose(
        adapted.layers[-1].get_weights()[0], close[0], rtol=1e-3, atol=1e-4
    )


def test_cosine_head_gives_bounded_cosines_and_fits_the_support_set():
    model = keras_meta.FrozenRepresentation(
        embedding_network(), "cosine", sharpness=7.0
    )
    x = random_tasks(supports=6)
    labels = x["support_y"][0]
    # Of a direction of its own for each class.
    x["support_x"] = 0.3 * x["support_x"] + 0.5 * np.eye(4)[labels]
    x["support_x"] = x["support_x"].astype("float32")
    adapted = model.adapt(x["support_x"][0], labels)
    kernel, bias = adapted.layers[-1].get_weights()
    np.testing.assert_allclose(
        np.linalg.norm(kernel, axis=0), [7.0] * 3, rtol=1e-4
    )
    np.testing.assert_array_equal(bias, 0.0)
    features = features_of(model, x)
    logits = adapted(x["support_x"][0]).numpy()
    np.testing.assert_allclose(logits, features @ kernel, atol=1e-4)
    assert np.max(np.abs(logits)) <= 7.0 + 1e-4
    np.testing.assert_array_equal(np.argmax(logits, -1), labels)
    # The steps have made more of it than the class means that it starts as.
    means = np.stack([features[way::3].mean(axis=0) for way in range(3)], 1)
    means *= 7.0 / np.linalg.norm(means, axis=0)
    assert LOSS(labels, logits) < 0.8 * LOSS(labels, features @ means)


@pytest.mark.parametrize("classifier", HEADS)
def test_degenerate_support_sets_have_finite_answers(classifier):
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, use_bias=False)]
    )
    model = keras_meta.FrozenRepresentation(
        network, classifier, iterations=5, ways=5
    )
    for change in DEGENERATE.values():
        x = random_tasks(supports=3)
        x["support_x"] = change(x["support_x"])
        x["support_y"] = x["support_y"][:, : x["support_x"].shape[1]]
        check_finite(model, x)


def test_fit_is_ordinary_training_with_a_dense_head():
    x, labels = contract.blobs(classes=5, examples=4)
    model = keras_meta.FrozenRepresentation(
        keras_meta.backbones.mlp((8,), (6,), outputs=None),
        pretraining_outputs=5,
    )
    copy = keras.models.clone_model(model.network)
    plain = keras.Sequential([copy, keras.layers.Dense(5)])
    plain.build((None, 8))
    copy.set_weights(model.network.get_weights())
    plain.layers[-1].set_weights(model.pretraining_head.get_weights())
    logs = []
    for either in (model, plain):
        either.compile(keras.optimizers.SGD(0.1), LOSS, metrics=["accuracy"])
        # Two steps, the second of a smaller batch.
        history = either.fit(x, labels, batch_size=12, shuffle=False, verbose=0)
        logs.append(history.history)
    assert set(logs[0]) == set(logs[1]) == {"loss", "accuracy"}
    for name in logs[0]:
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-4)
    for one, other in zip(model.network.get_weights(), copy.get_weights()):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model(x), plain(x), rtol=1e-3, atol=1e-4)


def test_cosine_is_pretrained_with_a_head_of_cosines():
    model = keras_meta.FrozenRepresentation(
        embedding_network(), "cosine", pretraining_outputs=5, sharpness=3.0
    )
    x = random_tasks()["query_x"][0]
    features = embed(model, x)
    vectors, _ = model.pretraining_head.get_weights()
    expected = [
        [3.0 * f @ v / np.linalg.norm(f) / np.linalg.norm(v) for v in vectors.T]
        for f in features
    ]
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


def test_adapts_a_pretrained_network_of_keras_applications():
    backbone = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3),
        alpha=0.35,
        include_top=False,
        weights=None,
        pooling="avg",
    )
    model = keras_meta.FrozenRepresentation(backbone, "nearest_centroid")
    generator = np.random.default_rng(0)
    support = generator.uniform(-1, 1, size=(4, 32, 32, 3)).astype("float32")
    labels = np.array([0, 1, 0, 1])
    adapted = model.adapt(support, labels)
    features = backbone(support, training=False).numpy()
    means = [features[labels == way].mean(axis=0) for way in range(2)]
    differences = [
        np.sum((f - means[1]) ** 2) - np.sum((f - means[0]) ** 2)
        for f in features
    ]
    assert np.min(np.abs(differences)) > 0
    logits = adapted(support).numpy()
    np.testing.assert_allclose(
        logits[:, 0] - logits[:, 1], differences, rtol=1e-2, atol=1e-6
    )


def test_refuses_to_be_trained_on_episodes():
    model = make_model()
    before = model.get_weights()
    for train in (
        lambda: model.fit(contract.blob_episodes(episodes=4), verbose=0),
        lambda: model.train_on_batch(*next(iter(contract.blob_episodes()))),
    ):
        message = "FrozenRepresentation must be trained on.*not on episodes"
        with pytest.raises(ValueError, match=message):
            train()
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_refuses_bad_training_data():
    model = make_model()
    x, labels = contract.blobs()
    for y, error, message in (
        (labels + 1, ValueError, "labels up to 20 with pretraining_outputs=20"),
        (labels - 1, ValueError, "between 0 and `pretraining_outputs`"),
        (labels.astype("float32"), TypeError, "integers.*float32"),
        (None, ValueError, "labels must be given.*y=None"),
    ):
        with pytest.raises(error, match=message):
            model.fit(x, y, verbose=0)
    model = keras_meta.FrozenRepresentation(identity_network(8))
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match="many classes.*outputs=None"):
        model.fit(x, labels, verbose=0)


def test_refuses_bad_arguments():
    for settings, message in (
        ({"classifier": "nearest"}, "`classifier` must be one of.*'nearest'"),
        ({"strength": 0.0}, "`strength` must be.*above 0"),
        ({"sharpness": 0.0}, "`sharpness` must be.*above 0"),
        ({"iterations": 0}, "`iterations` must be"),
        ({"pretraining_outputs": 0}, "`pretraining_outputs` must be"),
        ({"regression": True}, "must be 'ridge'.*'nearest_centroid'"),
        (
            {"regression": True, "classifier": "ridge", "ways": 3},
            "no classes.*ways=3",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            keras_meta.FrozenRepresentation(identity_network(), **settings)


class TestFrozenRepresentation(contract.AlgorithmContract):
    def make_model(self):
        return make_model()

    def training_data(self):
        return keras_meta.episodes.examples(*contract.blobs()).repeat()
