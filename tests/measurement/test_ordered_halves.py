"""Ordered halves: worked by hand, with ties, odd numbers and bad scores."""

import numpy as np
import pytest

from attribench.errors import MethodError
from attribench.measurement.ordered_halves import ordered_halves


def rows(mask) -> list[int]:
    return np.flatnonzero(mask).tolist()


def cuts(scores) -> list[tuple[list[int], list[int]]]:
    return [(rows(high), rows(low)) for high, low in ordered_halves(np.array(scores))]


def test_the_high_half_has_the_higher_scores():
    assert cuts([0.1, 0.9, 0.5, -3.0]) == [([1, 2], [0, 3])]


def test_the_middle_image_of_an_odd_number_belongs_to_neither_half():
    assert cuts([5, 1, 3, 2, 4]) == [([0, 4], [1, 3])]


def test_three_images_give_halves_of_one():
    assert cuts([1, 3, 2]) == [([1], [0])]


def test_a_tie_inside_a_half_does_not_matter():
    assert cuts([7, 7, 1, 1]) == [([0, 1], [2, 3])]


def test_a_tie_through_the_cut_is_broken_both_ways():
    assert cuts([9, 5, 5, 1]) == [([0, 1], [2, 3]), ([0, 2], [1, 3])]


def test_a_tie_with_the_middle_image_is_a_tie():
    assert cuts([3, 2, 2, 1, 0]) == [([0, 1], [3, 4]), ([0, 2], [3, 4])]


@pytest.mark.parametrize("n", [2, 4, 5, 8])
def test_the_second_cut_of_a_constant_exchanges_the_halves(n):
    first, second = ordered_halves(np.zeros(n))
    np.testing.assert_array_equal(first.high, second.low)
    np.testing.assert_array_equal(first.low, second.high)


@pytest.mark.parametrize("n", range(2, 12))
def test_halves_are_equal_disjoint_and_ordered(n):
    random = np.random.default_rng(n)
    for scores in random.integers(0, 4, (50, n)):
        for high, low in ordered_halves(scores):
            assert high.sum() == low.sum() == n // 2
            assert not (high & low).any()
            assert scores[low].max() <= scores[high].min()


def test_a_monotone_change_of_the_scores_changes_nothing():
    scores = np.random.default_rng(0).random((20, 9))
    for row, changed in zip(scores, np.exp(3 * scores), strict=True):
        np.testing.assert_array_equal(ordered_halves(row), ordered_halves(changed))


def test_halves_are_found_in_any_order_of_the_images():
    random = np.random.default_rng(1)
    scores, order = random.random(8), random.permutation(8)
    ((high, low),) = ordered_halves(scores)
    ((high_of_permuted, low_of_permuted),) = ordered_halves(scores[order])
    np.testing.assert_array_equal(high[order], high_of_permuted)
    np.testing.assert_array_equal(low[order], low_of_permuted)


@pytest.mark.parametrize("scores", [[1.0, np.nan, 2.0, 3.0], [1.0, np.inf, 2.0, 3.0], [1.0], []])
def test_scores_without_an_order_are_refused(scores):
    with pytest.raises(MethodError):
        ordered_halves(np.array(scores))
