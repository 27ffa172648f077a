"""Agreement between predicted and measured numbers, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A statistic and its percentile bootstrap interval.

    Attributes:
        value: on the whole sample.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


def r2(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Coefficient of determination, 1 - sum (t - p)^2 / sum (t - mean t)^2; negative when worse than the mean.

    Args:
        truth: [n].
        prediction: [n].

    Returns:
        At most 1.

    Example:
        >>> r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
        1.0
    """
    truth, prediction = _paired(truth, prediction)
    return float(1.0 - np.sum((truth - prediction) ** 2) / np.sum((truth - truth.mean()) ** 2))


def pearson(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Pearson's correlation of [n] and [n]."""
    truth, prediction = _paired(truth, prediction)
    return float(np.corrcoef(truth, prediction)[0, 1])


def spearman(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Spearman's rank correlation of [n] and [n]; ties share their mean rank."""
    from scipy.stats import rankdata

    truth, prediction = _paired(truth, prediction)
    return pearson(rankdata(truth), rankdata(prediction))


def icc(ratings: np.ndarray) -> float:
    r"""ICC(A,1): absolute agreement of single ratings, two-way model (Shrout and Fleiss' ICC(2,1)).

    .. math:: \frac{MS_R - MS_E}{MS_R + (k - 1) MS_E + \frac{k}{n} (MS_C - MS_E)}

    Args:
        ratings: [n, k], n subjects by k raters or methods.

    Returns:
        At most 1.

    References:
        McGraw and Wong, `Forming inferences about some intraclass correlation coefficients
        <https://doi.org/10.1037/1082-989X.1.1.30>`_, 1996.

    Example:
        >>> icc(np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
        1.0
    """
    ratings = np.asarray(ratings, np.float64)
    if ratings.ndim != 2 or min(ratings.shape) < 2:
        raise ValueError(f"ratings have shape {ratings.shape}; [subjects, raters] with at least two of each are needed")
    n, k = ratings.shape
    grand = ratings.mean()
    rows, columns = ratings.mean(1), ratings.mean(0)
    between = k * np.sum((rows - grand) ** 2) / (n - 1)
    judges = n * np.sum((columns - grand) ** 2) / (k - 1)
    rest = ratings - rows[:, None] - columns[None] + grand
    error = np.sum(rest**2) / ((n - 1) * (k - 1))
    return float((between - error) / (between + (k - 1) * error + k / n * (judges - error)))


def agreement(truth: np.ndarray, prediction: np.ndarray) -> float:
    """ICC(A,1) between [n] and [n]."""
    return icc(np.stack(_paired(truth, prediction), 1))


def calibrated(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Each prediction after an affine calibration fitted, by least squares, to all the other subjects.

    Args:
        truth: [n], n at least 4.
        prediction: [n].

    Returns:
        [n]; entry i owes nothing to truth i.
    """
    truth, prediction = _paired(truth, prediction)
    out = np.empty_like(truth)
    for i in range(len(truth)):
        rest = np.arange(len(truth)) != i
        out[i] = np.polyval(np.polyfit(prediction[rest], truth[rest], 1), prediction[i])
    return out


def r2_calibrated(truth: np.ndarray, prediction: np.ndarray) -> float:
    """R^2 after leave-one-out affine calibration (:func:`calibrated`)."""
    return r2(truth, calibrated(truth, prediction))


def bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over subjects.

    Args:
        statistic: of truth [n] and prediction [n].
        truth: [n].
        prediction: [n].
        resamples: number of resamples; those in which a value does not vary are left out.
        level: of the interval.
        seed: of the resampling.

    Returns:
        The statistic with its interval.
    """
    truth, prediction = _paired(truth, prediction)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        pick = rng.integers(0, len(truth), len(truth))
        if np.ptp(truth[pick]) > 0 and np.ptp(prediction[pick]) > 0:
            values.append(statistic(truth[pick], prediction[pick]))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if values else (np.nan, np.nan)
    return Interval(statistic(truth, prediction), float(low), float(high))


def _paired(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, prediction = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if truth.shape != prediction.shape or truth.ndim != 1:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} must both be [n]")
    return truth, prediction
