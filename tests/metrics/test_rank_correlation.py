"""Spearman with columns that count several times is Spearman of the columns written out."""

from __future__ import annotations

import numpy as np
import pytest
from attribench.metrics.rank_correlation import midranks, spearman
from scipy.stats import rankdata, spearmanr


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_counts_are_copies(levels):
    random = np.random.default_rng(levels)
    first = random.integers(0, levels, (3, 9)).astype(float)
    second = random.normal(size=(3, 9))
    counts = random.multinomial(9, np.full(9, 1 / 9), size=5)
    ranks, found = midranks(first, counts), spearman(first, second, counts)
    for resample, count in enumerate(counts):
        drawn = np.repeat(np.arange(9), count)
        for row in range(3):
            np.testing.assert_allclose(ranks[row, resample, drawn], rankdata(first[row, drawn]))
            if np.ptp(first[row, drawn]):
                expected = spearmanr(first[row, drawn], second[row, drawn]).statistic
                assert found[resample, row] == pytest.approx(expected, abs=1e-12)


def test_saying_nothing_is_zero_and_nothing_to_say_is_undefined():
    varied, constant = np.array([[1.0, 2.0, 3.0]]), np.ones((1, 3))
    assert spearman(constant, varied) == 0
    assert np.isnan(spearman(varied, constant)).all()
    assert np.isnan(spearman(constant, constant)).all()


@pytest.mark.parametrize("counts", [None, np.ones((2, 3))])
def test_what_is_not_a_number_has_no_order(counts):
    whole, broken = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]]), np.array([[1.0, np.nan, 3.0], [1.0, 2.0, 3.0]])
    for found in (spearman(whole, broken, counts), spearman(broken, whole, counts)):
        assert np.isnan(found[:, 0]).all() and np.isfinite(found[:, 1]).all()
