"""Counterfactual metrics against numbers worked out by hand and planted worlds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from attribench.metrics.counterfactual import (
    BeyondCurve,
    ClipSimilarity,
    DeltaGeneration,
    DeltaLoss,
    EquivalentRandom,
    QuerySpread,
    SeedSpread,
)

from attribench.errors import MethodError, UsageError
from attribench.measurement import Retrained, Truth
from attribench.measurement.ordered_removal import removals
from attribench.measurement.random_curve import RandomCurve, invert

N, SEEDS = 6, (1, 2)


def world(losses_of, *, curve=(0, 1, 2, 4), n_query=2) -> Truth:
    """Every subset of six images that lacks one or two of them, and random removals; `losses_of(query, left out, seed)`."""
    pairs = [(i, j) for i in range(N) for j in range(i + 1, N)]
    drawn = [tuple(range(k)) for k in curve]
    left_out = list(dict.fromkeys([*drawn, *((i,) for i in range(N)), *pairs]))
    masks = np.ones((len(left_out), N), dtype=bool)
    for mask, rows in zip(masks, left_out, strict=True):
        mask[list(rows)] = False
    losses = np.array([[[losses_of(q, rows, r) for r in range(2)] for rows in left_out] for q in range(n_query)])
    known = Retrained(
        masks, SEEDS, losses, np.zeros(n_query), own_seed=0, squared_errors=losses / 10, similarities=1 - losses / 10,
        drawn=np.array([rows in drawn for rows in left_out]),
    )  # fmt: skip
    return Truth(tuple(f"q{i}" for i in range(n_query)), tuple("abcdef"), retrained=known)


def by_weight(query, left_out, seed):
    """Image i is worth i + 1 hundredths to every query; the seeds differ by 2 hundredths."""
    return 0.01 * sum(row + 1 for row in left_out) + 0.02 * seed


SCORES = np.array([[6, 5, 4, 3, 2, 1.0], [1, 2, 3, 4, 5, 6.0]])


def test_the_rise_is_that_of_the_model_without_the_images_with_the_highest_scores():
    truth = world(by_weight)
    np.testing.assert_allclose(DeltaLoss(k=1).values(SCORES, truth), [10 + 10, 60 + 10])
    np.testing.assert_allclose(DeltaLoss(k=2).values(SCORES, truth), [30 + 10, 110 + 10])
    np.testing.assert_allclose(DeltaGeneration(k=2).values(SCORES, truth), [0.004, 0.012])
    np.testing.assert_allclose(ClipSimilarity(k=2).values(SCORES, truth), [0.996, 0.988])


def test_chance_is_random_removal_of_as_many():
    truth = world(by_weight)
    np.testing.assert_allclose(DeltaLoss(k=2).chance(truth), [30 + 10] * 2)
    np.testing.assert_allclose(ClipSimilarity(k=1).chance(truth), [0.998] * 2)


def test_rises_are_against_the_model_that_made_the_query():
    truth = world(by_weight)
    moved = replace(truth, retrained=replace(truth.retrained, full=np.array([0.005, 0.01])))
    np.testing.assert_allclose(DeltaLoss(k=1).values(SCORES, moved), [20 - 5, 70 - 10])
    np.testing.assert_allclose(DeltaLoss(k=1).chance(moved), [20 - 5, 20 - 10])


def test_the_order_of_scores_alone_matters_and_the_best_order_has_the_largest_rise():
    truth = world(by_weight)
    np.testing.assert_array_equal(DeltaLoss(k=2).values(SCORES, truth), DeltaLoss(k=2).values(np.exp(SCORES), truth))
    best = DeltaLoss(k=2).values(np.tile(np.arange(6.0), (2, 1)), truth)
    for _ in range(20):
        assert (DeltaLoss(k=2).values(np.random.default_rng(_).random((2, 6)), truth) <= best + 1e-9).all()


def test_a_tie_through_place_k_counts_as_the_mean_of_both_removals():
    assert removals(np.array([5, 1, 1, 1, 0, 0]), 2) == ((0, 1), (0, 3))
    assert removals(np.array([5, 4, 1, 1, 1, 1]), 2) == ((0, 1),)
    scores = np.array([[5, 1, 1, 1, 0, 0.0]])
    truth = world(by_weight, n_query=1)
    np.testing.assert_allclose(DeltaLoss(k=2).values(scores, truth), [(30 + 50) / 2 + 10])


def test_scores_that_tell_no_image_from_another_and_models_that_are_not_there_have_no_value():
    truth = world(by_weight)
    assert np.isnan(DeltaLoss(k=2).values(np.zeros((2, 6)), truth)).all()
    assert np.isnan(DeltaLoss(k=3).values(SCORES, truth)[1])
    lost = truth.retrained.losses.copy()
    lost[0] = np.nan  # the first query was looked at under no model
    assert np.isnan(DeltaLoss(k=1).values(SCORES, replace(truth, retrained=replace(truth.retrained, losses=lost)))[0])


def test_spread_over_seeds_and_over_queries_are_told_apart():
    truth = world(by_weight)
    np.testing.assert_allclose(SeedSpread(k=1).values(SCORES, truth), [20 / 2**0.5] * 2)
    found = QuerySpread(k=1).values(SCORES, truth)
    assert found[0] == pytest.approx(50 / 2**0.5) and np.isnan(found[1])
    alone = truth.of_queries([0])
    assert np.isnan(QuerySpread(k=1).values(SCORES[:1], alone)).all()


# -------------------------------------------------------------------------------------- equivalence


def linear(query, left_out, seed):
    """Random removal of k images raises the loss by k hundredths; the images that are pointed at are worth 2.5 each."""
    return 0.01 * len(left_out) if left_out == tuple(range(len(left_out))) else 0.025 * len(left_out)


def test_equivalent_random_images_on_a_straight_curve():
    """Two images worth as much as five at random; as one, the curve's own value."""
    truth = world(linear, curve=(0, 1, 2, 5))
    found = EquivalentRandom(k=2).values(SCORES[[1, 1]], truth)
    assert found[0] == pytest.approx(5.0) and np.isnan(found[1])
    assert BeyondCurve(k=2).values(SCORES[[1, 1]], truth)[0] == 0
    assert EquivalentRandom(k=1).values(SCORES[[0, 0]], truth)[0] == pytest.approx(1.0)
    assert EquivalentRandom(k=2).chance(truth)[0] == 2


