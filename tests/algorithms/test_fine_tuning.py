import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from tests.algorithms import contract
from tests.algorithms.test_generating_learners import embedding_network
from tests.algorithms.test_generating_learners import random_tasks
from tests.algorithms.test_generating_learners import whole_network


def make_model(**settings):
    network = keras_meta.backbones.mlp((8,), (32,), outputs=None)
    model = keras_meta.FineTuning(
        network, 3, 20, inner_steps=20, inner_learning_rate=0.1, **settings
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fine_tuned(network, loss, x, task, steps, rate, trained=None):
    """Plain gradient descent on one support set; answers the queries."""
    for _ in range(steps):
        with tf.GradientTape() as tape:
            value = loss(x["support_y"][task], network(x["support_x"][task]))
        variables = trained or network.trainable_variables
        for variable, slope in zip(variables, tape.gradient(value, variables)):
            variable.assign_sub(rate * slope)
    return network(x["query_x"][task])


@pytest.mark.parametrize(
    "adapts, task_mapping", [("all", "vectorized"), ("head", "sequential")]
)
def test_inner_steps_equal_gradient_descent_with_a_head_of_zeros(
    adapts, task_mapping
):
    model = keras_meta.FineTuning(
        embedding_network(),
        3,
        inner_steps=4,
        inner_learning_rate=0.3,
        inner_loss=LOSS,
        adapts=adapts,
        task_mapping=task_mapping,
    )
    x = random_tasks(tasks=2)
    before = model.get_weights()
    answers = model(x)
    for task in range(2):
        copy = keras.models.clone_model(model.embedding)
        copy.set_weights(model.embedding.get_weights())
        head = keras.layers.Dense(3, kernel_initializer="zeros")
        plain = keras.Sequential([copy, head])
        plain.build((None, 4))
        trained = head.trainable_variables if adapts == "head" else None
        expected = fine_tuned(plain, LOSS, x, task, 4, 0.3, trained)
        np.testing.assert_allclose(
            answers[task], expected, rtol=1e-4, atol=1e-5
        )
    # The model's own weights stay where they are.
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_regression_starts_from_the_head_that_the_network_has():
    model = keras_meta.FineTuning(
        whole_network(),
        inner_steps=3,
        inner_learning_rate=0.1,
        inner_loss="mse",
    )
    x = random_tasks(regression=True, tasks=1)
    copy = keras.models.clone_model(model.network)
    copy.set_weights(model.network.get_weights())
    expected = fine_tuned(copy, keras.losses.MeanSquaredError(), x, 0, 3, 0.1)
    np.testing.assert_allclose(model(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_answers_before_tuning_have_no_preference():
    model = keras_meta.FineTuning(
        embedding_network(),
        3,
        inner_steps=2,
        inner_loss=LOSS,
        task_mapping="sequential",
    )
    x = random_tasks()
    before, after = model.predictions_per_step(x)
    np.testing.assert_array_equal(before, np.zeros((3, 3, 3)))
    np.testing.assert_allclose(after, model(x), atol=1e-5)
    assert np.any(after != before)


def test_fit_is_ordinary_training_of_the_embedding_and_a_dense_head():
    x, labels = contract.blobs(classes=5, examples=4)
    model = keras_meta.FineTuning(
        keras_meta.backbones.mlp((8,), (6,), outputs=None), 3, 5
    )
    copy = keras.models.clone_model(model.embedding)
    plain = keras.Sequential([copy, keras.layers.Dense(5)])
    plain.build((None, 8))
    copy.set_weights(model.embedding.get_weights())
    plain.layers[-1].set_weights(model.pretraining_head.get_weights())
    logs = []
    for either in (model, plain):
        either.compile(keras.optimizers.SGD(0.1), LOSS, metrics=["accuracy"])
        history = either.fit(
            x,
            labels,
            batch_size=12,
            shuffle=False,
            # Of other examples than those that are trained on.
            validation_data=(x[::-1][:7], labels[::-1][:7]),
            verbose=0,
        )
        logs.append(history.history)
    assert set(logs[0]) == set(logs[1])
    assert set(logs[0]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for name in logs[0]:
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-4)
    for one, other in zip(model.embedding.get_weights(), copy.get_weights()):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model(x), plain(x), rtol=1e-3, atol=1e-4)


def test_regression_is_pretrained_on_all_tasks_at_once():
    model = keras_meta.FineTuning(
        keras_meta.backbones.mlp((1,), (6,)), inner_steps=1
    )
    copy = keras.models.clone_model(model.network)
    copy.set_weights(model.network.get_weights())
    examples = keras_meta.episodes.pooled(
        keras_meta.episodes.sinusoids(meta_batch_size=3, episodes=6)
    )
    logs = []
    for either in (model, copy):
        either.compile(keras.optimizers.SGD(0.05), "mse")
        logs.append(either.fit(examples, shuffle=False, verbose=0).history)
    np.testing.assert_allclose(logs[0]["loss"], logs[1]["loss"], rtol=1e-4)
    for one, other in zip(model.network.get_weights(), copy.get_weights()):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("learner", ["fine_tuning", "frozen_representation"])
def test_training_on_examples_is_validated_on_episodes(learner):
    network = keras_meta.backbones.mlp((8,), (6,), outputs=None)
    if learner == "fine_tuning":
        model = keras_meta.FineTuning(
            network, 3, 20, inner_steps=2, task_mapping="sequential"
        )
    else:
        model = keras_meta.FrozenRepresentation(
            network, pretraining_outputs=20, ways=3
        )
    model.compile(
        keras.optimizers.SGD(0.1), LOSS, metrics=["accuracy"], run_eagerly=True
    )
    x, labels = contract.blobs(examples=3)
    test = contract.blob_episodes(episodes=4)
    history = model.fit(x, labels, validation_data=test, verbose=0).history
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(history)
    logs = model.evaluate(test, verbose=0, return_dict=True)
    ((episodes, y),) = test
    answers = model(episodes)
    for name, value in (
        ("accuracy", np.mean(np.argmax(answers, -1) == y)),
        ("loss", float(LOSS(y, answers))),
    ):
        np.testing.assert_allclose(history[f"val_{name}"], [value], rtol=1e-4)
        np.testing.assert_allclose(logs[name], value, rtol=1e-4)
    # And examples are answered as ever, one of the training classes each.
    of_examples = model.predict(x, verbose=0)
    assert of_examples.shape == (60, 20)
    logs = model.evaluate(x, labels, verbose=0, return_dict=True)
    np.testing.assert_allclose(
        logs["accuracy"], np.mean(of_examples.argmax(-1) == labels), rtol=1e-4
    )


def normalized_network():
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6),
            keras.layers.BatchNormalization(),
        ]
    )


