"""The outer gradient of MAML, against references computed another way."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from tests.algorithms import contract


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


def compiled(
    network, loss, optimizer=None, compile_arguments=None, **arguments
):
    """Returns a model, untraced unless it is said how it shall run."""
    model = keras_meta.MAML(network, **arguments)
    model.compile(
        optimizer or keras.optimizers.SGD(1.0),
        loss=loss,
        **compile_arguments or {},
    )
    if compile_arguments is None and "task_mapping" not in arguments:
        contract.untraced(model)
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
    # Traced, since it is asked for many times.
    loss_here = tf.function(
        lambda: model.compute_loss(x, y, model(x, training=True)),
        autograph=False,
    )

    def loss_at(shift, direction):
        for variable, value, change in zip(variables, start, direction):
            variable.assign(value + shift * change)
        loss = float(loss_here())
        for variable, value in zip(variables, start):
            variable.assign(value)
        return loss

    return [
        (
            8 * (loss_at(step, d) - loss_at(-step, d))
            - (loss_at(2 * step, d) - loss_at(-2 * step, d))
        )
        / (12 * step)
        for d in directions
    ]


@pytest.mark.parametrize("statistics", ["batch", "support"])
@pytest.mark.parametrize("steps", [1, 2])
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
        for _ in range(3)
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
    difference = relative_difference(
        outer_gradient(first_order, x, y), gradient
    )
    assert 0.01 < difference < 1.0


@pytest.mark.parametrize("steps", [1, 2])
def test_single_precision_gradient_equals_double(steps):
    x, y = random_episodes(tasks=2, shape=(6, 6, 1), ways=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    arguments = dict(inner_steps=steps, inner_learning_rate=0.2)
    # This one as a graph: batch normalization of second order there, too.
    model = compiled(
        conv_network(), loss, task_mapping="sequential", **arguments
    )
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


class TestMAML(contract.AlgorithmContract):
    def make_model(self):
        model = keras_meta.MAML(
            keras_meta.backbones.mlp((8,), (16,), outputs=3),
            inner_steps=2,
            inner_learning_rate=0.5,
        )
        model.compile(
            keras.optimizers.Adam(0.01),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model


def test_tasks_weigh_equally_in_the_outer_gradient():
    x, y = random_episodes(tasks=3)
    model = compiled(linear_network(), "mse", inner_learning_rate=0.1)
    together = outer_gradient(model, x, y)
    alone = [
        outer_gradient(
            model,
            {key: value[task : task + 1] for key, value in x.items()},
            y[task : task + 1],
        )
        for task in range(3)
    ]
    assert relative_difference(together, np.mean(alone, axis=0)) < 1e-5


def test_padded_examples_count_for_nothing():
    x, y = random_episodes(tasks=2, support=4, query=3)
    model = compiled(
        linear_network(), "mse", inner_steps=2, inner_learning_rate=0.1
    )
    expected = outer_gradient(model, x, y)
    noise, noise_y = random_episodes(tasks=2, support=2, query=3, seed=9)
    padded = {key: np.concatenate([x[key], noise[key]], axis=1) for key in x}
    padded["support_weight"] = np.array([[1, 1, 1, 1, 0, 0]] * 2, "float32")
    # Keras divides by the padded number of queries: twice as many here.
    actual = outer_gradient(
        model,
        padded,
        np.concatenate([y, noise_y], axis=1),
        np.array([[2, 2, 2, 0, 0, 0]] * 2, "float32"),
    )
    assert relative_difference(actual, expected) < 1e-5


@pytest.mark.parametrize("statistics", ["batch", "support"])
def test_padded_support_examples_are_left_out_of_the_statistics(
    float64, statistics
):
    x, y = random_episodes(tasks=2, shape=(6, 6, 1), ways=3, dtype="float64")
    arguments = dict(
        inner_steps=2,
        inner_learning_rate=0.2,
        normalization_statistics=statistics,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = compiled(conv_network(dtype="float64"), loss, **arguments)
    expected = outer_gradient(model, x, y)
    answers = model(x)
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    noise = 9 + np.zeros((2, 4, 6, 6, 1))
    weight = np.repeat([[1.0, 0.0]], [6, 4], axis=1) * np.ones((2, 1))
    padded = {
        "support_x": np.concatenate([x["support_x"], noise], axis=1),
        "support_y": np.concatenate(
            [x["support_y"], 2 + np.zeros((2, 4), int)], 1
        ),
        "support_weight": weight,
        "query_x": x["query_x"],
    }
    assert (
        relative_difference(outer_gradient(model, padded, y), expected) < 1e-5
    )
    np.testing.assert_allclose(model(padded), answers, rtol=1e-5, atol=1e-5)
    again = model.adapt(
        padded["support_x"][0], padded["support_y"][0], weight[0]
    )
    for one, other in zip(adapted.get_weights(), again.get_weights()):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_gradient_counts_the_regularizers_once():
    x, y = random_episodes(tasks=3)
    network = linear_network()
    regularized = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(
                1, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.3)
            ),
        ]
    )
    regularized.set_weights(network.get_weights())
    plain = outer_gradient(compiled(network, "mse"), x, y)
    with_penalty = outer_gradient(compiled(regularized, "mse"), x, y)
    expected = plain[0] + 2 * 0.3 * network.get_weights()[0]
    assert relative_difference(with_penalty, [expected]) < 1e-5


def test_trains_several_inputs_and_outputs():
    generator = np.random.default_rng(0)
    a = keras.Input((4,), name="a")
    b = keras.Input((2,), name="b")
    hidden = keras.layers.Concatenate()([a, b])
    network = keras.Model(
        {"a": a, "b": b},
        {
            "u": keras.layers.Dense(1, name="u")(hidden),
            "v": keras.layers.Dense(2, name="v")(hidden),
        },
    )

    def draw(examples, sizes):
        return {
            name: generator.normal(size=(3, examples, size)).astype("float32")
            for name, size in sizes.items()
        }

    inputs, outputs = {"a": 4, "b": 2}, {"u": 1, "v": 2}
    x = {
        "support_x": draw(5, inputs),
        "support_y": draw(5, outputs),
        "query_x": draw(6, inputs),
    }
    y = draw(6, outputs)
    model = keras_meta.MAML(network, inner_loss="mse", inner_learning_rate=0.1)
    model.compile("adam", loss={"u": "mse", "v": "mae"})
    contract.untraced(model)
    history = model.fit(x, y, batch_size=3, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_allclose(
        history["loss"][0],
        history["u_loss"][0] + history["v_loss"][0],
        rtol=1e-5,
    )
    one_task = [
        {name: value[0] for name, value in x[key].items()}
        for key in ("support_x", "support_y", "query_x")
    ]
    adapted = model.adapt(*one_task[:2]).predict(one_task[2], verbose=0)
    np.testing.assert_allclose(adapted["v"], model(x)["v"][0], atol=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class SubclassedNetwork(keras.Model):
    """One whose `call()` does not know of `training`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(16)
        self.dropout = keras.layers.Dropout(0.5)
        self.head = keras.layers.Dense(1)

    def call(self, x):
        return self.head(self.dropout(self.hidden(x)))


