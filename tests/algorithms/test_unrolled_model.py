"""How the outer gradient passes through the inner steps, or does not."""

import keras
import numpy as np
import pytest

import keras_meta
from keras_meta import update_rules
from tests.algorithms.test_maml import closed_form_gradient
from tests.algorithms.test_maml import compiled
from tests.algorithms.test_maml import conv_network
from tests.algorithms.test_maml import directional_differences
from tests.algorithms.test_maml import linear_network
from tests.algorithms.test_maml import outer_gradient
from tests.algorithms.test_maml import random_episodes
from tests.algorithms.test_maml import relative_difference

STEPS = 3


def linear_gradient(network=None, **arguments):
    x, y = random_episodes()
    model = compiled(
        network or linear_network(),
        "mse",
        inner_steps=STEPS,
        inner_learning_rate=0.1,
        **arguments,
    )
    w = model.network.get_weights()[0].astype("float64")
    return outer_gradient(model, x, y)[0], (w, x, y), model


def directional_gradient(model, x, y):
    """Returns the gradient along random directions, and its reference."""
    gradient = outer_gradient(model, x, y)
    generator = np.random.default_rng(1)
    directions = [
        [generator.normal(size=v.shape) for v in model.trainable_variables]
        for _ in range(3)
    ]
    measured = directional_differences(model, x, y, directions)
    actual = [
        sum(np.sum(g * d) for g, d in zip(gradient, direction))
        for direction in directions
    ]
    return actual, measured


@pytest.mark.parametrize("truncation", [1, 2, 3])
@pytest.mark.parametrize("recompute", [False, True])
def test_truncated_gradient_equals_closed_form(truncation, recompute):
    # What computes steps again are two loops of a graph.
    as_a_graph = recompute and truncation == 2
    gradient, (w, x, y), _ = linear_gradient(
        truncation=truncation,
        recompute=recompute,
        **{"task_mapping": "sequential"} if as_a_graph else {},
    )
    # The Jacobian of an inner step of linear regression, to the power of the
    # steps that are passed through.
    expected = []
    for task in range(len(y)):
        one = {key: value[task : task + 1] for key, value in x.items()}
        xs = x["support_x"][task]
        jacobian = np.eye(len(w)) - 2 * 0.1 / len(xs) * xs.T @ xs
        constant = closed_form_gradient(
            w, one, y[task : task + 1], 0.1, STEPS, first_order=True
        )
        power = np.linalg.matrix_power(jacobian, truncation)
        expected.append(power.T @ constant)
    assert relative_difference([gradient], [np.mean(expected, 0)]) < 1e-4


@pytest.mark.parametrize(
    "rule",
    [
        lambda: update_rules.GradientDescent(0.2),
        lambda: update_rules.Adam(0.05),
        lambda: update_rules.MetaSGD(0.2),
    ],
)
def test_recomputed_gradient_equals_the_plain_one(float64, rule):
    x, y = random_episodes(tasks=2, shape=(6, 6, 1), ways=3, dtype="float64")
    network = conv_network(dtype="float64")
    gradients = []
    for recompute in (False, True):
        model = compiled(
            network,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            inner_steps=2,
            update_rule=rule(),
            recompute=recompute,
            **{"task_mapping": "sequential"} if recompute else {},
        )
        gradients.append(outer_gradient(model, x, y))
    assert relative_difference(*gradients) < 1e-12


