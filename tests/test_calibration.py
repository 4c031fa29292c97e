import numpy as np
import pytest

from keras_meta import calibration


def rates(scores, wanted, threshold):
    """False accepts and true accepts, counted one by one."""
    accepted = {True: 0, False: 0}
    for score, want in zip(scores, wanted):
        accepted[bool(want)] += score > threshold
    return accepted[False] / np.sum(~wanted), accepted[True] / np.sum(wanted)


@pytest.fixture
def labeled_scores():
    generator = np.random.default_rng(0)
    wanted = np.arange(300) % 3 == 0
    # Rounded, so that there are ties.
    return np.round(generator.normal(size=300) + 1.5 * wanted, 1), wanted


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.3, 0.99])
def test_threshold_is_the_lowest_that_keeps_the_rate(labeled_scores, rate):
    scores, wanted = labeled_scores
    result = calibration.calibrate(scores, wanted, rate)
    accepts, true_accepts = rates(scores, wanted, result.threshold)
    assert result.false_accept_rate == pytest.approx(accepts)
    assert result.false_reject_rate == pytest.approx(1 - true_accepts)
    assert accepts <= rate
    lower = scores[scores < result.threshold].max(initial=-10)
    assert rates(scores, wanted, lower)[0] > rate


def test_curve_holds_the_rates_of_every_threshold(labeled_scores):
    scores, wanted = labeled_scores
    result = calibration.calibrate(scores, wanted, 0.1)
    curve = list(zip(result.false_accept_rates, result.true_accept_rates))
    assert curve[0] == (0, 0) and curve[-1] == (1, 1)
    for threshold in np.unique(scores):
        point = rates(scores, wanted, threshold)
        assert any(np.allclose(point, other) for other in curve)


def test_equal_error_rate_of_known_scores():
    # Above 2.5: one of four to accept is refused, one of four to refuse
    # accepted.
    scores = [4, 5, 6, 2, 3, 1, 0, -1]
    wanted = [1, 1, 1, 1, 0, 0, 0, 0]
    result = calibration.calibrate(scores, wanted, 0.25)
    assert result.equal_error_rate == pytest.approx(0.25)
    assert result.threshold == 1
    apart = calibration.calibrate([1, 2, 3, 4], [0, 0, 1, 1], 0.0)
    assert apart.equal_error_rate == 0
    assert apart.false_reject_rate == 0
    alike = calibration.calibrate([1, 1, 1, 1], [0, 0, 1, 1], 0.0)
    assert alike.equal_error_rate == pytest.approx(0.5)
    assert "equal error rate 50.00%" in str(alike)


@pytest.mark.parametrize(
    "scores, wanted, rate, message",
    [
        ([1.0, 2.0], [True, True], 0.1, "2 to accept and 0 to refuse"),
        ([1.0, 2.0], [False, False], 0.1, "0 to accept and 2 to refuse"),
        ([1.0, np.nan], [True, False], 0.1, "finite.*Received: NaN"),
        ([1.0, 2.0], [True], 0.1, "2 scores and 1 labels"),
        ([1.0, 2.0], [True, False], 1.0, "false_accept_rate=1.0"),
        ([1.0, 2.0], [True, False], -0.1, "false_accept_rate=-0.1"),
    ],
)
def test_refuses(scores, wanted, rate, message):
    with pytest.raises(ValueError, match=message):
        calibration.calibrate(scores, wanted, rate)
