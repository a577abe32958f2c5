"""Ranks of many submissions are those of comparing every pair one by one."""

from __future__ import annotations

import numpy as np
import pytest

from attribench.statistics.intervals import compare, ranks
from attribench.statistics.ranking import shared_ranks, shared_ranks_redrawn
from attribench.statistics.two_way import compare_redrawn


def drawn(seed: int, n_methods: int = 12, n_studies: int = 12, per_study: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    studies = np.repeat([f"study-{i:02d}" for i in range(n_studies)], per_study)
    quality = random.normal(0, 0.3, n_methods)[:, None] + random.normal(0, 0.05, (n_methods, len(studies)))
    return np.clip(0.5 + quality + np.repeat(random.normal(0, 0.1, n_studies), per_study), 0, 1), studies


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_ranks_are_those_of_all_pairs_compared_one_by_one(seed, higher):
    values, studies = drawn(seed)
    values[3] = values[4]
    values[:, 7] = np.where(np.arange(12) == 2, np.nan, values[:, 7])
    expected = ranks(range(12), compare(dict(enumerate(values)), studies), higher_is_better=higher)
    found = shared_ranks(values, studies, higher_is_better=higher)
    assert found == [expected[i] for i in range(12)]
    assert len(set(found)) > 3 and found[3] == found[4]


def test_what_one_method_lacks_changes_no_rank_among_the_others():
    values, studies = drawn(2)
    whole = shared_ranks(values[:10], studies)
    values[10, ::2], values[11, 5:] = np.nan, np.nan
    found = shared_ranks(values, studies)
    expected = ranks(range(12), compare(dict(enumerate(values)), studies))
    assert found[:11] == [expected[i] for i in range(11)] and found[11] is None
    assert all(own - alone in (0, 1) for own, alone in zip(found[:10], whole, strict=True))  # 1 where method 10 is better


def test_shares_of_studies_are_ranked_by_the_sign_test():
    random = np.random.default_rng(1)
    values = (random.random((6, 40)) < np.array([0.05, 0.1, 0.5, 0.5, 0.9, 1.0])[:, None]).astype(float)
    studies = np.array([f"s{i}" for i in range(40)])
    expected = ranks(range(6), compare(dict(enumerate(values)), studies))
    assert shared_ranks(values, studies) == [expected[i] for i in range(6)]


def test_over_one_study_nothing_is_ranked():
    assert shared_ranks(np.random.default_rng(0).random((3, 9)), np.array(["one"] * 9)) == [None] * 3


def test_values_that_rest_on_drawn_subsets_are_compared_on_the_same_draws():
    random = np.random.default_rng(5)
    value = random.normal(0.2, 0.2, 9)
    means = value[:, None] + random.normal(0, 0.03, (9, 500)) + random.normal(0, 0.1, 500)
    expected = ranks(range(9), compare_redrawn(dict(enumerate(value)), dict(enumerate(means)), 8))
    found = shared_ranks_redrawn(value, means, 8)
    assert found == [expected[i] for i in range(9)] and len(set(found)) > 2
    assert shared_ranks_redrawn(value, means, 1) == [None] * 9
