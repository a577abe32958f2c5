"""LDS against numbers worked by hand, and against a truth whose effects are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from attribench.metrics.lds import (
    Lds,
    LdsCrossSeed,
    LdsOverCeiling,
    LdsSameSeed,
    LdsWithin,
    agreement_of_seeds,
    spearman_brown,
    subset_scores,
)
from scipy.stats import rankdata

from attribench.errors import MethodError
from attribench.measurement import Retrained, Truth
from attribench.statistics.controls import standard_error

BY_HAND = Retrained(
    masks=np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1]], dtype=bool),
    seeds=(5, 6),
    losses=np.array([[[1.0, 3.0], [2.0, 2.0], [4.0, 1.0], [3.0, 4.0]]]),
    full=np.array([1.0]),
    own_seed=5,
)


def truth_of(known: Retrained) -> Truth:
    return Truth(tuple(f"q{i}" for i in range(len(known.losses))), tuple("abcdefgh")[: known.masks.shape[1]], retrained=known)


def drawn(n_subsets: int, n_train: int, n_queries: int, n_seeds: int, noise: float, seed: int = 0) -> tuple[Truth, np.ndarray]:
    """A truth in which a subset's benefit is the sum of its images' effects, plus noise of each training; and the effects."""
    random = np.random.default_rng(seed)
    masks = np.array([random.permutation(n_train) < n_train // 2 for _ in range(n_subsets)])
    effects = random.normal(size=(n_queries, n_train))
    benefit = subset_scores(effects, masks)
    benefit /= benefit.std(axis=1, keepdims=True)
    losses = -benefit[:, :, None] + noise * random.normal(size=(n_queries, n_subsets, n_seeds))
    known = Retrained(masks, tuple(range(n_seeds)), losses, np.zeros(n_queries), own_seed=0)
    return Truth(tuple(map(str, range(n_queries))), tuple(map(str, range(n_train))), retrained=known), effects


def test_lds_by_hand():
    """Sums of scores 3, 4, 2, 3 against mean losses 2, 2, 2.5, 3.5: of ranks 2.5, 4, 1, 2.5 and −2, −2, −2.5, −3.5."""
    scores = np.array([[2.0, 1.0, 2.0, 1.0]])
    assert subset_scores(scores, BY_HAND.masks).tolist() == [[3.0, 4.0, 2.0, 3.0]]
    # ranks of the benefit: 3.5, 3.5, 2, 1; deviations (0, 1.5, -1.5, 0) · (1, 1, -0.5, -1.5) = 2.25 / sqrt(4.5 · 4.5)
    assert Lds().values(scores, truth_of(BY_HAND)) == pytest.approx([0.5])
    # by the own seed, losses 1, 2, 4, 3: ranks 4, 3, 1, 2; (0, 1.5, -1.5, 0) · (1.5, .5, -1.5, -.5) = 3 / sqrt(4.5 · 5)
    assert LdsSameSeed().values(scores, truth_of(BY_HAND)) == pytest.approx([3 / np.sqrt(22.5)])
    # by the other one, losses 3, 2, 1, 4: ranks 2, 3, 4, 1; (0, 1.5, -1.5, 0) · (-.5, .5, 1.5, -1.5) = -1.5
    assert LdsCrossSeed().values(scores, truth_of(BY_HAND)) == pytest.approx([-1.5 / np.sqrt(22.5)])


def test_the_ceiling_follows_spearman_and_brown():
    assert spearman_brown(0.5, 1) == 0.5
    assert spearman_brown(0.5, 2) == pytest.approx(2 / 3)
    assert spearman_brown(0.2, 3) == pytest.approx(0.6 / 1.4)
    # the two seeds of BY_HAND: ranks 1, 2, 4, 3 and 3, 2, 1, 4: 1 − 6 · (4 + 0 + 9 + 1) / (4 · 15) = −0.4
    assert agreement_of_seeds(BY_HAND.losses) == pytest.approx(-0.4)
    truth = truth_of(BY_HAND)
    assert Lds().ceiling(truth) == 0  # seeds that contradict each other leave nothing to foretell
    assert np.isnan(LdsOverCeiling().values(np.array([[2.0, 1.0, 2.0, 1.0]]), truth)).all()
    agreeing = replace(BY_HAND, losses=np.array([[[1.0, 1.0], [2.0, 2.0], [4.0, 3.0], [3.0, 4.0]]]))  # r₁ = 0.8
    assert Lds().ceiling(truth_of(agreeing)) == pytest.approx([np.sqrt(1.6 / 1.8)])
    assert LdsCrossSeed().ceiling(truth_of(agreeing)) == pytest.approx([np.sqrt(0.8)])
    assert np.isnan(LdsSameSeed().ceiling(truth_of(agreeing))).all()
    over = LdsOverCeiling().values(np.array([[2.0, 1.0, 2.0, 1.0]]), truth_of(agreeing))
    assert over == pytest.approx(Lds().values(np.array([[2.0, 1.0, 2.0, 1.0]]), truth_of(agreeing)) / np.sqrt(1.6 / 1.8))
    alone = replace(BY_HAND, seeds=(5,), losses=BY_HAND.losses[:, :, :1])
    assert np.isnan(Lds().ceiling(truth_of(alone))).all()


def test_flipped_scores_give_the_negative():
    truth, effects = drawn(20, 8, 5, 2, noise=1.0)
    scores = effects + np.random.default_rng(1).normal(size=effects.shape)
    for metric in (Lds(), LdsSameSeed(), LdsCrossSeed(), LdsOverCeiling()):
        np.testing.assert_allclose(metric.values(-scores, truth), -metric.values(scores, truth), atol=1e-12)


@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0])
def test_the_true_effects_reach_the_ceiling_and_so_does_a_regression_on_the_masks(noise):
    """The oracle: ridge regression of the benefit of half of the subsets on their masks, held against the other half."""
    truth, effects = drawn(1200, 12, 6, 3, noise)
    known, metric = truth.retrained, Lds()
    assert metric.values(effects, truth).mean() == pytest.approx(metric.ceiling(truth).mean(), abs=0.03)
    fitting, rest = known.of_subsets(np.arange(600)), replace(truth, retrained=known.of_subsets(np.arange(600, 1200)))
    masks = fitting.masks - fitting.masks.mean(axis=0)
    benefit = -fitting.losses.mean(axis=2)
    oracle = np.linalg.solve(masks.T @ masks + np.eye(12), masks.T @ (benefit - benefit.mean(axis=1, keepdims=True)).T).T
    assert metric.values(oracle, rest).mean() == pytest.approx(metric.ceiling(rest).mean(), abs=0.03)
    assert LdsOverCeiling().values(oracle, rest).mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("metric", [Lds(), LdsCrossSeed(), LdsOverCeiling()], ids=lambda metric: metric.name)
def test_a_redrawn_value_is_that_of_a_truth_with_the_subsets_drawn(metric):
    """The share of the ceiling too: its ceiling is the drawn subsets' own."""
    truth, effects = drawn(24, 10, 4, 2, noise=1.0)
    drawn_numbers = np.random.default_rng(3).integers(24, size=24)
    counts = np.bincount(drawn_numbers, minlength=24)[None]
    repeated = replace(truth, retrained=truth.retrained.of_subsets(drawn_numbers))
    np.testing.assert_allclose(metric.redrawn(effects, truth, counts)[0], metric.values(effects, repeated), atol=1e-12)
    assert metric.name == "lds_cross_seed" or (metric.redrawn(effects, truth, counts)[0] != metric.values(effects, truth)).any()


