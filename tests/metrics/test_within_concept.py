"""Accuracy within a concept, worked by hand; ties, odd numbers; what chance is, by brute force."""

import itertools

import numpy as np
import pytest
from attribench.metrics.within_concept import Accuracy, AreaAbove, ShareAbove, TiedCuts, lds_of_halves

from attribench.errors import MethodError, UsageError
from attribench.measurement import Retrained, Truth


def all_halves(n: int) -> np.ndarray:
    """Every subset of ⌊n/2⌋ of n images."""
    masks = np.zeros((0, n), dtype=bool)
    for rows in itertools.combinations(range(n), n // 2):
        masks = np.vstack([masks, np.isin(np.arange(n), rows)])
    return masks


def truth_of(masks: np.ndarray, losses: np.ndarray) -> Truth:
    """`losses` [n_query, n_subset]."""
    n_query, n_train = len(losses), masks.shape[1]
    retrained = Retrained(masks=masks, seeds=(0,), losses=losses[:, :, None], full=np.zeros(n_query), own_seed=0)
    return Truth(tuple(map(str, range(n_query))), tuple(map(str, range(n_train))), retrained=retrained)


def additive(n_query: int, n_train: int, seed: int = 0) -> tuple[Truth, np.ndarray]:
    """A truth in which each image lowers each query's loss by its own amount [n_query, n_train]; and the amounts."""
    worth = np.random.default_rng(seed).random((n_query, n_train))
    masks = all_halves(n_train)
    return truth_of(masks, -worth @ masks.T), worth


MASKS = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]], dtype=bool)


def test_lds_is_one_where_the_high_half_gives_the_lower_loss():
    scores = np.array([[4, 3, 2, 1], [1, 2, 3, 4], [4, 1, 3, 2]])
    losses = np.array([[0.1, 0.2, 9, 9], [0.1, 0.2, 9, 9], [9, 9, 0.3, 0.3]])
    np.testing.assert_array_equal(lds_of_halves(scores, MASKS, losses)[:, 0], [1, -1, 0])
    np.testing.assert_array_equal(Accuracy().values(scores, truth_of(MASKS, losses)), [1, 0, 0.5])


def test_the_true_worth_of_the_images_is_always_right_and_its_negative_always_wrong():
    truth, worth = additive(30, 6)
    np.testing.assert_array_equal(Accuracy().values(worth, truth), 1)
    np.testing.assert_array_equal(Accuracy().values(-worth, truth), 0)
    np.testing.assert_array_equal(Accuracy().ceiling(truth), 1)


def test_the_middle_image_of_an_odd_number_has_no_say():
    truth, worth = additive(10, 5)
    middle = np.argsort(worth, axis=1)[:, 2]
    changed = worth.copy()
    changed[np.arange(10), middle] += 1e-9
    np.testing.assert_array_equal(Accuracy().values(changed, truth), Accuracy().values(worth, truth))


@pytest.mark.parametrize("n_train", [4, 5, 8])
def test_a_constant_scorer_is_at_chance_for_every_query_and_above_no_eta(n_train):
    truth, _ = additive(12, n_train)
    scores = np.full((12, n_train), 3.0)
    np.testing.assert_array_equal(Accuracy().values(scores, truth), Accuracy().chance(truth))
    assert ShareAbove(eta=0.5).values(scores, truth)[0] == 0 == AreaAbove().values(scores, truth)[0]
    np.testing.assert_array_equal(TiedCuts().values(scores, truth), 1)


def test_a_tie_through_the_cut_counts_as_the_mean_of_both_cuts():
    scores = np.array([[9, 5, 5, 1]] * 3)  # {0, 1} against {2, 3}, and {0, 2} against {1, 3}
    losses = np.array([[1, 2, 1, 2], [1, 2, 2, 1], [2, 1, 2, 1]])
    np.testing.assert_array_equal(Accuracy().values(scores, truth_of(MASKS, losses)), [1, 0.5, 0])
    np.testing.assert_array_equal(TiedCuts().values(scores, truth_of(MASKS, losses)), [1, 1, 1])


