"""Agreement with MONTRAGE's table: Spearman per query, and what happens where it is not defined."""

import numpy as np
from attribench.metrics.agreement import SpearmanWithTable
from scipy.stats import spearmanr

from attribench.measurement import Truth

METRIC = SpearmanWithTable()


def truth_with(table: np.ndarray | None, n_query: int, n_train: int) -> Truth:
    ids = tuple(map(str, range(n_query))), tuple(map(str, range(n_train)))
    return Truth(*ids, np.ones((n_query, n_train), dtype=bool), {} if table is None else {"table": table})


def test_it_is_scipys_spearman_with_ties():
    rng = np.random.default_rng(0)
    scores, table = rng.integers(0, 5, (20, 9)), rng.integers(0, 4, (20, 9))
    expected = [spearmanr(s, t).statistic for s, t in zip(scores, table, strict=True)]
    np.testing.assert_allclose(METRIC.values(scores, truth_with(table, 20, 9)), expected, atol=1e-12)


def test_the_same_order_agrees_wholly_and_the_reverse_not_at_all():
    table = np.array([[0.1, 0.2, 0.7], [0.1, 0.2, 0.7]])
    values = METRIC.values(np.array([[1, 10, 100.0], [3, 2, 1.0]]), truth_with(table, 2, 3))
    np.testing.assert_allclose(values, [1, -1])
    assert np.all(np.abs(values) <= 1)


def test_a_constant_scorer_expresses_no_order_and_gets_chance():
    truth = truth_with(np.array([[0.1, 0.2, 0.7]]), 1, 3)
    assert METRIC.values(np.ones((1, 3)), truth) == METRIC.chance(truth) == [0.0]


def test_a_missing_or_constant_column_is_nan():
    table = np.array([[0.1, 0.9], [np.nan, np.nan], [0.5, 0.5]])
    truth = truth_with(table, 3, 2)
    scores = np.array([[1.0, 2.0]] * 3)
    np.testing.assert_array_equal(METRIC.values(scores, truth), [1, np.nan, np.nan])
    np.testing.assert_array_equal(METRIC.chance(truth), [0, np.nan, np.nan])


def test_without_the_table_every_query_is_nan():
    assert np.isnan(METRIC.values(np.ones((2, 3)), truth_with(None, 2, 3))).all()


def test_random_scores_come_out_at_chance():
    rng = np.random.default_rng(1)
    truth = truth_with(rng.random((5_000, 7)), 5_000, 7)
    assert abs(METRIC.values(rng.random((5_000, 7)), truth).mean()) < 4 * (1 / np.sqrt(6)) / np.sqrt(5_000)


def test_the_name_is_the_papers():
    assert METRIC.name == "spearman_with_table"
