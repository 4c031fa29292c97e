"""The outer gradient of MAML, against references computed another way."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta


def random_episodes(
    tasks=3, support=6, query=7, shape=(5,), ways=None, seed=0, dtype="float32"
):
    generator = np.random.default_rng(seed)

    def labels(count):
        if ways is None:
            return generator.normal(size=(tasks, count, 1)).astype(dtype)
        return generator.integers(0, ways, size=(tasks, count))

    x = {
        "support_x": generator.normal(size=(tasks, support, *shape)),
        "query_x": generator.normal(size=(tasks, query, *shape)),
    }
    x = {key: value.astype(dtype) for key, value in x.items()}
    x["support_y"] = labels(support)
    return x, labels(query)


def conv_network(ways=3, dtype="float32"):
    """A small smooth network with batch normalization."""
    inputs = keras.Input((6, 6, 1), dtype=dtype)
    x = keras.layers.Conv2D(3, 3, strides=2)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("tanh")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(4)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("tanh")(x)
    return keras.Model(inputs, keras.layers.Dense(ways)(x))


def outer_gradient(model, x, y, sample_weight=None):
    """Reads the gradient off a step of SGD with rate 1."""
    before = [v.numpy() for v in model.trainable_variables]
    model.train_on_batch(x, y, sample_weight)
    after = [v.numpy() for v in model.trainable_variables]
    for variable, value in zip(model.trainable_variables, before):
        variable.assign(value)
    return [old - new for old, new in zip(before, after)]


def compiled(network, loss, optimizer=None, compile_arguments={}, **arguments):
    model = keras_meta.MAML(network, **arguments)
    model.compile(
        optimizer or keras.optimizers.SGD(1.0), loss=loss, **compile_arguments
    )
    return model


def linear_network(inputs=5):
    return keras.Sequential(
        [keras.Input((inputs,)), keras.layers.Dense(1, use_bias=False)]
    )


def closed_form_gradient(w, x, y, rate, steps, first_order):
    """The outer gradient of linear regression by matrix algebra.

    An inner step is affine in the weights, w -> a w + b, so that k steps
    have the Jacobian a^k.
    """
    gradients = []
    for task in range(len(y)):
        xs, ys = x["support_x"][task], x["support_y"][task]
        xq, yq = x["query_x"][task], y[task]
        a = np.eye(len(w)) - 2 * rate / len(xs) * xs.T @ xs
        b = 2 * rate / len(xs) * xs.T @ ys
        adapted = w
        for _ in range(steps):
            adapted = a @ adapted + b
        gradient = 2 / len(xq) * xq.T @ (xq @ adapted - yq)
        if not first_order:
            gradient = np.linalg.matrix_power(a, steps).T @ gradient
        gradients.append(gradient)
    return np.mean(gradients, axis=0)


def relative_difference(actual, expected):
    actual = np.concatenate([np.ravel(a) for a in actual])
    expected = np.concatenate([np.ravel(e) for e in expected])
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("mapping", ["vectorized", "sequential"])
def test_gradient_equals_closed_form_on_linear_regression(
    steps, first_order, mapping
):
    x, y = random_episodes()
    model = compiled(
        linear_network(),
        "mse",
        inner_steps=steps,
        inner_learning_rate=0.1,
        first_order=first_order,
        task_mapping=mapping,
    )
    w = model.network.get_weights()[0].astype("float64")
    expected = closed_form_gradient(w, x, y, 0.1, steps, first_order)
    assert relative_difference(outer_gradient(model, x, y), [expected]) < 1e-4


@pytest.mark.parametrize("steps", [1, 3])
def test_gradient_equals_closed_form_in_double_precision(float64, steps):
    x, y = random_episodes(dtype="float64")
    model = compiled(
        linear_network(), "mse", inner_steps=steps, inner_learning_rate=0.1
    )
    w = model.network.get_weights()[0]
    assert w.dtype == "float64"
    expected = closed_form_gradient(w, x, y, 0.1, steps, first_order=False)
    assert relative_difference(outer_gradient(model, x, y), [expected]) < 1e-12


def directional_differences(model, x, y, directions, step=1e-4):
    """Central differences of fourth order of the outer loss."""
    variables = model.trainable_variables
    start = [variable.numpy() for variable in variables]

    def loss_at(shift, direction):
        for variable, value, change in zip(variables, start, direction):
            variable.assign(value + shift * change)
        loss = model.compute_loss(x, y, model(x, training=True))
        for variable, value in zip(variables, start):
            variable.assign(value)
        return float(loss)

    return [
        (
            8 * (loss_at(step, d) - loss_at(-step, d))
            - (loss_at(2 * step, d) - loss_at(-2 * step, d))
        )
        / (12 * step)
        for d in directions
    ]


@pytest.mark.parametrize("statistics", ["batch", "support"])
@pytest.mark.parametrize("steps", [1, 3])
def test_gradient_equals_central_differences_with_batch_normalization(
    float64, steps, statistics
):
    x, y = random_episodes(tasks=2, shape=(6, 6, 1), ways=3, dtype="float64")
    model = compiled(
        conv_network(dtype="float64"),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        inner_steps=steps,
        inner_learning_rate=0.2,
        normalization_statistics=statistics,
    )
    gradient = outer_gradient(model, x, y)
    generator = np.random.default_rng(1)
    directions = [
        [generator.normal(size=v.shape) for v in model.trainable_variables]
        for _ in range(4)
    ]
    expected = directional_differences(model, x, y, directions)
    actual = [
        sum(np.sum(g * d) for g, d in zip(gradient, direction))
        for direction in directions
    ]
    assert relative_difference(actual, expected) < 1e-8

    first_order = compiled(
        model.network,
        model.loss,
        inner_steps=steps,
        inner_learning_rate=0.2,
        first_order=True,
        normalization_statistics=statistics,
    )
    difference = relative_difference(outer_gradient(first_order, x, y), gradient)
    assert 0.01 < difference < 1.0


@pytest.mark.parametrize("steps", [1, 3])
def test_single_precision_gradient_equals_double(steps):
    x, y = random_episodes(tasks=2, shape=(6, 6, 1), ways=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    arguments = dict(inner_steps=steps, inner_learning_rate=0.2)
    model = compiled(conv_network(), loss, **arguments)
    single = outer_gradient(model, x, y)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        wide = conv_network(dtype="float64")
        wide.set_weights(model.network.get_weights())
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        double = outer_gradient(compiled(wide, loss, **arguments), x, y)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    assert double[0].dtype == "float64"
    assert relative_difference(single, double) < 1e-4