def test_random_scores_are_at_zero():
    truth, _ = drawn(32, 40, 400, 2, noise=1.0)
    values = Lds().values(np.random.default_rng(2).random((400, 40)), truth)
    assert abs(values.mean()) < 3 * standard_error(values, Lds().chance(truth))


def test_scores_that_are_all_equal_are_at_zero():
    """Not undefined: a method that says nothing is not left out."""
    truth, _ = drawn(32, 8, 3, 2, noise=1.0)
    assert Lds().values(np.full((3, 8), 0.7), truth).tolist() == [0.0, 0.0, 0.0]


def test_a_query_whose_loss_never_changes_has_no_value():
    known = replace(BY_HAND, losses=np.ones((1, 4, 2)))
    truth = truth_of(known)
    for found in (Lds().values(np.ones((1, 4)), truth), Lds().chance(truth), Lds().ceiling(truth)):
        assert np.isnan(found).all()


def test_too_few_subsets_say_so():
    with pytest.raises(MethodError, match="at least 4 retrained subsets, there are 3"):
        Lds().values(np.ones((1, 4)), truth_of(BY_HAND.of_subsets([0, 1, 2])))
    with pytest.raises(MethodError, match="there are no"):
        Lds().values(np.ones((1, 4)), Truth(("q",), tuple("abcd")))


# ---------------------------------------------------------------------------------- within concepts

