"""Agreement statistics against hand-computed and published values."""

import numpy as np
import pytest

from jaxsal.training import metrics

# Shrout and Fleiss 1979, table 2: six subjects, four judges; their ICC(2,1) is .29.
RATINGS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], np.float64)
TRUTH = np.array([1.0, 2.0, 3.0, 4.0])
PREDICTION = np.array([2.0, 2.0, 3.0, 5.0])


def test_icc_of_the_published_example():
    # Mean squares by hand: rows 11.2417, columns 32.4861, error 1.0194.
    expected = (11.24167 - 1.01944) / (11.24167 + 3 * 1.01944 + 4 / 6 * (32.48611 - 1.01944))
    assert metrics.icc(RATINGS) == pytest.approx(expected, abs=1e-5)
    assert round(metrics.icc(RATINGS), 2) == 0.29


def test_icc_punishes_a_constant_offset_and_correlation_does_not():
    shifted = TRUTH + 2.0
    assert metrics.pearson(TRUTH, shifted) == pytest.approx(1.0)
    # Rows: 2 * var = 10/3; columns: 4 * 2 = 8; no error: (10/3) / (10/3 + 2/4 * 8).
    assert metrics.agreement(TRUTH, shifted) == pytest.approx((10 / 3) / (10 / 3 + 4))


def test_icc_names_the_shape_it_needs():
    with pytest.raises(ValueError, match=r"\(4,\).*subjects, raters"):
        metrics.icc(TRUTH)


def test_r2_by_hand():
    # Residual squares 1 + 0 + 0 + 1, total squares 5.
    assert metrics.r2(TRUTH, PREDICTION) == pytest.approx(1 - 2 / 5)
    assert metrics.r2(TRUTH, np.full(4, 10.0)) < 0


def test_spearman_shares_ranks_of_ties():
    # Ranks 1 2 3 4 and 1.5 1.5 3 4: covariance 4.5, squares 5 and 4.5.
    assert metrics.spearman(TRUTH, PREDICTION) == pytest.approx(4.5 / np.sqrt(5 * 4.5))


def test_correlation_agrees_with_scipy():
    from scipy import stats

    rng = np.random.default_rng(0)
    a = rng.normal(size=30)
    b = a + rng.normal(size=30)
    assert metrics.pearson(a, b) == pytest.approx(stats.pearsonr(a, b).statistic)
    assert metrics.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_calibration_leaves_its_subject_out():
    rng = np.random.default_rng(0)
    prediction = rng.normal(size=12)
    exact = 3.0 - 2.0 * prediction
    assert metrics.calibrated(exact, prediction) == pytest.approx(exact)
    changed = exact.copy()
    changed[4] += 100.0
    assert metrics.calibrated(changed, prediction)[4] == pytest.approx(exact[4])
    assert metrics.r2_calibrated(rng.normal(size=12), prediction) < 0.5


def test_bootstrap_brackets_its_value_and_repeats():
    rng = np.random.default_rng(1)
    a = rng.normal(size=40)
    b = a + rng.normal(size=40)
    first = metrics.bootstrap(metrics.pearson, a, b, resamples=300, seed=3)
    assert first.low < first.value < first.high
    assert first == metrics.bootstrap(metrics.pearson, a, b, resamples=300, seed=3)
    # Fisher's interval for n = 40 is about .63 wide at most here; the bootstrap must be of that order.
    half = 1.96 / np.sqrt(37)
    fisher = np.tanh(np.arctanh(first.value) + half) - np.tanh(np.arctanh(first.value) - half)
    assert 0.5 * fisher < first.high - first.low < 2.0 * fisher


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\(4,\).*\(3,\)"):
        metrics.r2(TRUTH, PREDICTION[:3])
