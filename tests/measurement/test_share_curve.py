"""The curve over η, its area, and the null of a method that guesses once a prompt, by brute force."""

import numpy as np
import pytest
from scipy.stats import binom

from attribench.measurement.share_curve import ETAS, area_above, null_of_prompts, share_above

ACCURACIES = np.array([0.4, 0.6, 0.7, 1.0])


def test_the_share_counts_studies_strictly_above_eta():
    np.testing.assert_array_equal(share_above(ACCURACIES, [0.5, 0.6, 0.7, 0.99, 1.0]), [0.75, 0.5, 0.25, 0.25, 0])


def test_an_accuracy_that_is_eta_by_its_count_is_not_above_it():
    for n in (10, 20, 50):
        shares = np.arange(n + 1) / n
        for successes in range(n // 2, n):
            assert share_above(shares[successes : successes + 1], [successes / n]) == 0
            assert share_above(shares[successes + 1 : successes + 2], [successes / n]) == 1


def test_the_curve_never_rises():
    curve = share_above(np.random.default_rng(0).random(30), ETAS)
    assert (np.diff(curve) <= 0).all()


def test_the_area_is_that_below_the_curve():
    by_hand = (0.1 + 0.2 + 0.5) / 0.5 / 4  # how far each study is above ½, over the range
    assert area_above(ACCURACIES) == pytest.approx(by_hand)
    middle = (np.arange(5_000) + 0.5) / 10_000 + 0.5
    assert share_above(ACCURACIES, middle).mean() == pytest.approx(by_hand, abs=1e-3)


@pytest.mark.parametrize("accuracy, area", [(1.0, 1.0), (0.5, 0.0), (0.0, 0.0)])
def test_the_area_runs_from_chance_to_perfect(accuracy, area):
    assert area_above(np.full(7, accuracy)) == area


def test_a_study_without_a_value_does_not_count():
    with_gap = np.append(ACCURACIES, np.nan)
    np.testing.assert_array_equal(share_above(with_gap, ETAS), share_above(ACCURACIES, ETAS))
    assert area_above(with_gap) == pytest.approx(area_above(ACCURACIES))


def test_one_guess_a_prompt_beats_sixty_percent_in_seventeen_percent_of_the_concepts():
    null = null_of_prompts([[5] * 10] * 101, [0.6])
    assert null.mean[0] == pytest.approx(176 / 1024, abs=0.003)  # 7 to 10 of 10 fair coins
    alone = null_of_prompts([[1] * 50] * 101, [0.6])
    assert alone.mean[0] == pytest.approx(binom.sf(30, 50, 0.5), abs=0.003)


def test_the_band_is_that_of_independent_concepts():
    null = null_of_prompts([[5] * 10] * 40, [0.5, 0.6, 0.8])
    for at, eta in enumerate((0.5, 0.6, 0.8)):
        above = binom.sf(10 * eta + 1e-9, 10, 0.5)
        assert abs(null.low[at] - binom.ppf(0.025, 40, above) / 40) <= 1 / 40
        assert abs(null.high[at] - binom.ppf(0.975, 40, above) / 40) <= 1 / 40


def test_the_null_is_what_scores_that_know_only_the_prompt_get():
    """Brute force: random scores, the same for a prompt's pictures, against a truth on which these pictures agree."""
    from attribench.metrics.within_concept import Accuracy

    from attribench.measurement import Retrained, Truth
    from attribench.measurement.ordered_halves import ordered_halves

    random = np.random.default_rng(1)
    n_concepts, n_prompts, pictures, n_train = 6, 4, 3, 6
    cuts = [ordered_halves(row) for row in random.random((2_000, n_train))]
    masks = np.unique([half for halves in cuts for cut in halves for half in cut], axis=0)
    assert len(masks) == 20
    worth = np.repeat(random.random((n_prompts, n_train)), pictures, axis=0)
    ids = tuple(map(str, range(len(worth))))
    truth = Truth(ids, tuple("abcdef"), retrained=Retrained(masks, (0,), (-worth @ masks.T)[:, :, None], np.zeros(len(ids)), 0))
    accuracies = np.empty((600, n_concepts))
    for place in np.ndindex(accuracies.shape):
        scores = np.repeat(random.random((n_prompts, n_train)), pictures, axis=0)
        accuracies[place] = Accuracy().values(scores, truth).mean()
    null = null_of_prompts([[pictures] * n_prompts] * n_concepts, ETAS)
    shares = share_above(accuracies, ETAS)
    np.testing.assert_allclose(shares.mean(axis=0), null.mean, atol=0.05)
    np.testing.assert_allclose(np.quantile(shares, 0.975, axis=0), null.high, atol=1 / n_concepts + 1e-9)
    assert area_above(accuracies).mean() == pytest.approx(null.area[0], abs=0.03)


def test_the_null_is_drawn_by_seed():
    first, again, other = (null_of_prompts([[2] * 5] * 8, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.mean, again.mean)
    assert (first.mean != other.mean).any()


def test_prompts_with_unlike_numbers_of_pictures_weigh_as_their_pictures():
    null = null_of_prompts([[3, 1]], [0.5, 0.7, 0.8])
    np.testing.assert_allclose(null.mean, [0.5, 0.5, 0.25], atol=0.02)  # 0, ¼, ¾ or 1, evenly