def test_recomputed_dropout_is_the_same_dropout():
    x, y = random_episodes(tasks=2)
    network = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(16, activation="tanh"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    gradients = []
    for recompute in (False, True):
        network.layers[1].seed_generator.state.assign([3, 7])
        model = compiled(
            network,
            "mse",
            inner_steps=2,
            inner_learning_rate=0.1,
            recompute=recompute,
            **{"task_mapping": "sequential"} if recompute else {},
        )
        gradients.append(outer_gradient(model, x, y))
    assert relative_difference(*gradients) < 1e-5


def test_recomputes_vectorized_eagerly_and_compiled():
    x, y = random_episodes()
    network = linear_network()
    arguments = dict(inner_steps=2, inner_learning_rate=0.1)
    expected = outer_gradient(compiled(network, "mse", **arguments), x, y)
    for mapping in ("sequential", "vectorized"):
        for how in ({"run_eagerly": True}, {"jit_compile": True}):
            model = compiled(
                network,
                "mse",
                compile_arguments=how,
                recompute=True,
                task_mapping=mapping,
                **arguments,
            )
            actual = outer_gradient(model, x, y)
            assert relative_difference(actual, expected) < 1e-5


def test_first_order_for_the_first_iterations():
    x, y = random_episodes()
    network = linear_network()
    arguments = dict(inner_steps=2, inner_learning_rate=0.1)
    # As a graph, which holds both of them.
    model = compiled(
        network,
        "mse",
        first_order_iterations=2,
        task_mapping="sequential",
        **arguments,
    )
    first = outer_gradient(
        compiled(network, "mse", first_order=True, **arguments), x, y
    )
    exact = outer_gradient(compiled(network, "mse", **arguments), x, y)
    for expected in (first, first, exact, exact):
        actual = outer_gradient(model, x, y)
        assert relative_difference(actual, expected) < 1e-5


def test_multi_step_loss_moves_to_the_last_step():
    x, y = random_episodes()
    network = linear_network()
    model = compiled(
        network,
        "mse",
        inner_steps=STEPS,
        inner_learning_rate=0.1,
        multi_step_loss_iterations=4,
        task_mapping="sequential",
    )
    w = network.get_weights()[0].astype("float64")
    after = [
        closed_form_gradient(w, x, y, 0.1, steps, first_order=False)
        for steps in range(1, STEPS + 1)
    ]
    for iteration in range(6):
        share = max(0.0, 1 - iteration / 4) / STEPS
        expected = share * (after[0] + after[1])
        expected = expected + (1 - 2 * share) * after[2]
        actual = outer_gradient(model, x, y)
        assert relative_difference(actual, [expected]) < 1e-4


@pytest.mark.parametrize("adapts", ["head", "body"])
def test_gradient_where_only_some_weights_adapt(float64, adapts):
    x, y = random_episodes(tasks=2, shape=(6, 6, 1), ways=3, dtype="float64")
    model = compiled(
        conv_network(dtype="float64"),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        inner_steps=2,
        inner_learning_rate=0.2,
        adapts=adapts,
    )
    actual, measured = directional_gradient(model, x, y)
    assert relative_difference(actual, measured) < 1e-8
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    for number, (old, new) in enumerate(
        zip(model.network.trainable_variables, adapted.trainable_variables)
    ):
        of_the_head = number >= len(adapted.trainable_variables) - 2
        moved = not np.array_equal(old, new)
        assert moved == (of_the_head == (adapts == "head"))


@keras.saving.register_keras_serializable(package="tests")
def is_first(layer):
    return layer.name.startswith("first")


def test_file_keeps_which_weights_adapt(tmp_path):
    network = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, activation="relu", name="first"),
            keras.layers.Dense(1, name="second"),
        ]
    )
    x, _ = random_episodes()
    for adapts in (is_first, "head"):
        model = compiled(network, "mse", inner_steps=2, adapts=adapts)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.adapts == adapts
        np.testing.assert_array_equal(model(x), loaded(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truncation": 3}, "not be more than `inner_steps`.*truncation=3"),
        ({"truncation": 0}, "`truncation` must be.*first_order=True"),
        ({"truncation": 1, "first_order": True}, "must not be given.*Received"),
        (
            {"first_order_iterations": 5, "first_order": True},
            "must not be given.*Received",
        ),
        ({"first_order_iterations": -1}, "must be an integer of 0 or more"),
        ({"multi_step_loss_iterations": 0.5}, "must be an integer of 0 or"),
        ({"recompute": "yes"}, "`recompute` must be one of"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_meta.MAML(linear_network(), inner_steps=2, **arguments)
