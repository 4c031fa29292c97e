import keras
import numpy as np
import pytest

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_generating_learners import make_learner
from tests.algorithms.test_generating_learners import random_tasks


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.ConditionalNeuralProcess(
        network, 3, hidden_units=(32,), code_size=32, **settings
    )
    model.compile(
        keras.optimizers.Adam(0.003),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def dense(x, weights, activation=lambda x: np.maximum(x, 0)):
    """Dense layers with activations between them; kernels and biases."""
    for number, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2])):
        x = activation(x) if number else x
        x = x @ kernel + bias
    return x


def embed(model, x):
    """The embedding of one example by the network of `make_learner()`."""
    return np.tanh(dense(x, model.network.get_weights()))


def one_hot(labels, regression=False, outputs=3):
    return labels if regression else np.eye(outputs)[labels]


def codes_of(model, support_x, support_y):
    """The code of each pair of one task."""
    regression = model.regression
    return [
        dense(
            np.concatenate([embed(model, x), one_hot(y, regression)]),
            model.encoder.get_weights(),
        )
        for x, y in zip(support_x, support_y)
    ]


def decoded(model, query, known):
    """The answer to one query."""
    answer = dense(
        np.concatenate([embed(model, query), known]),
        model.decoder.get_weights(),
    )
    if not model.regression:
        return answer
    mean, spread = answer[:3], answer[3:]
    deviation = model.minimum_deviation + np.log(1 + np.exp(spread))
    return np.concatenate([mean, deviation])


def check_answers(model, x, by_hand):
    """Compares answers with `by_hand(model, support_x, support_y, query)`."""
    answers = model(x)
    for task, of_task in enumerate(answers):
        for query, answer in zip(x["query_x"][task], of_task):
            expected = by_hand(
                model, x["support_x"][task], x["support_y"][task], query
            )
            np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("regression", [False, True])
def test_answers_equal_loops_over_pairs(regression):
    def by_hand(model, support_x, support_y, query):
        known = np.mean(codes_of(model, support_x, support_y), axis=0)
        return decoded(model, query, known)

    model = make_learner("conditional_neural_process", regression)
    check_answers(model, random_tasks(regression), by_hand)


def test_support_weight_is_how_often_an_example_counts():
    model = make_learner("conditional_neural_process")
    x = random_tasks()
    twice = {
        **x,
        "support_x": np.concatenate([x["support_x"], x["support_x"][:, :1]], 1),
        "support_y": np.concatenate([x["support_y"], x["support_y"][:, :1]], 1),
    }
    weighted = {**x, "support_weight": np.array([[2.0, 1.0, 1.0, 1.0]] * 3)}
    np.testing.assert_allclose(model(weighted), model(twice), rtol=1e-3)


def test_deviations_are_never_below_the_least():
    model = make_learner("conditional_neural_process", regression=True)
    for layer in model.decoder.dense[-1:]:
        kernel, bias = layer.get_weights()
        layer.set_weights([0 * kernel, np.full_like(bias, -100.0)])
    np.testing.assert_allclose(model(random_tasks(True))[..., 3:], 0.01)


def test_refuses_bad_arguments():
    for settings, message in (
        ({"outputs": 0}, "`outputs` must be"),
        ({"hidden_units": 32}, "`hidden_units` must be a sequence.*32"),
        ({"hidden_units": (32, 0)}, "`hidden_units` must be"),
        ({"code_size": 0}, "`code_size` must be"),
        ({"minimum_deviation": 0.0}, "`minimum_deviation`.*above 0"),
        ({"regression": "yes"}, "`regression` must be one of"),
    ):
        network = keras_meta.backbones.mlp((8,), (4,), outputs=None)
        with pytest.raises(ValueError, match=message):
            keras_meta.ConditionalNeuralProcess(
                network, **{"outputs": 3} | settings
            )


def test_refuses_a_network_without_a_known_size():
    class Doubled(keras.Model):
        def call(self, x):
            return 2 * x

    network = Doubled()
    network(np.ones((2, 4), "float32"))
    network._build_shapes_dict = None
    with pytest.raises(ValueError, match="know the size.*`keras.Input`"):
        keras_meta.ConditionalNeuralProcess(network, 3)


class TestConditionalNeuralProcess(contract.AlgorithmContract):
    steps_per_epoch = 250

    def make_model(self):
        return make_model()
