import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_conditional_neural_process import embed
from tests.algorithms.test_conditional_neural_process import one_hot
from tests.algorithms.test_generating_learners import make_learner
from tests.algorithms.test_generating_learners import random_tasks
from tests.algorithms.test_prototypical_network import identity_network


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.RidgeHead(network, **{"ways": 3} | settings)
    model.compile(
        keras.optimizers.Adam(0.001),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def ridge(x, y, strength, weight):
    """The head that minimizes the squared errors, and its own square."""
    weighted = x * weight[:, None]
    gram = weighted.T @ x + strength * np.eye(x.shape[1])
    return np.linalg.solve(gram, weighted.T @ y)


# Fewer examples than features (six, and the bias), and more.
@pytest.mark.parametrize("supports", [4, 12])
@pytest.mark.parametrize("regression", [False, True])
def test_answers_equal_the_formula(regression, supports):
    model = make_learner("ridge_head", regression)
    x = random_tasks(regression, tasks=2, supports=supports)
    weight = np.random.default_rng(5).uniform(0.5, 2.0, size=(2, supports))
    strength = np.exp(model.log_strength.numpy())
    sharpness, shift = 1.0, 0.0
    if not regression:
        sharpness = np.exp(model.log_sharpness.numpy())
        shift = model.shift.numpy()
    answers = model({**x, "support_weight": weight.astype("float32")})
    for task in range(2):
        features = embed(model, x["support_x"][task])
        ones = np.ones((supports, 1))
        head = ridge(
            np.concatenate([features, ones], axis=1),
            one_hot(x["support_y"][task], regression),
            strength,
            weight[task],
        )
        for query, answer in zip(x["query_x"][task], answers[task]):
            expected = np.append(embed(model, query), 1.0) @ head
            np.testing.assert_allclose(
                answer, sharpness * expected + shift, rtol=1e-3, atol=1e-3
            )


def test_strength_and_sharpness_begin_as_given_and_are_learned():
    model = keras_meta.RidgeHead(
        identity_network(), strength=2.0, sharpness=3.0
    )
    np.testing.assert_allclose(np.exp(model.log_strength), 2.0, rtol=1e-6)
    np.testing.assert_allclose(np.exp(model.log_sharpness), 3.0, rtol=1e-6)
    model.compile("sgd", LOSS, run_eagerly=True)
    x = random_tasks()
    model.train_on_batch(x, np.tile(np.arange(3), (3, 1)))
    assert np.exp(model.log_strength) != pytest.approx(2.0, rel=1e-6)
    assert np.exp(model.log_sharpness) != pytest.approx(3.0, rel=1e-6)
    assert len(model.trainable_weights) == 3
    # A regression has no logits to be sharp.
    model = keras_meta.RidgeHead(identity_network(), regression=True)
    assert len(model.trainable_weights) == 1


# What is singular without the strength, and all but singular with it.
DEGENERATE = {
    "duplicates": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "zeros": np.zeros_like,
    "large": lambda x: 1e4 * x,
    "large duplicates": lambda x: 1e4 * np.broadcast_to(x[:, :1], x.shape),
    "a single example": lambda x: x[:, :1],
}


def check_finite(model, x):
    with tf.GradientTape() as tape:
        answers = model(x)
        labels = tf.zeros(answers.shape[:2], "int32")
        # Logits of this size are no longer what a loss is made for.
        loss = LOSS(labels, tf.clip_by_value(answers, -1e6, 1e6))
    assert np.all(np.isfinite(answers))
    slopes = tape.gradient(loss, model.network.trainable_variables)
    assert slopes
    for slope in slopes:
        assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("kind", DEGENERATE)
def test_singular_problems_have_finite_answers_and_gradients(kind):
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, use_bias=False)]
    )
    model = keras_meta.RidgeHead(network, ways=5)
    # More ways than examples, and examples than features.
    for supports in (3, 20):
        x = random_tasks(supports=supports)
        x["support_x"] = DEGENERATE[kind](x["support_x"])
        x["support_y"] = x["support_y"][:, : x["support_x"].shape[1]]
        check_finite(model, x)


@pytest.mark.parametrize(
    "learner", [keras_meta.RidgeHead, keras_meta.PrototypicalNetwork]
)
@pytest.mark.parametrize("called_before", [False, True])
def test_adapts_a_sequential_network(learner, called_before):
    # `input` of such a network is that of its first call, if any.
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6)])
    if called_before:
        network(keras.Input((4,)))
    model, x = learner(network), random_tasks()
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    np.testing.assert_allclose(
        keras.ops.softmax(adapted(x["query_x"][0])),
        keras.ops.softmax(model(x)[0]),
        rtol=1e-3,
        atol=1e-4,
    )


def test_adapted_model_is_a_network_and_a_dense_layer():
    model = make_learner("ridge_head")
    x = random_tasks()
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    assert isinstance(adapted.layers[-1], keras.layers.Dense)
    np.testing.assert_allclose(
        adapted(x["query_x"][0]), model(x)[0], rtol=1e-3, atol=1e-3
    )


def test_refuses_bad_arguments():
    for settings, message in (
        ({"strength": 0.0}, "`strength` must be.*above 0"),
        ({"sharpness": -1.0}, "`sharpness` must be.*above 0"),
        ({"regression": "no"}, "`regression` must be one of"),
        ({"ways": 0}, "`ways` must be"),
        ({"regression": True, "ways": 3}, "no classes.*ways=3"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_meta.RidgeHead(identity_network(), **settings)


class TestRidgeHead(contract.AlgorithmContract):
    def make_model(self):
        return make_model()
