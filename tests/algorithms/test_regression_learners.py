"""Learners that generate, and the transfer baselines, as regressions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_meta
from tests.algorithms.test_generating_learners import LEARNERS
from tests.algorithms.test_generating_learners import OUTPUTS
from tests.algorithms.test_generating_learners import make_learner
from tests.algorithms.test_generating_learners import random_tasks

NEURAL_PROCESSES = ("conditional_neural_process", "attentive_neural_process")
GAUSSIAN = keras_meta.losses.GaussianLikelihood


def compiled(name, **settings):
    model = make_learner(name, regression=True)
    gaussian = name in NEURAL_PROCESSES
    loss = GAUSSIAN() if gaussian else "mse"
    model.compile(keras.optimizers.SGD(0.01), loss, **settings)
    return model


@pytest.mark.parametrize("name", LEARNERS)
def test_regressions_are_saved_adapted_and_exported(name, tmp_path):
    model = compiled(name)
    x = random_tasks(regression=True)
    answers = model(x)
    # Of a neural process the means, and then the deviations.
    size = OUTPUTS * (1 + (name in NEURAL_PROCESSES))
    assert answers.shape == (3, 3, size)
    assert model.compute_output_spec(x).shape == (3, 3, size)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_config().keys() == model.get_config().keys()
    assert type(loaded.loss) is type(model.loss)
    np.testing.assert_array_equal(loaded(x), answers)

    adapted = model.adapt(x["support_x"][1], x["support_y"][1])
    of_queries = adapted(x["query_x"][1])
    np.testing.assert_allclose(of_queries, answers[1], rtol=1e-3, atol=1e-4)
    adapted.save(tmp_path / "adapted.keras")
    loaded = keras.saving.load_model(tmp_path / "adapted.keras")
    np.testing.assert_array_equal(loaded(x["query_x"][1]), of_queries)

    model.export(tmp_path / "exported", verbose=False)
    endpoint = tf.saved_model.load(tmp_path / "exported").signatures[
        "adapt_and_predict"
    ]
    # Of another number of tasks and of support examples.
    x = random_tasks(regression=True, tasks=1, supports=6)
    parts = {key: tf.constant(value) for key, value in x.items()}
    (answer,) = endpoint(**parts).values()
    np.testing.assert_allclose(answer, model(x), rtol=1e-3, atol=1e-4)


# The two transfer baselines are trained on examples, and not on episodes.
@pytest.mark.parametrize(
    "name",
    [n for n in LEARNERS if n not in ("fine_tuning", "frozen_representation")],
)
def test_a_training_step_is_that_of_the_loss(name):
    model = compiled(name, run_eagerly=True)
    x = random_tasks(regression=True)
    y = np.random.default_rng(7).normal(size=(3, 3, OUTPUTS)).astype("float32")
    with tf.GradientTape() as tape:
        loss = model.loss
        loss = keras.losses.get(loss)
        value = tf.reduce_mean(loss(y, model(x, training=True)))
    slopes = tape.gradient(value, model.trainable_variables)
    expected = [
        variable.numpy() - 0.01 * tf.convert_to_tensor(slope)
        for variable, slope in zip(model.trainable_variables, slopes)
    ]
    logs = model.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(logs["loss"], value, rtol=1e-4)
    for variable, after in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(variable, after, rtol=1e-3, atol=1e-4)


def test_neural_process_is_measured_by_its_mean():
    network = keras_meta.backbones.mlp((1,), (6,), outputs=None)
    model = keras_meta.ConditionalNeuralProcess(
        network, 1, regression=True, hidden_units=(7,), code_size=8
    )
    model.compile(
        "sgd",
        GAUSSIAN(),
        metrics=[
            keras_meta.metrics.gaussian_mean_squared_error,
            keras_meta.metrics.gaussian_coverage,
        ],
        run_eagerly=True,
    )
    waves = keras_meta.episodes.sinusoids(meta_batch_size=4, episodes=4)
    result = keras_meta.evaluate_episodes(model, waves)
    ((x, y),) = waves
    answers = model(x).numpy()
    assert result.metric == "gaussian_mean_squared_error"
    np.testing.assert_allclose(
        result.values,
        [np.mean((a[:, 0] - t[:, 0]) ** 2) for a, t in zip(answers, y)],
        rtol=1e-4,
    )
    # Other metrics are given.
    coverage = keras_meta.evaluate_episodes(
        model, waves, metric=keras_meta.metrics.gaussian_coverage
    )
    inside = np.abs(answers[..., 0] - y[..., 0]) <= 1.96 * answers[..., 1]
    np.testing.assert_allclose(coverage.mean, np.mean(inside), rtol=1e-6)
    logs = model.evaluate(waves, verbose=0, return_dict=True)
    np.testing.assert_allclose(
        logs["gaussian_mean_squared_error"], result.mean, rtol=1e-4
    )


# What has no idea of deviations.
@pytest.mark.parametrize(
    "settings, received",
    [
        ({"loss": "mse"}, "loss='mse'"),
        (
            {"loss": keras.losses.MeanSquaredError()},
            "loss=<.*mean_squared_error",
        ),
        ({"loss": keras.losses.mean_squared_error}, "loss=<function mean_sq"),
        ({"metrics": ["mae"]}, "metrics='mae'"),
        (
            {"metrics": [keras.metrics.MeanSquaredError()]},
            "metrics=<MeanSquaredError",
        ),
        ({"metrics": {"output": "mae"}}, "metrics='mae'"),
        ({"weighted_metrics": ["mse"]}, "weighted_metrics='mse'"),
    ],
)
def test_neural_process_refuses_what_takes_deviations_for_answers(
    settings, received
):
    model = make_learner("conditional_neural_process", regression=True)
    message = rf"`{next(iter(settings))}` must take.*{received}.*Gaussian"
    with pytest.raises(ValueError, match=message):
        model.compile("sgd", **{"loss": GAUSSIAN()} | settings)


def test_neural_process_takes_what_knows_deviations():
    model = make_learner("attentive_neural_process", regression=True)
    own = lambda y, answers: 0.0  # noqa: E731
    for settings in (
        {"loss": GAUSSIAN()},
        {"loss": own},
        {"loss": GAUSSIAN(), "metrics": [keras_meta.metrics.gaussian_coverage]},
        {"loss": GAUSSIAN(), "weighted_metrics": [own]},
    ):
        model.compile("sgd", **settings)
    # Classes have logits, as with every classifier.
    model = make_learner("conditional_neural_process")
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


@pytest.mark.parametrize(
    "name",
    [
        *NEURAL_PROCESSES,
        "in_context_learner",
        "snail",
        "memory_augmented_network",
    ],
)
def test_refuses_targets_of_another_size(name):
    model = compiled(name)
    x = random_tasks(regression=True)
    y = np.zeros((3, 3, OUTPUTS), "float32")
    fewer = {**x, "support_y": x["support_y"][..., :2]}
    flat = {**x, "support_y": x["support_y"][..., 0]}
    for call, shape in (
        (lambda: model(fewer), "`support_y` of shape .3, 4, 2."),
        (lambda: model(flat), "`support_y` of shape .3, 4.,"),
        (
            lambda: model.adapt(x["support_x"][0], x["support_y"][0, :, :2]),
            "`support_y` of shape .1, 4, 2.",
        ),
        (
            lambda: model.fit(fewer, y[..., :2], verbose=0),
            "shape .3, 4, 2., and outputs=3",
        ),
    ):
        with pytest.raises(ValueError, match=shape):
            call()
    with pytest.raises(ValueError, match=r"same shape.*\(3,\).*\(2,\)"):
        model.fit(x, y[..., :2], verbose=0)