def subclassed_model():
    network = SubclassedNetwork()
    network(np.zeros((1, 5), "float32"))
    return compiled(network, "mse", inner_steps=2)


def test_dropout_is_on_in_training_only_and_new_in_every_task_and_step():
    model = subclassed_model()
    x, _ = random_episodes(tasks=1)
    x = {key: np.repeat(value, 2, axis=0) for key, value in x.items()}
    np.testing.assert_array_equal(model(x), model(x))
    np.testing.assert_array_equal(model(x)[0], model(x)[1])
    first, second = model(x, training=True), model(x, training=True)
    assert not np.allclose(first, second)
    assert not np.allclose(first[0], first[1])


def test_subclassed_network_is_saved_adapted_and_exported(tmp_path):
    model = subclassed_model()
    x, y = random_episodes()
    model.fit(x, y, verbose=0)
    predictions = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(predictions, loaded.predict(x, verbose=0))
    adapted = model.adapt(x["support_x"][0], x["support_y"][0])
    np.testing.assert_allclose(
        adapted.predict(x["query_x"][0], verbose=0), predictions[0], atol=1e-5
    )
    model.export(tmp_path / "exported", verbose=False)
    endpoint = tf.saved_model.load(tmp_path / "exported").signatures[
        "adapt_and_predict"
    ]
    (answer,) = endpoint(**{k: tf.constant(v) for k, v in x.items()}).values()
    np.testing.assert_allclose(answer, predictions, atol=1e-5)


def test_logs_adaptation_before_and_after():
    episodes = keras_meta.episodes.sinusoids(episodes=12, meta_batch_size=6)
    model = compiled(
        keras_meta.backbones.mlp(),
        "mse",
        keras.optimizers.Adam(0.001),
        {"metrics": ["mae"]},
    )
    fitted = model.fit(episodes, epochs=2, verbose=0).history
    logs = model.evaluate(episodes, verbose=0, return_dict=True)
    names = {"loss", "mae", "support_loss_before", "support_loss_after"}
    assert set(logs) == names | {"loss_before", "mae_before"}
    assert set(fitted) == set(logs)
    assert logs["support_loss_after"] < logs["support_loss_before"]
    assert logs["loss"] < logs["loss_before"]

    squares, absolutes, support = [], [], []
    for x, y in episodes:
        for task in range(len(y)):
            before = model.network(x["query_x"][task]) - y[task]
            squares.append(np.mean(np.square(before)))
            absolutes.append(np.mean(np.abs(before)))
            adapted = model.adapt(x["support_x"][task], x["support_y"][task])
            after = adapted(x["support_x"][task]) - x["support_y"][task]
            support.append(np.mean(np.square(after)))
    np.testing.assert_allclose(logs["loss_before"], np.mean(squares), rtol=1e-4)
    np.testing.assert_allclose(
        logs["mae_before"], np.mean(absolutes), rtol=1e-4
    )
    np.testing.assert_allclose(
        logs["support_loss_after"], np.mean(support), rtol=1e-4
    )


