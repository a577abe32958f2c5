"""Agreement of ranks, against scipy's Spearman query by query."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from attribench.statistics.agreement import SAME_RANKS, rank_agreement


def test_it_is_the_mean_of_spearmans_correlations():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 6, 20)).round(1)  # with ties
    expected = np.mean([spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)])
    assert rank_agreement(first, second) == pytest.approx(expected)


def test_a_monotone_change_is_no_change():
    scores = np.random.default_rng(1).normal(size=(2, 5, 30))
    assert rank_agreement(scores, np.exp(3 * scores) + 7) >= SAME_RANKS
    assert rank_agreement(scores, -scores) == pytest.approx(-1)


def test_queries_without_an_order_are_left_out():
    scores = np.arange(12.0).reshape(3, 4)
    flat = np.array([scores[0], np.zeros(4), scores[2]])
    assert rank_agreement(scores, flat) == pytest.approx(1)
    assert rank_agreement(np.zeros((2, 4)), np.zeros((2, 4))) == 1
    assert rank_agreement(np.zeros((2, 4)), np.ones((2, 4))) == 0
