import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import inner_loop


def linear_network():
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(1, use_bias=False)]
    )


def support(examples=5, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(examples, 3)).astype("float32")
    return x, generator.normal(size=(examples, 1)).astype("float32")


def adapt(network, support, steps, rate=0.1, **arguments):
    weights = [tf.convert_to_tensor(v) for v in network.trainable_variables]
    return inner_loop.adapt(
        network,
        weights,
        inner_loop.network_state(network),
        support,
        keras.losses.MeanSquaredError(),
        keras_meta.update_rules.GradientDescent(rate),
        steps,
        **arguments,
    )


def test_steps_are_gradient_descent_computed_by_hand():
    network = linear_network()
    x, y = support()
    adaptation = adapt(network, (x, y, None), steps=4)
    w = network.get_weights()[0]
    assert len(adaptation.weights_per_step) == 5
    assert len(adaptation.support_losses) == 4
    for step in range(5):
        np.testing.assert_allclose(
            adaptation.weights_per_step[step][0], w, rtol=1e-5, atol=1e-6
        )
        error = x @ w - y
        if step < 4:
            np.testing.assert_allclose(
                adaptation.support_losses[step], np.mean(error**2), rtol=1e-5
            )
        w = w - 0.1 * 2 / len(x) * x.T @ error


def test_steps_equal_keras_training_step_by_step():
    network = keras_meta.backbones.mlp((3,), (8,))
    twin = keras.models.clone_model(network)
    twin.set_weights(network.get_weights())
    x, y = support()
    adaptation = adapt(network, (x, y, None), steps=3)
    twin.compile(keras.optimizers.SGD(0.1), loss="mse")
    for step in range(3):
        twin.train_on_batch(x, y)
        for ours, theirs in zip(
            adaptation.weights_per_step[step + 1], twin.trainable_variables
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        keras_meta.update_rules.GradientDescent(0.1),
        keras_meta.update_rules.Momentum(0.1),
        keras_meta.update_rules.Adam(0.1),
        keras_meta.update_rules.LearnedStepSizes(0.1, steps=3),
        keras_meta.update_rules.LSTMMetaLearner(0.1, units=3),
    ],
    ids=lambda rule: type(rule).__name__,
)
@pytest.mark.parametrize("graph", [True, False])
def test_rolled_steps_equal_those_one_by_one(rule, graph):
    network = keras.Sequential(
        [
            keras.Input((3,)),
            # Before normalization a bias has no gradient but noise.
            keras.layers.Dense(4, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    rule.build_for(network.trainable_variables)
    weights = [tf.convert_to_tensor(v) for v in network.trainable_variables]
    x, y = support()

    def adapted(rolled):
        return inner_loop.adapt(
            network,
            weights,
            inner_loop.network_state(network),
            (x, y, None),
            keras.losses.MeanSquaredError(),
            rule,
            4,
            rolled=rolled,
            training=True,
        )

    if graph:
        adapted = tf.function(adapted, autograph=False)
    rolled, plain = adapted(True), adapted(False)
    assert len(rolled.weights_per_step) == 2
    pairs = [
        (rolled.weights_per_step[0], plain.weights_per_step[0]),
        (rolled.weights_per_step[-1], plain.weights_per_step[-1]),
        (rolled.support_losses[0], plain.support_losses[0]),
        (rolled.states[-1], plain.states[-1]),
        (rolled.rule_state, plain.rule_state),
    ]
    for ours, theirs in pairs:
        for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs)):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_weighted_steps_equal_steps_without_the_padding():
    network = linear_network()
    x, y = support(7)
    weight = np.array([1, 1, 0, 1, 0, 1, 0], "float32")
    kept = weight > 0
    padded = adapt(network, (x, y, weight), steps=3)
    short = adapt(network, (x[kept], y[kept], None), steps=3)
    np.testing.assert_allclose(
        padded.weights_per_step[-1][0],
        short.weights_per_step[-1][0],
        rtol=1e-5,
        atol=1e-6,
    )


def test_nothing_is_written_to_the_network():
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    before = [variable.numpy() for variable in network.variables]
    momentum = network.layers[1].momentum
    x, y = support()
    adapt(network, (x, y, None), steps=2, training=True)
    for value, variable in zip(before, network.variables):
        np.testing.assert_array_equal(value, variable.numpy())
    assert network.layers[1].momentum == momentum
    assert "call" not in vars(network.layers[1])


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_mean_loss_equals_numpy(loss):
    generator = np.random.default_rng(0)
    y, predictions = generator.normal(size=(2, 6, 4)).astype("float32")
    weight = np.array([1, 2, 0, 0.5, 1, 0], "float32")
    errors = y - predictions
    values = np.mean(errors**2 if loss == "mse" else np.abs(errors), axis=1)
    function = keras.losses.get(loss)
    np.testing.assert_allclose(
        inner_loop.mean_loss(function, y, predictions),
        np.mean(values),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        inner_loop.mean_loss(function, y, predictions, weight),
        np.average(values, weights=weight),
        rtol=1e-5,
    )


def test_mean_loss_is_not_divided_by_replicas():
    devices = tf.config.list_logical_devices("CPU")
    strategy = tf.distribute.MirroredStrategy([devices[0].name])
    loss = keras.losses.MeanSquaredError()
    y = np.ones((3, 1), "float32")
    with strategy.scope():
        value = inner_loop.mean_loss(loss, y, 0 * y)
    assert value == 1.0


def test_seeds_are_new_for_every_task_and_draw():
    network = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    )
    (first,) = inner_loop.draw_task_seeds(network, 4)
    (second,) = inner_loop.draw_task_seeds(network, 4)
    rows = {tuple(row) for row in np.concatenate([first, second])}
    assert len(rows) == 8
    keras.utils.set_random_seed(0)
    assert inner_loop.draw_task_seeds(keras_meta.backbones.mlp(), 4) == []


def test_first_order_is_a_constant_gradient():
    network = linear_network()
    x, y = support()
    jacobians = {}
    for first_order in (False, True):
        w = tf.convert_to_tensor(network.trainable_variables[0])
        with tf.GradientTape() as tape:
            tape.watch(w)
            adapted = inner_loop.adapt(
                network,
                [w],
                [],
                (x, y, None),
                keras.losses.get("mse"),
                keras_meta.update_rules.GradientDescent(0.1),
                2,
                constant_steps=2 if first_order else 0,
            ).weights_per_step[-1][0]
        jacobian = tape.jacobian(adapted, w)
        jacobians[first_order] = np.reshape(jacobian, (3, 3))
    step = np.eye(3) - 0.1 * 2 / len(x) * x.T @ x
    np.testing.assert_allclose(jacobians[True], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(jacobians[False], step @ step, atol=1e-5)
