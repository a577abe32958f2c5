"""Recall, precision and average precision are exact expectations under random breaking of ties."""

from itertools import permutations

import numpy as np
import pytest
from attribench.metrics.retrieval import AveragePrecision, Precision, Recall

from attribench.errors import UsageError
from attribench.measurement import Truth

METRICS = [Recall(k=1), Recall(k=3), Recall(k=9), Precision(k=2), Precision(k=9), AveragePrecision()]
by_name = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def truth_of(relevant) -> Truth:
    relevant = np.atleast_2d(np.asarray(relevant, dtype=bool))
    names = [tuple(f"{axis}{i}" for i in range(n)) for axis, n in zip("qt", relevant.shape, strict=True)]
    return Truth(names[0], names[1], relevant)


def by_the_book(name: str, relevant_in_order: list[bool]) -> float:
    """The textbook definition, for a list without ties."""
    kind, _, k = name.partition("@")
    hits = sum(relevant_in_order[: int(k)]) if k else 0
    if kind == "recall":
        return hits / sum(relevant_in_order)
    if kind == "precision":
        return hits / int(k)
    places = [place for place, is_relevant in enumerate(relevant_in_order, 1) if is_relevant]
    return float(np.mean([found / place for found, place in enumerate(places, 1)]))


def expectation_by_enumeration(name: str, scores: np.ndarray, relevant: np.ndarray) -> float:
    """Mean of the textbook definition over every order of the images that the scores allow."""
    images = range(len(scores))
    allowed = [o for o in permutations(images) if all(scores[a] >= scores[b] for a, b in zip(o, o[1:], strict=False))]
    return float(np.mean([by_the_book(name, [bool(relevant[i]) for i in order]) for order in allowed]))


@by_name
def test_ties_give_the_mean_over_every_order(metric):
    rng = np.random.default_rng(7)
    scores = rng.integers(0, 3, (25, 6)).astype(np.float32)
    relevant = rng.random((25, 6)) < 0.4
    relevant[:, 0] |= ~relevant.any(axis=1)
    expected = [expectation_by_enumeration(metric.name, s, r) for s, r in zip(scores, relevant, strict=True)]
    np.testing.assert_allclose(metric.values(scores, truth_of(relevant)), expected, atol=1e-12)


@by_name
def test_a_constant_scorer_gets_exactly_the_value_of_chance(metric):
    truth = truth_of(np.random.default_rng(1).random((40, 12)) < 0.3)
    np.testing.assert_allclose(metric.values(np.full((40, 12), -0.0), truth), metric.chance(truth), atol=1e-12)


@by_name
def test_random_scores_come_out_at_chance(metric):
    relevant = np.arange(11) < 4
    truth = truth_of(np.tile(relevant, (40_000, 1)))
    values = metric.values(np.random.default_rng(2).random((40_000, 11)), truth)
    standard_error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - metric.chance(truth)[0]) <= 4 * standard_error + 1e-12


@by_name
def test_the_order_of_the_training_images_changes_nothing(metric):
    rng = np.random.default_rng(3)
    scores, relevant, shuffle = rng.integers(0, 4, (10, 9)), rng.random((10, 9)) < 0.5, rng.permutation(9)
    np.testing.assert_allclose(
        metric.values(scores, truth_of(relevant)),
        metric.values(scores[:, shuffle], truth_of(relevant[:, shuffle])),
        atol=1e-12,
    )


@by_name
def test_a_query_with_nothing_to_find_is_nan(metric):
    truth = truth_of([[0, 0, 0], [1, 0, 0]])
    assert np.isnan(metric.values(np.eye(2, 3), truth)).tolist() == [True, False]
    assert np.isnan(metric.chance(truth)).tolist() == [True, False]


def test_a_perfect_ranking_scores_one_and_the_worst_is_known():
    truth = truth_of([[1, 1, 0, 0, 0]])
    best, worst = np.array([[5, 4, 3, 2, 1.0]]), np.array([[1, 2, 3, 4, 5.0]])
    assert AveragePrecision().values(best, truth) == [1.0]
    assert AveragePrecision().values(worst, truth) == pytest.approx([(1 / 4 + 2 / 5) / 2])
    assert Recall(k=2).values(best, truth) == [1.0]
    assert Precision(k=5).values(best, truth) == [0.4]


def test_k_beyond_the_training_set_retrieves_everything():
    truth = truth_of([[1, 0, 1]])
    scores = np.array([[0.3, 0.2, 0.1]])
    assert Recall(k=10).values(scores, truth) == Recall(k=10).chance(truth) == [1.0]
    assert Precision(k=10).values(scores, truth) == Precision(k=10).chance(truth) == [0.2]


def test_recall_never_falls_as_k_grows():
    rng = np.random.default_rng(4)
    truth, scores = truth_of(rng.random((30, 8)) < 0.5), rng.integers(0, 3, (30, 8))
    values = np.stack([Recall(k=k).values(scores, truth) for k in range(1, 10)])
    assert np.all((np.diff(values, axis=0) >= -1e-12) | np.isnan(values[1:]))


def test_k_below_one_is_refused():
    with pytest.raises(UsageError, match="K = 0"):
        Recall(k=0)


def test_names_are_the_papers():
    names = [metric.name for metric in (Recall(k=5), Precision(k=10), AveragePrecision())]
    assert names == ["recall@5", "precision@10", "average_precision"]
