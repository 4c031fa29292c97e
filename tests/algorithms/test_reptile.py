"""The outer step of Reptile, and what its inner steps are taken on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import update_rules
from keras_meta.algorithms import reptile
from tests.algorithms import contract
from tests.algorithms.test_maml import conv_network
from tests.algorithms.test_maml import linear_network
from tests.algorithms.test_maml import outer_gradient
from tests.algorithms.test_maml import random_episodes
from tests.algorithms.test_maml import relative_difference

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(network, loss="mse", optimizer=None, **arguments):
    model = keras_meta.Reptile(network, **arguments)
    model.compile(
        optimizer or keras.optimizers.SGD(1.0), loss=loss, metrics=["accuracy"]
    )
    if "task_mapping" not in arguments:
        contract.untraced(model)
    return model


class TestReptile(contract.AlgorithmContract):
    support_order_matters = True

    def make_model(self):
        return compiled(
            keras_meta.backbones.mlp((8,), (16,), outputs=3),
            LOSS,
            keras.optimizers.Adam(0.01),
            inner_steps=3,
            inner_learning_rate=0.05,
            batch_size=4,
            task_mapping="auto",
        )


def test_one_step_on_all_is_joint_training():
    x, y = random_episodes(shape=(8,), ways=3)
    network = keras_meta.backbones.mlp((8,), (16,), outputs=3)
    model = compiled(
        network,
        LOSS,
        inner_steps=1,
        update_rule=update_rules.GradientDescent(0.3),
        batch_size=None,
    )
    joint = keras.models.clone_model(network)
    joint.set_weights(network.get_weights())
    joint.compile(keras.optimizers.SGD(0.3), LOSS)
    joint.train_on_batch(
        x["support_x"].reshape(-1, 8), x["support_y"].reshape(-1)
    )
    model.train_on_batch(x, y)
    for actual, expected in zip(network.get_weights(), joint.get_weights()):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_outer_step_equals_one_of_optimizers_of_keras():
    x, y = random_episodes(tasks=2, shape=(8,), ways=3)
    network = keras_meta.backbones.mlp((8,), (16,), outputs=3, activation="elu")
    model = compiled(
        network, LOSS, inner_steps=3, batch_size=4, inner_learning_rate=0.02
    )
    start = network.get_weights()
    state = model.shuffles.numpy()
    keys = model._tasks(x, training=True)["shuffles"]
    assert keys.shape == (2, 2, 6)
    model.shuffles.assign(state)
    ends = []
    for task in range(2):
        copy = keras.models.clone_model(network)
        copy.set_weights(start)
        copy.compile(keras.optimizers.Adam(0.02, beta_1=0.0), LOSS)
        for batch in reptile._minibatches(keys[task], None, 3, 4).numpy():
            copy.train_on_batch(
                x["support_x"][task][batch], x["support_y"][task][batch]
            )
        ends.append(copy.get_weights())
    model.train_on_batch(x, y)
    for actual, *expected in zip(network.get_weights(), *ends):
        expected = np.mean(expected, axis=0)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def draws(model, x, y):
    """Returns how often each example is drawn, `[examples]`.

    Example n is number n of a unit matrix and its loss is the prediction, so
    that the weights move by as much as it is drawn.
    """
    (gradient,) = outer_gradient(model, x, y)
    return np.round(gradient[:, 0] * model.batch_size, 3)


def drawing_model(examples, **arguments):
    return compiled(
        linear_network(examples),
        inner_loss=lambda y_true, y_pred: y_pred[:, 0],
        update_rule=update_rules.GradientDescent(1.0),
        **arguments,
    )


def unit_episodes(tasks, examples):
    x = {
        "support_x": np.tile(np.eye(examples, dtype="float32"), (tasks, 1, 1)),
        "support_y": np.zeros((tasks, examples, 1), "float32"),
        "query_x": np.ones((tasks, 2, examples), "float32"),
    }
    return x, np.zeros((tasks, 2, 1), "float32")


def test_whole_shuffles_draw_every_example_equally_often():
    x, y = unit_episodes(1, 6)
    # Ten draws are one shuffle and most of another.
    model = drawing_model(6, inner_steps=5, batch_size=2)
    assert sorted(draws(model, x, y)) == [1, 1, 2, 2, 2, 2]
    model = drawing_model(6, inner_steps=3, batch_size=4)
    assert list(draws(model, x, y)) == [2] * 6


def test_padded_examples_are_not_drawn():
    x, y = unit_episodes(1, 7)
    x["support_weight"] = np.array([[1, 1, 0, 1, 0, 1, 1]], "float32")
    model = drawing_model(7, inner_steps=5, batch_size=4)
    assert list(draws(model, x, y)) == [4, 4, 0, 4, 0, 4, 4]
    # A batch of more than there are goes on with a new shuffle.
    model = drawing_model(7, inner_steps=5, batch_size=6)
    assert list(draws(model, x, y)) == [6, 6, 0, 6, 0, 6, 6]


def test_shuffles_are_new_in_every_task_and_step_of_training():
    model = drawing_model(20, inner_steps=1, batch_size=10)
    x, y = unit_episodes(1, 20)
    first, second = draws(model, x, y), draws(model, x, y)
    assert sum(first) == sum(second) == 10
    assert list(first) != list(second)
    model.shuffles.assign(model.shuffles - [0, 2])
    assert list(draws(model, x, y)) == list(first)
    # Two tasks that draw the same ones would leave halves of one alone.
    assert set(draws(model, *unit_episodes(2, 20))) == {0, 0.5, 1}


def test_evaluation_is_always_on_the_same_minibatches():
    x, y = random_episodes(support=9, shape=(8,), ways=3)
    network = keras_meta.backbones.mlp((8,), (16,), outputs=3)
    settings = dict(inner_learning_rate=0.05, batch_size=4, inner_steps=3)
    answers = compiled(network, LOSS, **settings)(x)
    other = compiled(network, LOSS, **settings)
    other.shuffles.assign([1, 2])
    np.testing.assert_array_equal(other(x), answers)
    assert not np.allclose(other(x, training=True), answers, atol=1e-4)
    # Also where the size of the support set is not known beforehand.
    unknown = tf.function(
        other,
        input_signature=[
            {
                key: tf.TensorSpec((None, None, *value.shape[2:]), value.dtype)
                for key, value in x.items()
            }
        ],
    )
    np.testing.assert_allclose(unknown(x), answers, rtol=1e-5, atol=1e-6)
    # And a set of no more than the batch size is taken whole, in any order.
    settings["batch_size"] = 9
    whole = compiled(network, LOSS, **settings)
    turned = {**x, **{k: x[k][:, ::-1] for k in ("support_x", "support_y")}}
    np.testing.assert_allclose(whole(x), whole(turned), rtol=1e-3, atol=1e-4)
    assert not np.allclose(other(x), other(turned), atol=1e-3)


def test_outer_gradient_is_the_mean_over_the_tasks():
    x, y = random_episodes()
    model = compiled(
        linear_network(), update_rule=update_rules.GradientDescent(0.1)
    )
    apart = [
        outer_gradient(
            model, {k: v[i : i + 1] for k, v in x.items()}, y[i : i + 1]
        )[0]
        for i in range(3)
    ]
    together = outer_gradient(model, x, y)
    assert relative_difference(together, [np.mean(apart, axis=0)]) < 1e-5
    scaled = compiled(
        model.network,
        optimizer=keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(1.0)
        ),
        update_rule=update_rules.GradientDescent(0.1),
    )
    assert relative_difference(outer_gradient(scaled, x, y), together) < 1e-5


def test_what_does_not_adapt_stays():
    x, y = random_episodes(shape=(8,), ways=3)
    model = compiled(
        keras_meta.backbones.mlp((8,), (16,), outputs=3),
        LOSS,
        keras.optimizers.Adam(0.01),
        adapts="head",
    )
    kernel, bias, *head = model.network.get_weights()
    model.train_on_batch(x, y)
    after = model.network.get_weights()
    np.testing.assert_array_equal(kernel, after[0])
    np.testing.assert_array_equal(bias, after[1])
    assert not np.array_equal(head[0], after[2])


def answers_by_hand(network, x, steps, rate):
    """Adapts with Keras alone; queries answered each alone, and together."""
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    for layer in copy.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = LOSS(x["support_y"], copy(x["support_x"], training=True))
        gradients = tape.gradient(loss, copy.trainable_variables)
        for variable, gradient in zip(copy.trainable_variables, gradients):
            variable.assign_sub(rate * gradient)
    # Without momentum, the moving statistics are now those of the last batch.
    copy(x["support_x"], training=True)
    alone = copy(x["query_x"], training=False).numpy()
    return alone, copy(x["query_x"], training=True).numpy()


def test_evaluates_queries_alone_and_together():
    x, y = random_episodes(tasks=3, shape=(6, 6, 1), ways=3)
    model = compiled(
        conv_network(),
        LOSS,
        inner_steps=2,
        update_rule=update_rules.GradientDescent(0.3),
        evaluation_steps=3,
    )
    logs = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
    tasks = [{key: v[task] for key, v in x.items()} for task in range(3)]
    answers = [answers_by_hand(model.network, t, 3, 0.3) for t in tasks]
    for suffix, logits in zip(("", "_transductive"), zip(*answers)):
        logits = np.stack(logits)
        accuracy = np.mean(logits.argmax(-1) == y)
        np.testing.assert_allclose(logs[f"accuracy{suffix}"], accuracy, 1e-5)
        loss = float(LOSS(y, logits))
        np.testing.assert_allclose(logs[f"loss{suffix}"], loss, rtol=1e-4)
    assert abs(logs["loss"] - logs["loss_transductive"]) > 0.01

    history = model.fit(x, y, validation_data=(x, y), verbose=0).history
    assert "val_accuracy_transductive" in history
    assert "loss" in history and "loss_transductive" not in history
    # A single query has no statistics.
    model = compiled(model.network, LOSS)
    x["query_x"] = x["query_x"][:, :1]
    logs = model.evaluate(x, y[:, :1], verbose=0, return_dict=True)
    assert "loss" in logs and "loss_transductive" not in logs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be .*batch_size=0.*`None`"),
        ({"batch_size": 2.5}, "`batch_size` must be an integer"),
        ({"batch_size": 1}, "`batch_size` must be 2 or more.*Received"),
        (
            {"update_rule": update_rules.MetaSGD(0.1)},
            "nothing to learn.*Received: update_rule=MetaSGD, with 10",
        ),
        ({"inner_learning_rate": -1.0}, "`inner_learning_rate` must be"),
        (
            {
                "inner_learning_rate": 0.1,
                "update_rule": update_rules.GradientDescent(0.1),
            },
            "Only one of",
        ),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_meta.Reptile(conv_network(), **arguments)