def test_a_half_that_was_not_retrained_leaves_the_query_and_its_study_undefined():
    scores = np.array([[4, 3, 2, 1], [4, 1, 2, 3]])
    truth = truth_of(MASKS, np.array([[0.1, 0.2, 0, 0]] * 2))
    np.testing.assert_array_equal(Accuracy().values(scores, truth), [1, np.nan])
    assert np.isnan(ShareAbove(eta=0.6).values(scores, truth)).all()
    assert np.isnan(AreaAbove().values(scores, truth)).all()


def test_a_truth_without_retrained_halves_is_refused():
    with pytest.raises(MethodError, match="within-concept"):
        Accuracy().values(np.ones((1, 2)), Truth(("q",), ("a", "b")))


def test_seeds_of_a_retraining_are_averaged_before_they_are_compared():
    losses = np.array([[[1.0, 4.0], [2.0, 2.0]]])  # 2.5 against 2
    retrained = Retrained(masks=MASKS[:2], seeds=(0, 1), losses=losses, full=np.zeros(1), own_seed=0)
    truth = Truth(("q",), tuple("abcd"), retrained=retrained)
    np.testing.assert_array_equal(Accuracy().values(np.array([[4, 3, 2, 1]]), truth), [0])


# ------------------------------------------------------------------------------------ studies


def with_accuracy(right: int, of: int) -> tuple[np.ndarray, Truth]:
    scores = np.array([[4, 3, 2, 1]] * of)
    return scores, truth_of(MASKS[:2], np.array([[0, 1]] * right + [[1, 0]] * (of - right)))


@pytest.mark.parametrize("eta, above", [(0.5, 1), (0.6, 1), (0.7, 0), (0.8, 0)])
def test_an_accuracy_of_eta_is_not_above_it(eta, above):
    values = ShareAbove(eta=eta).values(*with_accuracy(7, 10))
    assert values[0] == above
    assert np.isnan(values[1:]).all()  # a study counts once


@pytest.mark.parametrize("right, area", [(10, 1.0), (8, 0.6), (5, 0.0), (2, 0.0)])
def test_the_area_of_one_study_is_how_far_it_is_above_chance(right, area):
    assert AreaAbove().values(*with_accuracy(right, 10))[0] == pytest.approx(area)


@pytest.mark.parametrize("metric", [ShareAbove(eta=0.5), ShareAbove(eta=0.6), ShareAbove(eta=0.9), AreaAbove()])
def test_a_method_that_draws_anew_for_every_query_comes_out_at_chance(metric):
    truth, _ = additive(10, 6)
    random = np.random.default_rng(4)
    values = [metric.values(random.random((10, 6)), truth)[0] for _ in range(2_000)]
    chance = metric.chance(truth)
    assert np.mean(values) == pytest.approx(chance[0], abs=4 * np.std(values) / np.sqrt(len(values)))
    assert np.isnan(chance[1:]).all()


def test_accuracy_at_random_is_one_half_for_even_and_odd_numbers():
    for n_train in (4, 7):
        truth, _ = additive(4_000, n_train)
        values = Accuracy().values(np.random.default_rng(5).random((4_000, n_train)), truth)
        assert values.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4_000))


def test_share_and_area_agree_with_each_other():
    """The area is the share's integral over η from ½ to 1, divided by ½."""
    scores, truth = with_accuracy(8, 10)
    etas = (np.arange(500) + 0.5) / 1000 + 0.5
    shares = [ShareAbove(eta=eta).values(scores, truth)[0] for eta in etas]
    assert AreaAbove().values(scores, truth)[0] == pytest.approx(np.mean(shares), abs=2e-3)


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_eta_lies_between_chance_and_one(eta):
    with pytest.raises(UsageError):
        ShareAbove(eta=eta)


def test_names_are_those_of_the_table():
    assert [m.name for m in (Accuracy(), ShareAbove(eta=0.9), AreaAbove(), TiedCuts())] == [
        "accuracy", "share_above@0.9", "area_above", "tied_cuts",
    ]  # fmt: skip
