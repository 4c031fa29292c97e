import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from keras_meta import per_step_normalization
from tests.algorithms import contract
from tests.algorithms.test_maml import compiled
from tests.algorithms.test_maml import conv_network
from tests.algorithms.test_maml import directional_differences
from tests.algorithms.test_maml import outer_gradient
from tests.algorithms.test_maml import random_episodes
from tests.algorithms.test_maml import relative_difference


def dense_network(dtype=None):
    inputs = keras.Input((8,), dtype=dtype)
    x = keras.layers.Dense(16)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    x = keras.layers.ReLU()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


class TestMAMLWithNormalizationPerStep(contract.VariantContract):
    def make_model(self):
        model = keras_meta.MAML(
            dense_network(),
            inner_steps=2,
            inner_learning_rate=0.5,
            normalization_statistics="per_step",
            normalization_scales="per_step",
        )
        model.compile(
            keras.optimizers.Adam(0.01),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model


def test_statistics_are_the_moving_means_of_each_step():
    x, y = random_episodes(tasks=2, shape=(8,), ways=3)
    model = compiled(
        dense_network(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.SGD(0.0),
        inner_steps=2,
        inner_learning_rate=0.5,
        normalization_statistics="per_step",
    )
    for iteration in (1, 2):
        model.train_on_batch(x, y)
        (_, means), (_, variances) = model.per_step.statistics
        kept = 0.5**iteration
        for step in range(3):
            mean, variance = [], []
            for task in range(2):
                w = reference_weights(model, x, task, step)
                batch = x["query_x" if step == 2 else "support_x"][task]
                hidden = batch @ w[0] + w[1]
                mean.append(np.mean(hidden, axis=0))
                variance.append(np.var(hidden, axis=0))
            np.testing.assert_allclose(
                means[step], (1 - kept) * np.mean(mean, 0), rtol=1e-4, atol=1e-5
            )
            np.testing.assert_allclose(
                variances[step],
                kept + (1 - kept) * np.mean(variance, 0),
                rtol=1e-4,
                atol=1e-5,
            )


def reference_weights(model, x, task, steps):
    """Adapts a copy of the network by Keras itself, with batch statistics."""
    copy = keras.models.clone_model(model.network)
    copy.set_weights(model.network.get_weights())
    optimizer = keras.optimizers.SGD(0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            answers = copy(x["support_x"][task], training=True)
            value = loss(x["support_y"][task], answers)
        variables = [v.value for v in copy.trainable_variables]
        gradients = tape.gradient(value, variables)
        optimizer.apply(gradients, copy.trainable_variables)
    return [v.numpy() for v in copy.trainable_variables]


def test_gradient_of_scales_equals_central_differences(float64):
    x, y = random_episodes(tasks=2, shape=(6, 6, 1), ways=3, dtype="float64")
    model = compiled(
        conv_network(dtype="float64"),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        inner_steps=2,
        inner_learning_rate=0.2,
        normalization_scales="per_step",
    )
    gradient = outer_gradient(model, x, y)
    scales = model.per_step.trainable_variables
    assert [v.shape[0] for v in scales] == [3] * 4
    generator = np.random.default_rng(1)
    directions = [
        [generator.normal(size=v.shape) for v in model.trainable_variables]
        for _ in range(3)
    ]
    actual = [
        sum(np.sum(g * d) for g, d in zip(gradient, direction))
        for direction in directions
    ]
    measured = directional_differences(model, x, y, directions)
    assert relative_difference(actual, measured) < 1e-8
    # The scales of every number of steps are used, and those of the network
    # are not.
    by_variable = {
        id(v): g for v, g in zip(model.trainable_variables, gradient)
    }
    for variable in scales:
        assert np.all(np.any(by_variable[id(variable)] != 0, axis=1))
    normalization = model.network.layers[2]
    assert np.all(by_variable[id(normalization.gamma)] == 0)


def test_single_queries_are_answered_and_alone_as_together():
    model = TestMAMLWithNormalizationPerStep().make_model()
    episodes = contract.blob_episodes()
    model.fit(episodes, steps_per_epoch=5, verbose=0)
    x, y = next(iter(episodes))
    alone = model({**x, "query_x": x["query_x"][:, :1]})
    np.testing.assert_allclose(alone[:, 0], model(x)[:, 0], atol=1e-5)
    with pytest.raises(ValueError, match="single example.*query_x"):
        model.train_on_batch({**x, "query_x": x["query_x"][:, :1]}, y[:, :1])


def test_learns_and_answers_by_moving_statistics():
    model = TestMAMLWithNormalizationPerStep().make_model()
    model.fit(contract.blob_episodes(), steps_per_epoch=60, verbose=0)
    test = contract.blob_episodes(episodes=40, seed=1)
    assert model.evaluate(test, verbose=0, return_dict=True)["accuracy"] > 0.8


@pytest.mark.parametrize("per_step", ["statistics", "scales"])
def test_refuses_more_steps_than_are_trained(per_step):
    with pytest.raises(ValueError, match="inner_steps=2.*evaluation_steps=3"):
        keras_meta.MAML(
            dense_network(),
            inner_steps=2,
            evaluation_steps=3,
            **{f"normalization_{per_step}": "per_step"},
        )


def test_refuses_a_network_without_batch_normalization():
    with pytest.raises(ValueError, match="batch normalization.*Received"):
        per_step_normalization.PerStepNormalization(
            keras_meta.backbones.mlp(), 1, statistics=True, scales=True
        )
