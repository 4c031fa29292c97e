import statistics

import keras
import numpy as np
import pytest

import keras_meta
from keras_meta import metrics


def random_answers(seed=0):
    """Targets of size 3, with means and deviations for them."""
    generator = np.random.default_rng(seed)
    y_true = generator.normal(size=(4, 5, 3))
    mean = y_true + generator.normal(size=y_true.shape)
    deviation = generator.uniform(0.1, 2.0, size=y_true.shape)
    y_pred = np.concatenate([mean, deviation], axis=-1)
    return y_true.astype("float32"), y_pred.astype("float32")


def test_error_and_coverage_equal_loops():
    y_true, y_pred = random_answers()
    errors = metrics.gaussian_mean_squared_error(y_true, y_pred)
    coverage = metrics.gaussian_coverage(y_true, y_pred)
    assert errors.shape == coverage.shape == (4, 5)
    reach = statistics.NormalDist().inv_cdf(0.975)
    for place in np.ndindex(4, 5):
        targets, answers = y_true[place], y_pred[place]
        distances = [abs(t - m) for t, m in zip(targets, answers)]
        squares = [distance**2 for distance in distances]
        inside = [d <= reach * s for d, s in zip(distances, answers[3:])]
        np.testing.assert_allclose(errors[place], np.mean(squares), rtol=1e-4)
        np.testing.assert_allclose(coverage[place], np.mean(inside), rtol=1e-6)
    # Some are in the band, and some are not.
    assert len(np.unique(coverage)) > 2


def test_band_of_true_deviations_covers_95_percent():
    generator = np.random.default_rng(0)
    deviation = generator.uniform(0.1, 10.0, size=(20000, 1))
    y_true = generator.normal(size=deviation.shape) * deviation + 5.0
    for factor, expected in ((1.0, 0.95), (0.5, 0.673), (2.0, 0.99991)):
        y_pred = np.concatenate([5.0 + 0 * y_true, factor * deviation], -1)
        covered = np.mean(metrics.gaussian_coverage(y_true, y_pred))
        assert covered == pytest.approx(expected, abs=0.01)


def test_examples_of_the_documentation():
    error = metrics.gaussian_mean_squared_error([[1.0]], [[3.0, 0.5]])
    np.testing.assert_array_equal(error, [4.0])
    coverage = metrics.gaussian_coverage(
        [[1.0], [1.0]], [[1.5, 0.5], [3.0, 0.5]]
    )
    np.testing.assert_array_equal(coverage, [1.0, 0.0])


def test_integers_and_half_precision_are_taken():
    for function in (
        metrics.gaussian_mean_squared_error,
        metrics.gaussian_coverage,
    ):
        assert function([[1]], [[3, 2]]).numpy() in (4.0, 1.0)
        half = function(np.ones((1, 1)), np.ones((1, 2), "float16"))
        assert np.isfinite(half.numpy())


@pytest.mark.parametrize(
    "function",
    [
        metrics.gaussian_mean_squared_error,
        metrics.gaussian_coverage,
        keras_meta.losses.GaussianLikelihood().call,
    ],
)
@pytest.mark.parametrize(
    "targets, answers", [((4, 1), (4, 1)), ((4, 2), (4, 2)), ((4,), (4, 2))]
)
def test_refuses_what_is_not_two_numbers_for_each_target(
    function, targets, answers
):
    with pytest.raises(ValueError, match="a mean and a standard deviation.*Re"):
        function(np.ones(targets), np.ones(answers))


def test_metrics_of_a_keras_model_are_saved_with_it(tmp_path):
    network = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, activation="softplus")]
    )
    network.compile(
        "sgd",
        keras_meta.losses.GaussianLikelihood(),
        metrics=[
            metrics.gaussian_mean_squared_error,
            metrics.gaussian_coverage,
        ],
    )
    x, y = np.ones((3, 2), "float32"), np.zeros((3, 1), "float32")
    logs = network.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["gaussian_mean_squared_error"] == pytest.approx(
        float(network(x)[0, 0]) ** 2, rel=1e-4
    )
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert loaded.evaluate(x, y, verbose=0, return_dict=True) == logs