def test_frozen_statistics_must_have_been_trained():
    network = normalized_network()
    model = keras_meta.FineTuning(
        network,
        3,
        5,
        inner_steps=2,
        inner_loss=LOSS,
        task_mapping="sequential",
    )
    x = random_tasks()
    for call in (
        lambda: model(x),
        lambda: model.adapt(x["support_x"][0], x["support_y"][0]),
    ):
        message = "trained moving statistics.*normalization_statistics='batch'"
        with pytest.raises(ValueError, match=message):
            call()
    # Pretraining moves them.
    model.compile("sgd", LOSS, run_eagerly=True)
    model.fit(x["query_x"].reshape(-1, 4), np.arange(9) % 5, verbose=0)
    answers = model(x)
    # And then each query is answered on its own.
    alone = model({**x, "query_x": x["query_x"][:, :1]})
    np.testing.assert_allclose(answers[:, :1], alone, rtol=1e-4, atol=1e-5)
    # From scratch there are the statistics of the support set.
    scratch = keras_meta.FineTuning(
        normalized_network(),
        3,
        inner_steps=2,
        inner_loss=LOSS,
        normalization_statistics="support",
    )
    assert np.all(np.isfinite(scratch(x)))


def test_refuses_to_be_trained_on_episodes():
    model = make_model()
    before = model.get_weights()
    message = "FineTuning must be trained on.*not on episodes"
    with pytest.raises(ValueError, match=message):
        model.fit(contract.blob_episodes(episodes=4), verbose=0)
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
    model = keras_meta.FineTuning(embedding_network(), 3)
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match="many classes.*outputs=None"):
        model.fit(np.zeros((2, 4)), np.zeros(2, "int32"), verbose=0)


def test_refuses_bad_arguments():
    for settings, message in (
        ({"pretraining_outputs": 5}, "must not be given.*outputs=5 and ways="),
        ({"ways": 0}, "`ways` must be"),
        ({"ways": 3, "pretraining_outputs": 0}, "`pretraining_outputs` must"),
        ({"normalization_statistics": "moving"}, "one of 'frozen', 'support'"),
        ({"inner_steps": 0}, "`inner_steps` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_meta.FineTuning(embedding_network(), **settings)
    maps = keras.Sequential([keras.Input((2, 2)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="one flat embedding.*Flatten"):
        keras_meta.FineTuning(maps, 3)
    model = keras_meta.FineTuning(embedding_network(), 3)
    with pytest.raises(ValueError, match="must take logits.*from_logits=True"):
        model.compile("sgd", "sparse_categorical_crossentropy")


class TestFineTuning(contract.AlgorithmContract):
    def make_model(self):
        return make_model()

    def training_data(self):
        return keras_meta.episodes.examples(*contract.blobs()).repeat()
