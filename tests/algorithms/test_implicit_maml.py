"""The implicit gradient, against closed forms and the unrolled gradient."""

import keras
import numpy as np
import pytest

import keras_meta
from keras_meta import update_rules
from tests.algorithms import contract
from tests.algorithms.test_maml import linear_network
from tests.algorithms.test_maml import outer_gradient
from tests.algorithms.test_maml import random_episodes
from tests.algorithms.test_maml import relative_difference

STRENGTH = 0.7


def compiled(network, **arguments):
    settings = dict(
        inner_learning_rate=0.1,
        proximal_strength=STRENGTH,
        conjugate_gradient_steps=20,
    )
    model = keras_meta.ImplicitMAML(network, **settings | arguments)
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    if "task_mapping" not in arguments:
        contract.untraced(model)
    return model


def closed_form(w, x, y, damping=0.0):
    """The implicit gradient of linear regression by matrix algebra."""
    gradients = []
    for task in range(len(y)):
        xs, ys = x["support_x"][task], x["support_y"][task]
        xq, yq = x["query_x"][task], y[task]
        curvature = 2 / len(xs) * xs.T @ xs
        spring = STRENGTH * np.eye(len(w))
        adapted = np.linalg.solve(
            curvature + spring, 2 / len(xs) * xs.T @ ys + STRENGTH * w
        )
        gradient = 2 / len(xq) * xq.T @ (xq @ adapted - yq)
        system = np.eye(len(w)) + curvature / (STRENGTH + damping)
        gradients.append(np.linalg.solve(system, gradient))
    return np.mean(gradients, axis=0)


@pytest.mark.parametrize(
    "damping, mapping",
    [(0.0, "sequential"), (2.0, "sequential"), (2.0, "vectorized")],
)
def test_gradient_equals_closed_form_on_linear_regression(
    float64, damping, mapping
):
    x, y = random_episodes(dtype="float64")
    model = compiled(
        linear_network(),
        inner_steps=100,
        inner_learning_rate=0.15,
        damping=damping,
        task_mapping=mapping,
    )
    w = model.network.get_weights()[0]
    expected = closed_form(w, x, y, damping)
    actual = outer_gradient(model, x, y)
    assert relative_difference(actual, [expected]) < 1e-5


def smooth_network():
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(3, activation="tanh", name="body"),
            keras.layers.Dense(1, name="head"),
        ]
    )


@pytest.mark.parametrize("adapts", ["all", "head"])
def test_gradient_converges_to_that_of_the_solved_problem(float64, adapts):
    x, y = random_episodes(tasks=2, dtype="float64")
    network = smooth_network()

    def query_loss(model):
        return float(model.compute_loss(x, y, model(x, training=True)))

    settings = dict(
        inner_learning_rate=0.15,
        proximal_strength=5.0,
        adapts=adapts,
    )
    solved = compiled(network, inner_steps=30, **settings)
    generator = np.random.default_rng(1)
    variables = network.trainable_variables
    start = [v.numpy() for v in variables]
    direction = [generator.normal(size=v.shape) for v in variables]
    values = []
    for sign in (1, -1):
        for variable, value, change in zip(variables, start, direction):
            variable.assign(value + sign * 1e-5 * change)
        values.append(query_loss(solved))
    for variable, value in zip(variables, start):
        variable.assign(value)
    exact = (values[0] - values[1]) / 2e-5

    errors = []
    for steps in (1, 5, 12):
        model = compiled(network, inner_steps=steps, **settings)
        gradient = outer_gradient(model, x, y)
        slope = sum(np.sum(g * d) for g, d in zip(gradient, direction))
        errors.append(abs(slope - exact) / abs(exact))
    assert errors[0] > 5 * errors[1] > 25 * errors[2], errors
    assert errors[2] < 1e-3, errors


def test_much_damping_gives_the_gradient_of_first_order():
    x, y = random_episodes()
    network = linear_network()
    model = compiled(network, inner_steps=5, damping=1e6)
    first_order = compiled(network, inner_steps=5, damping=1e9)
    expected = outer_gradient(first_order, x, y)
    assert relative_difference(outer_gradient(model, x, y), expected) < 1e-4
    # Without any inner step to take, both are the plain gradient.
    w = network.get_weights()[0]
    plain = compiled(network, inner_steps=1, inner_learning_rate=1e-12)
    plain.damping = 1e9
    by_hand = np.mean(
        [2 / len(yq) * xq.T @ (xq @ w - yq) for xq, yq in zip(x["query_x"], y)],
        axis=0,
    )
    assert relative_difference(outer_gradient(plain, x, y), [by_hand]) < 1e-4


def test_regularizers_are_of_the_shared_weights():
    x, y = random_episodes()
    plain = compiled(linear_network(), inner_steps=5)
    regularized = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(
                1, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.3)
            ),
        ]
    )
    regularized.set_weights(plain.network.get_weights())
    expected = outer_gradient(plain, x, y)[0]
    expected = expected + 2 * 0.3 * plain.network.get_weights()[0]
    actual = outer_gradient(compiled(regularized, inner_steps=5), x, y)
    assert relative_difference(actual, [expected]) < 1e-5


class TestImplicitMAML(contract.AlgorithmContract):
    def make_model(self):
        model = keras_meta.ImplicitMAML(
            keras_meta.backbones.mlp((8,), (16,), outputs=3),
            inner_steps=4,
            inner_learning_rate=0.5,
            proximal_strength=0.5,
            conjugate_gradient_steps=2,
        )
        model.compile(
            keras.optimizers.Adam(0.01),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"damping": -0.1}, "`damping` must be .* 0 or more.*damping=-0.1"),
        ({"proximal_strength": 0.0}, "`proximal_strength` must be"),
        ({"conjugate_gradient_steps": 0}, "`conjugate_gradient_steps` must"),
        ({"normalization_statistics": "per_step"}, "must be one of 'batch'"),
        (
            {
                "update_rule": update_rules.MetaSGD(),
                "inner_learning_rate": None,
            },
            "nothing to learn.*Received",
        ),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        compiled(linear_network(), **arguments)