@pytest.mark.parametrize("mapping", ["vectorized", "sequential"])
def test_divergence_names_the_weights_and_stops_fit(mapping):
    x, y = random_episodes(tasks=2)
    model = compiled(
        keras_meta.backbones.mlp((5,)),
        "mse",
        inner_steps=3,
        inner_learning_rate=1e30,
        task_mapping=mapping,
    )
    before = model.network.get_weights()
    message = "dense.*/kernel .in 2 tasks.*learning_rate=1e.30.*Lower the inner"
    with pytest.raises(keras_meta.DivergenceError, match=message):
        model.fit(x, y, epochs=3, verbose=0)
    for old, new in zip(before, model.network.get_weights()):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(keras_meta.DivergenceError, match="in 2 tasks"):
        model.evaluate(x, y, verbose=0)
    with pytest.raises(keras_meta.DivergenceError, match="in 1 tasks"):
        model.adapt(x["support_x"][0], x["support_y"][0])


def test_steps_per_execution_trains_the_same():
    weights = []
    for steps_per_execution in (1, 5):
        keras.utils.set_random_seed(0)
        model = compiled(
            keras_meta.backbones.mlp(hidden_units=(8,)),
            "mse",
            keras.optimizers.Adam(0.01),
            {"steps_per_execution": steps_per_execution},
            task_mapping="sequential",
        )
        episodes = keras_meta.episodes.sinusoids(meta_batch_size=3)
        model.fit(episodes, steps_per_epoch=10, verbose=0)
        weights.append(model.get_weights())
    for one, five in zip(*weights):
        np.testing.assert_allclose(one, five, rtol=1e-5, atol=1e-6)


def test_inner_loss_is_the_compiled_one_unless_given():
    x, y = random_episodes()
    implicit = compiled(linear_network(), "mae", inner_learning_rate=0.1)
    explicit = compiled(
        implicit.network, "mse", inner_loss="mae", inner_learning_rate=0.1
    )
    other = compiled(
        implicit.network, "mae", inner_loss="mse", inner_learning_rate=0.1
    )
    np.testing.assert_array_equal(implicit(x), explicit(x))
    assert not np.allclose(implicit(x), other(x))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"inner_steps": 0}, "`inner_steps` must be.*Received: inner_steps=0"),
        ({"inner_steps": -1}, "`inner_steps` must be an integer"),
        ({"inner_steps": 1.5}, "`inner_steps` must be an integer"),
        ({"evaluation_steps": 0}, "`evaluation_steps` must be"),
        ({"inner_learning_rate": 0.0}, "`inner_learning_rate` must be"),
        ({"inner_learning_rate": -0.1}, "Received: inner_learning_rate=-0.1"),
        ({"inner_learning_rate": float("nan")}, "must be a finite number"),
        ({"normalization_statistics": "moving"}, "must be one of 'batch'"),
        ({"task_mapping": "map"}, "must be one of 'auto'"),
        (
            {
                "inner_learning_rate": 0.1,
                "update_rule": keras_meta.update_rules.GradientDescent(0.1),
            },
            "Only one of",
        ),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_meta.MAML(linear_network(), **arguments)


def test_refuses_what_is_no_network_and_one_with_nothing_to_adapt():
    with pytest.raises(TypeError, match="must be a `keras.Model`"):
        keras_meta.MAML("conv4")
    frozen = linear_network()
    frozen.trainable = False
    with pytest.raises(ValueError, match="trainable weights"):
        keras_meta.MAML(frozen)


def test_refuses_to_run_without_a_loss():
    x, _ = random_episodes()
    model = keras_meta.MAML(linear_network())
    with pytest.raises(ValueError, match="must have a loss.*inner_loss=None"):
        model(x)


def test_refuses_losses_that_do_not_give_a_value_per_example():
    x, y = random_episodes()

    def scalar_loss(y_true, y_pred):
        return tf.reduce_mean(tf.square(y_true - y_pred))

    model = compiled(linear_network(), "mse", inner_loss=scalar_loss)
    with pytest.raises(ValueError, match="value per example.*scalar_loss"):
        model.fit(x, y, verbose=0)


def test_refuses_an_outer_loss_that_does_not_average():
    with pytest.raises(ValueError, match="reduction.*'sum'"):
        compiled(linear_network(), keras.losses.MeanSquaredError("sum"))