CONCEPTS = np.repeat(np.arange(4), 6)


def within(n_subsets: int = 40, *, stratified: bool = False, noise: float = 0.5, of_labels: float = 3.0):
    """A truth in which a query's loss follows its concept's images, and within the concept their own effects; and these."""
    random = np.random.default_rng(1)
    halves = [np.concatenate([c * 6 + random.permutation(6)[:3] for c in range(4)]) for _ in range(n_subsets)]
    rows = halves if stratified else [random.permutation(24)[:12] for _ in range(n_subsets)]
    masks = np.array([np.isin(np.arange(24), kept) for kept in rows])
    labels = np.array([[concept == query % 4 for concept in CONCEPTS] for query in range(8)])
    effects = labels * random.normal(size=(8, 24))
    benefit = subset_scores(of_labels * labels + effects, masks)
    losses = -benefit[:, :, None] + noise * random.normal(size=(8, n_subsets, 2))
    known = Retrained(masks, (0, 1), losses, np.zeros(8), own_seed=0)
    ids = tuple(map(str, range(8))), tuple(map(str, range(24)))
    return Truth(*ids, relevant=labels, concepts=CONCEPTS, retrained=known), labels, effects


def test_labels_alone_are_worth_much_of_lds_and_nothing_within_concepts():
    truth, labels, effects = within()
    assert Lds().values(labels * 1.0, truth).mean() > 0.6  # the part of LDS that is no attribution
    assert LdsWithin().values(labels * 1.0, truth) == pytest.approx(0.0, abs=1e-9)
    assert LdsWithin().values(effects, truth).mean() > 0.6
    assert LdsWithin().values(3 * labels + effects, truth).mean() > 0.6


def test_within_concepts_is_the_correlation_of_residuals():
    """Against a regression written out: numpy's least squares of the ranks on the counts, and Pearson's correlation."""
    truth, _, effects = within()
    counts = np.stack([truth.retrained.masks[:, c == CONCEPTS].sum(axis=1) for c in range(4)], axis=1)
    design = np.column_stack([np.ones(len(counts)), *map(rankdata, counts.T)])
    scores = effects + 0.5 * np.random.default_rng(2).normal(size=effects.shape)
    expected = []
    for own, losses in zip(subset_scores(scores, truth.retrained.masks), truth.retrained.losses.mean(axis=2), strict=True):
        sides = [rankdata(own), rankdata(-losses)]
        left = [side - design @ np.linalg.lstsq(design, side, rcond=None)[0] for side in sides]
        expected.append(np.corrcoef(*left)[0, 1])
    np.testing.assert_allclose(LdsWithin().values(scores, truth), expected, atol=1e-9)


def test_a_subset_that_counts_twice_is_one_that_is_there_twice():
    truth, _, effects = within(12)
    counts = np.random.default_rng(3).integers(0, 3, 12)
    again = replace(truth, retrained=truth.retrained.of_subsets(np.repeat(np.arange(12), counts)))
    found = LdsWithin().redrawn(effects, truth, counts[None])[0]
    np.testing.assert_allclose(found, LdsWithin().values(effects, again), atol=1e-9)


def test_where_subsets_hold_as_many_of_each_concept_it_is_lds():
    truth, labels, effects = within(stratified=True)
    np.testing.assert_allclose(LdsWithin().values(effects, truth), Lds().values(effects, truth), atol=1e-9)
    np.testing.assert_allclose(LdsWithin().ceiling(truth), Lds().ceiling(truth), atol=1e-9)


def test_the_ceiling_within_concepts_is_what_the_true_effects_score():
    truths = [within(400, noise=noise) for noise in (0.5, 2.0)]
    for truth, labels, effects in truths:
        assert LdsWithin().values(3 * labels + effects, truth).mean() == pytest.approx(LdsWithin().ceiling(truth)[0], abs=0.05)
    assert LdsWithin().ceiling(truths[1][0])[0] < LdsWithin().ceiling(truths[0][0])[0] - 0.2


def test_random_scores_are_worth_nothing_within_concepts():
    truth, _, _ = within()
    random = np.random.default_rng(4)
    found = np.array([LdsWithin().values(random.random((8, 24)), truth).mean() for _ in range(200)])
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(200)
    assert (LdsWithin().chance(truth) == 0).all()


def test_without_labels_it_says_so():
    truth, effects = drawn(8, 6, 2, 2, 0.1)
    with pytest.raises(MethodError, match="which concept"):
        LdsWithin().values(effects, truth)
