import math

import keras
import numpy as np
import pytest

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_attentive_neural_process import attention
from tests.algorithms.test_conditional_neural_process import check_answers
from tests.algorithms.test_conditional_neural_process import dense
from tests.algorithms.test_conditional_neural_process import embed
from tests.algorithms.test_conditional_neural_process import one_hot
from tests.algorithms.test_generating_learners import make_learner
from tests.algorithms.test_generating_learners import random_tasks


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.InContextLearner(
        network, 3, width=32, blocks=1, **settings
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


@np.vectorize
def gelu(x):
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def normalized(layer, x):
    scale, shift = layer.get_weights()
    return (x - x.mean()) / np.sqrt(x.var() + layer.epsilon) * scale + shift


def by_hand(model, support_x, support_y, query):
    """One query alone, token by token."""
    known = [
        dense(
            np.concatenate(
                [embed(model, x), one_hot(y, model.regression), [0.0]]
            ),
            model.tokens.get_weights(),
        )
        for x, y in zip(support_x, support_y)
    ]
    if model.places is not None:
        known = [
            token + place for token, place in zip(known, model.places.numpy())
        ]
    no_label = np.zeros(3)
    asked = dense(
        np.concatenate([embed(model, query), no_label, [1.0]]),
        model.tokens.get_weights(),
    )
    for block in model.transformer:
        before = [normalized(block.before_attention, token) for token in known]

        def step(token):
            token = token + attention(
                block.attention,
                normalized(block.before_attention, token),
                before,
                before,
            )
            return token + dense(
                normalized(block.before_dense, token),
                block.dense.get_weights(),
                gelu,
            )

        known, asked = [step(token) for token in known], step(asked)
    return dense(
        normalized(model.normalization, asked), model.head.get_weights()
    )


@pytest.mark.parametrize(
    "name, regression",
    [
        ("in_context_learner", False),
        ("in_context_learner", True),
        ("in_context_learner_with_places", False),
    ],
)
def test_answers_equal_a_transformer_with_loops(name, regression):
    model = make_learner(name, regression)
    check_answers(model, random_tasks(regression, tasks=2), by_hand)


def test_places_make_the_order_matter():
    x = random_tasks()
    turned = {
        **x,
        "support_x": x["support_x"][:, ::-1],
        "support_y": x["support_y"][:, ::-1],
    }
    with_places = make_learner("in_context_learner_with_places")
    assert not np.allclose(with_places(x), with_places(turned), atol=1e-2)
    without = make_learner("in_context_learner")
    np.testing.assert_allclose(without(x), without(turned), atol=1e-4)


def test_places_are_saved(tmp_path):
    model = make_learner("in_context_learner_with_places")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.max_supports == 7
    x = random_tasks()
    np.testing.assert_array_equal(loaded(x), model(x))
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    np.testing.assert_allclose(
        adapted(x["query_x"][0]), model(x)[0], rtol=1e-4, atol=1e-4
    )


def test_dropout_is_in_training_alone():
    network = keras_meta.backbones.mlp((4,), (6,), outputs=None)
    model = keras_meta.InContextLearner(
        network, 3, width=8, heads=2, blocks=1, dropout=0.5
    )
    x = random_tasks()
    first, second = (model(x, training=True) for _ in range(2))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(model(x), model(x))


@pytest.mark.parametrize("name", ["in_context_learner_with_places", "snail"])
def test_refuses_a_longer_support_set(name):
    model = make_learner(name)
    assert model.max_supports == 7
    x, y = random_tasks(supports=8), np.zeros((3, 3), "int32")
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    for call in (
        lambda: model(x),
        lambda: model.fit(x, y, verbose=0),
        lambda: model.predict(x, verbose=0),
        lambda: model.adapt(x["support_x"][0], x["support_y"][0]),
    ):
        message = "must not be longer.*8 support examples.*max_supports=7"
        with pytest.raises(ValueError, match=message):
            call()
    # As many as there are places is not too long.
    assert np.all(np.isfinite(model(random_tasks(supports=7))))


def test_refuses_bad_arguments():
    network = keras_meta.backbones.mlp((8,), (4,), outputs=None)
    for settings, message in (
        ({"heads": 3}, "`width` must be a multiple of `heads`.*=64 and heads="),
        ({"width": 0}, "`width` must be"),
        ({"blocks": 0}, "`blocks` must be"),
        ({"dropout": 1.0}, "`dropout` must be.*less than 1"),
        ({"max_supports": 0}, "`max_supports` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_meta.InContextLearner(network, 3, **settings)


class TestInContextLearner(contract.AlgorithmContract):
    steps_per_epoch = 120

    def make_model(self):
        return make_model()
