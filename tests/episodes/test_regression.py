"""The waves are recovered from their points by least squares in NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_meta import episodes

FAMILIES = [episodes.sinusoids, episodes.harmonics]


def points_of(dataset, batches=None):
    """Returns x and y `[tasks, shots + queries]` in double precision."""
    xs, ys = [], []
    for x, y in dataset.take(-1 if batches is None else batches):
        xs.append(np.concatenate([x["support_x"], x["query_x"]], axis=1))
        ys.append(np.concatenate([x["support_y"], y], axis=1))
    xs, ys = np.concatenate(xs), np.concatenate(ys)
    return xs[..., 0].astype("float64"), ys[..., 0].astype("float64")


def sine_and_cosine(x, rates=(1.0,)):
    waves = [wave(rate * x) for rate in rates for wave in (np.sin, np.cos)]
    return np.stack(waves, axis=-1)


def kolmogorov_smirnov(values, low=0.0, high=1.0, cdf=None):
    """Distance from a distribution (uniform by default), times sqrt(n).

    Above 2.23 with a probability of 1e-4.
    """
    values = np.sort(np.ravel(values))
    shares = (values - low) / (high - low) if cdf is None else cdf(values)
    steps = np.arange(len(values) + 1) / len(values)
    distance = max(np.max(steps[1:] - shares), np.max(shares - steps[:-1]))
    return distance * np.sqrt(len(values))


def half_normal_cdf(values):
    return np.array([math.erf(value / math.sqrt(2)) for value in values])


def fitted_sinusoids(x, y):
    """A sin(x - p) = A cos(p) sin(x) - A sin(p) cos(x)."""
    amplitudes, phases = [], []
    for xs, ys in zip(x, y):
        sine, cosine = np.linalg.lstsq(sine_and_cosine(xs), ys, rcond=None)[0]
        amplitudes.append(np.hypot(sine, cosine))
        phases.append(np.arctan2(-cosine, sine))
    return np.array(amplitudes), np.array(phases)


@pytest.fixture(scope="module")
def many_sinusoids():
    dataset = episodes.sinusoids(meta_batch_size=500, episodes=3000, seed=1)
    x, y = points_of(dataset)
    return x, y, *fitted_sinusoids(x, y)


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_dtypes_and_names(family):
    dataset = family(shots=3, queries=7, meta_batch_size=4)
    x, y = next(iter(dataset))
    assert set(x) == {"support_x", "support_y", "query_x"}
    assert x["support_x"].shape == (4, 3, 1)
    assert x["support_y"].shape == (4, 3, 1)
    assert x["query_x"].shape == (4, 7, 1)
    assert y.shape == (4, 7, 1)
    assert {leaf.dtype for leaf in [*x.values(), y]} == {tf.float32}
    # Static, so that a step of `fit()` is traced once.
    spec = dataset.element_spec
    assert spec[0]["query_x"].shape == (4, 7, 1)
    assert spec[1].shape == (4, 7, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_25_tasks_of_10_points_without_end(family):
    dataset = family()
    x, y = next(iter(dataset))
    assert x["support_x"].shape == (25, 10, 1)
    assert y.shape == (25, 10, 1)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


def test_support_determines_the_query_of_its_sinusoid():
    dataset = episodes.sinusoids(shots=10, queries=15, episodes=200, seed=3)
    x, y = points_of(dataset)
    for xs, ys in zip(x, y):
        design = sine_and_cosine(xs)
        wave = np.linalg.lstsq(design[:10], ys[:10], rcond=None)[0]
        assert np.max(np.abs(design[10:] @ wave - ys[10:])) < 1e-4


def test_amplitudes_are_uniform_from_a_tenth_to_five(many_sinusoids):
    _, _, amplitudes, _ = many_sinusoids
    assert amplitudes.min() > 0.1 - 1e-4
    assert amplitudes.max() < 5.0 + 1e-4
    assert kolmogorov_smirnov(amplitudes, 0.1, 5.0) < 2.23


def test_phases_are_uniform_from_0_to_pi(many_sinusoids):
    _, _, _, phases = many_sinusoids
    assert phases.min() > -1e-4
    assert phases.max() < math.pi + 1e-4
    assert kolmogorov_smirnov(phases, 0.0, math.pi) < 2.23


def test_points_are_uniform_from_minus_five_to_five(many_sinusoids):
    x, _, _, _ = many_sinusoids
    assert x.min() >= -5.0
    assert x.max() <= 5.0
    assert kolmogorov_smirnov(x[:, :10], -5.0, 5.0) < 2.23
    assert kolmogorov_smirnov(x[:, 10:], -5.0, 5.0) < 2.23


def test_the_parts_of_a_sinusoid_are_independent(many_sinusoids):
    x, _, amplitudes, phases = many_sinusoids
    columns = np.column_stack([amplitudes, phases, x])
    correlations = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.max(np.abs(correlations)) < 4.5 / np.sqrt(len(x))


def test_neighboring_sinusoids_are_independent(many_sinusoids):
    x, _, amplitudes, phases = many_sinusoids
    for values in (amplitudes, phases, x[:, 0], x[:, -1]):
        correlation = np.corrcoef(values[:-1], values[1:])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(len(values))
        assert len(np.unique(values)) > 0.99 * len(values)


def test_ranges_of_a_sinusoid_are_those_given():
    dataset = episodes.sinusoids(
        meta_batch_size=500,
        episodes=1000,
        amplitude=(2, 3),
        phase=(-0.5, 0.5),
        x_range=[10.0, 20.0],
    )
    x, y = points_of(dataset)
    amplitudes, phases = fitted_sinusoids(x, y)
    assert kolmogorov_smirnov(amplitudes, 2.0, 3.0) < 2.23
    assert kolmogorov_smirnov(phases, -0.5, 0.5) < 2.23
    assert kolmogorov_smirnov(x, 10.0, 20.0) < 2.23


def test_a_range_of_one_number_fixes_the_sinusoid():
    dataset = episodes.sinusoids(
        episodes=25, amplitude=(2.0, 2.0), phase=(0.5, 0.5)
    )
    x, y = points_of(dataset)
    assert np.allclose(y, 2.0 * np.sin(x - 0.5), atol=1e-5)


def test_frequencies_are_uniform_and_of_the_task():
    dataset = episodes.sinusoids(
        meta_batch_size=500,
        episodes=1000,
        amplitude=(2.0, 2.0),
        phase=(0.5, 0.5),
        # Little enough of the wave that its sine can be turned around.
        x_range=(0.5, 1.5),
        frequency=(0.8, 1.2),
    )
    x, y = points_of(dataset)
    frequencies = (np.arcsin(y / 2.0) + 0.5) / x
    assert np.ptp(frequencies, axis=1).max() < 1e-3
    assert kolmogorov_smirnov(frequencies[:, 0], 0.8, 1.2) < 2.23


def residuals(x, y, rates):
    """What four linear coefficients leave of y, `[tasks]`."""
    design = sine_and_cosine(x, (rates[:, None], 2.0 * rates[:, None]))
    basis, _ = np.linalg.qr(design)
    explained = basis @ (basis.swapaxes(1, 2) @ y[..., None])
    return np.max(np.abs(y - explained[..., 0]), axis=1)


def fitted_rates(x, y, low=5.0, high=7.0, grid=200):
    """Searches the frequency alone: a grid, then golden sections."""
    rates = np.linspace(low, high, grid)
    errors = [residuals(x, y, np.full(len(x), rate)) for rate in rates]
    best = rates[np.argmin(errors, axis=0)]
    width = (high - low) / (grid - 1)
    left, right = best - width, best + width
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        inner = right - ratio * (right - left)
        outer = left + ratio * (right - left)
        is_left = residuals(x, y, inner) < residuals(x, y, outer)
        left, right = (
            np.where(is_left, left, inner),
            np.where(is_left, outer, right),
        )
    return (left + right) / 2


def test_points_of_a_harmonic_obey_two_waves_exactly():
    dataset = episodes.harmonics(shots=20, queries=20, episodes=300, seed=2)
    x, y = points_of(dataset)
    rates = fitted_rates(x, y)
    scale = np.max(np.abs(y), axis=1)
    assert np.max(residuals(x, y, rates) / scale) < 1e-4
    # The fit means something: a little beside the frequency it is not exact.
    assert np.median(residuals(x, y, rates + 0.1) / scale) > 1e-2
    assert rates.min() > 5.0 - 1e-3
    assert rates.max() < 7.0 + 1e-3
    assert kolmogorov_smirnov(rates, 5.0, 7.0) < 2.23


def test_support_determines_the_query_of_its_harmonic():
    dataset = episodes.harmonics(
        shots=20, queries=20, episodes=100, frequency=(6.0, 6.0)
    )
    x, y = points_of(dataset)
    for xs, ys in zip(x, y):
        design = sine_and_cosine(xs, (6.0, 12.0))
        wave = np.linalg.lstsq(design[:20], ys[:20], rcond=None)[0]
        assert np.max(np.abs(design[20:] @ wave - ys[20:])) < 1e-3


@pytest.fixture(scope="module")
def harmonic_coefficients():
    dataset = episodes.harmonics(
        shots=20,
        queries=20,
        meta_batch_size=500,
        episodes=2000,
        frequency=(6.0, 6.0),
        seed=5,
    )
    x, y = points_of(dataset)
    designs = sine_and_cosine(x, (6.0, 12.0))
    return np.array(
        [
            np.linalg.lstsq(design, ys, rcond=None)[0]
            for design, ys in zip(designs, y)
        ]
    )


@pytest.mark.parametrize("wave", [0, 1])
def test_heights_of_harmonics_are_normal(harmonic_coefficients, wave):
    pair = harmonic_coefficients[:, 2 * wave : 2 * wave + 2]
    # The sign of a height cannot be told from half a turn of the phase.
    heights = np.hypot(*pair.T)
    assert kolmogorov_smirnov(heights, cdf=half_normal_cdf) < 2.23


@pytest.mark.parametrize("wave", [0, 1])
def test_phases_of_harmonics_are_uniform(harmonic_coefficients, wave):
    sine, cosine = harmonic_coefficients[:, 2 * wave : 2 * wave + 2].T
    phases = np.arctan2(cosine, sine)
    assert kolmogorov_smirnov(phases, -math.pi, math.pi) < 2.23


def test_the_parts_of_a_harmonic_are_independent(harmonic_coefficients):
    # Independent normal heights and uniform phases leave all coefficients
    # uncorrelated, and the two heights as well.
    low = np.hypot(*harmonic_coefficients[:, :2].T)
    high = np.hypot(*harmonic_coefficients[:, 2:].T)
    columns = np.column_stack([harmonic_coefficients, low, high])
    correlations = np.corrcoef(columns.T)
    correlations[np.eye(6, dtype=bool)] = 0.0
    # A height and a coefficient made of it are not independent, though
    # uncorrelated, and have heavier tails.
    assert np.max(np.abs(correlations)) < 6 / np.sqrt(len(columns))
    for column in columns.T:
        correlation = np.corrcoef(column[:-1], column[1:])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(len(column))


def test_points_of_a_harmonic_are_uniform_around_their_center():
    dataset = episodes.harmonics(
        meta_batch_size=500, episodes=1000, center=(3.0, 3.0)
    )
    x, _ = points_of(dataset)
    assert x.min() >= 1.0
    assert x.max() <= 5.0
    assert kolmogorov_smirnov(x, 1.0, 5.0) < 2.23


def test_centers_of_harmonics_are_uniform():
    dataset = episodes.harmonics(
        shots=100, queries=100, meta_batch_size=500, episodes=500, seed=4
    )
    x, _ = points_of(dataset)
    assert np.all(np.ptp(x, axis=1) <= 4.0 + 1e-5)
    middles = (x.min(axis=1) + x.max(axis=1)) / 2
    assert middles.min() > -4.2
    assert middles.max() < 4.2
    assert kolmogorov_smirnov(middles, -4.0, 4.0) < 2.23


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fixed_list_is_the_same_on_every_pass(family):
    dataset = family(meta_batch_size=4, episodes=10)
    assert [y.shape[0] for _, y in dataset] == [4, 4, 2]
    first, second = points_of(dataset), points_of(dataset)
    assert np.array_equal(first, second)
    assert first[0].shape == (10, 20)


@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_episodes_than_a_meta_batch_are_one_smaller_one(family):
    dataset = family(meta_batch_size=25, episodes=3)
    assert [y.shape[0] for _, y in dataset] == [3]
    first_of_many = points_of(family(meta_batch_size=25), batches=1)[0][:3]
    assert np.array_equal(points_of(dataset)[0], first_of_many)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_episode_does_not_depend_on_the_size_of_its_meta_batch(family):
    x, y = points_of(family(meta_batch_size=1, episodes=12, seed=9))
    found = [
        points_of(family(meta_batch_size=size, episodes=12, seed=9))
        for size in (5, 40)
    ]
    found.append(points_of(family(meta_batch_size=4, seed=9), batches=3))
    for other_x, other_y in found:
        assert np.array_equal(other_x, x)
        # The sine of TensorFlow depends in its last bit on where in the
        # tensor a number is.
        assert np.max(np.abs(other_y - y)) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_gives_the_same_episodes_and_another_seed_others(family):
    first = points_of(family(episodes=25, seed=7))
    assert np.array_equal(first, points_of(family(episodes=25, seed=7)))
    for other in (-7, 7 + 2**40):
        values = points_of(family(episodes=25, seed=other))
        assert not np.any(np.isclose(values[0], first[0], atol=1e-6).all(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_integers_of_numpy_are_integers(family):
    kind = np.int64
    dataset = family(
        shots=kind(3),
        queries=kind(4),
        meta_batch_size=kind(2),
        episodes=kind(5),
        seed=kind(6),
    )
    expected = family(shots=3, queries=4, meta_batch_size=2, episodes=5, seed=6)
    assert np.array_equal(points_of(dataset), points_of(expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_count_that_is_no_positive_integer_is_an_error(family):
    for name in ("shots", "queries", "meta_batch_size", "episodes"):
        match = f"`{name}` must be an integer of 1 or more. Received: {name}="
        for bad in (0, -1, 2.0, "3", True):
            with pytest.raises(ValueError, match=match):
                family(**{name: bad})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_that_is_no_integer_is_an_error(family):
    for bad in (None, 1.5, "3", True):
        match = "`seed` must be an integer. Received: seed="
        with pytest.raises(ValueError, match=match):
            family(seed=bad)


RANGES = [
    (episodes.sinusoids, "amplitude"),
    (episodes.sinusoids, "phase"),
    (episodes.sinusoids, "x_range"),
    (episodes.sinusoids, "frequency"),
    (episodes.harmonics, "frequency"),
    (episodes.harmonics, "center"),
]


@pytest.mark.parametrize("family, name", RANGES)
def test_a_range_that_is_no_ordered_pair_is_an_error(family, name):
    match = f"`{name}` must be a pair of .*numbers.*Received: {name}="
    for bad in ((2.0, 1.0), (1.0,), (1.0, 2.0, 3.0), 3.0, None):
        with pytest.raises(ValueError, match=match):
            family(**{name: bad})


@pytest.mark.parametrize("family, name", RANGES)
def test_a_range_of_no_finite_numbers_is_an_error(family, name):
    match = f"`{name}` must be a pair of .*numbers.*Received: {name}="
    for bad in (
        (float("nan"), 1.0),
        (0.0, float("nan")),
        (0.0, float("inf")),
        (float("-inf"), 0.0),
        (None, 1.0),
        ("a", "b"),
    ):
        with pytest.raises(ValueError, match=match):
            family(**{name: bad})