def test_more_than_the_curve_reaches_is_censored_at_its_end():
    truth = world(linear, curve=(0, 1, 2, 3))
    assert EquivalentRandom(k=2).values(SCORES[[1, 1]], truth)[0] == 3
    assert BeyondCurve(k=2).values(SCORES[[1, 1]], truth)[0] == 1


def test_less_than_removing_nothing_is_worth_none():
    assert invert(np.array([0, 10, 20]), np.array([1.0, 2.0, 3.0]), 0.5) == (0.0, False)
    assert invert(np.array([0, 10, 20]), np.array([1.0, 2.0, 3.0]), 2.5) == (15.0, False)
    assert invert(np.array([0, 10, 20]), np.array([1.0, 2.0, 2.0]), 2.0) == (10.0, False)  # the least of a flat part
    assert invert(np.array([0, 10, 20]), np.array([1.0, 2.0, 3.0]), 3.5) == (20.0, True)


def test_a_curve_that_falls_is_pooled_and_keeps_its_weighted_mean():
    """The point with fewer models counts for less."""
    rises = (np.array([[0.0, 0.0]]), np.array([[3.0, 3.0]]), np.array([[0.0]]), np.array([[5.0]]))
    rising = RandomCurve(np.array([0, 1, 2, 3]), rises).rising()
    np.testing.assert_allclose(rising, [0, 2, 2, 5])


def test_equivalence_is_read_back_from_any_rising_curve():
    random = np.random.default_rng(0)
    for _ in range(50):
        removed, rising = np.cumsum(random.integers(1, 9, 6)), np.cumsum(random.random(6) + 0.01)
        at = random.uniform(removed[0], removed[-1])
        assert invert(removed, rising, float(np.interp(at, removed, rising)))[0] == pytest.approx(at)


def test_a_truth_without_removals_and_impossible_k_say_so():
    bare = Truth(("q",), tuple("abcdef"))
    for metric in (DeltaLoss(k=1), EquivalentRandom(k=1), DeltaGeneration(k=1)):
        with pytest.raises(MethodError, match="leave-k-out"):
            metric.values(SCORES[:1], bare)
    with pytest.raises(UsageError, match="at least one"):
        DeltaLoss(k=0)
    for k in (0, 6, 7):
        with pytest.raises(UsageError, match="leave images to train on"):
            removals(SCORES[0], k)
    with pytest.raises(MethodError, match="no point at K = 3"):
        RandomCurve.of(world(by_weight).retrained).at(3)
