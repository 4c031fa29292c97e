"""Thresholds: when a score is high enough to say yes."""

import collections

import numpy as np

from keras_meta import arguments


class Calibration(
    collections.namedtuple(
        "Calibration",
        [
            "threshold",
            "false_accept_rate",
            "false_reject_rate",
            "equal_error_rate",
            "false_accept_rates",
            "true_accept_rates",
        ],
    )
):
    """A threshold, and the errors that were counted with it.

    Attributes:
        threshold: Float. A score above it is accepted.
        false_accept_rate: Float, the share of the scores that should be
            refused and are accepted.
        false_reject_rate: Float, the share of the scores that should be
            accepted and are refused.
        equal_error_rate: Float, the rate of both errors at the threshold
            where they are equal.
        false_accept_rates: Array, one axis of the receiver operating
            characteristic (ROC): the rate at every threshold from the
            highest score to the lowest, from 0 to 1.
        true_accept_rates: Array, its other axis.
    """

    __slots__ = ()

    def __str__(self):
        return (
            f"threshold {self.threshold:.4g}: false accepts "
            f"{self.false_accept_rate:.2%}, false rejects "
            f"{self.false_reject_rate:.2%} (equal error rate "
            f"{self.equal_error_rate:.2%})"
        )


def calibrate(scores, wanted, false_accept_rate):
    """Returns the lowest threshold with at most so many false accepts.

    Args:
        scores: Array of floats, higher where more should be accepted.
        wanted: Array of booleans of the same shape: which to accept.
        false_accept_rate: Float from 0 to less than 1, the largest share of
            the others that may be accepted.

    Returns:
        A `Calibration`.

    Raises:
        ValueError: Where there is nothing to accept or nothing to refuse,
            where a score is not finite, or where the rate is out of range.
    """
    arguments.check_share(
        "false_accept_rate", false_accept_rate, below_one=True
    )
    scores = np.asarray(scores, "float64").ravel()
    wanted = np.asarray(wanted, bool).ravel()
    if scores.shape != wanted.shape:
        raise ValueError(
            "There must be a score for each label. Received: "
            f"{scores.size} scores and {wanted.size} labels."
        )
    if not np.all(np.isfinite(scores)):
        raise ValueError(
            "Scores must be finite to be calibrated. Received: NaN or Inf."
        )
    accepts, rejects = scores[wanted], scores[~wanted]
    if not accepts.size or not rejects.size:
        raise ValueError(
            "Calibration needs both what to accept and what to refuse. "
            f"Received: {accepts.size} to accept and {rejects.size} to refuse."
        )
    highest = np.sort(rejects)[::-1]
    # The small number keeps 0.3 * 10 from being 2.
    allowed = int(false_accept_rate * rejects.size + 1e-9)
    threshold = highest[allowed]
    false_accept_rates, true_accept_rates = _curve(accepts, rejects)
    return Calibration(
        float(threshold),
        float(np.mean(rejects > threshold)),
        float(np.mean(accepts <= threshold)),
        _equal_error_rate(false_accept_rates, 1 - true_accept_rates),
        false_accept_rates,
        true_accept_rates,
    )


def _curve(accepts, rejects):
    """Returns both rates at all thresholds, the highest first."""
    thresholds = np.unique(np.concatenate([accepts, rejects]))[::-1]
    rates = []
    for values in (rejects, accepts):
        above = np.searchsorted(np.sort(-values), -thresholds, side="right")
        rates.append(np.concatenate([[0.0], above / values.size]))
    return rates


def _equal_error_rate(false_accepts, false_rejects):
    # One rises from 0 to 1 and the other falls from 1 to 0, so they cross;
    # between two thresholds the curve is a straight line.
    after = int(np.argmax(false_accepts >= false_rejects))
    before = after - 1
    gap = false_rejects[before] - false_accepts[before]
    next_gap = false_accepts[after] - false_rejects[after]
    share = gap / (gap + next_gap)
    rise = false_accepts[after] - false_accepts[before]
    return float(false_accepts[before] + share * rise)
