"""Shared ranks among many submissions: `statistics.ranks(statistics.compare(...))`, for a thousand methods in seconds.

Half a million pairs cannot each be resampled. A resampled mean of differences is the difference of the resampled means, so
methods are resampled once, on the same draws; standard errors of all pairs come from their covariances; and an interval is
taken of those pairs alone whose p-value needs one, and whose resamples overlap at all. The result is the same.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np

from attribench.statistics.intervals import LEVEL, bootstrap, expanded_level, is_share_of_studies, p_values, sign_test

METHODS_AT_ONCE = 100
PAIRS_AT_ONCE = 4000


def shared_ranks(
    values: np.ndarray, studies: np.ndarray, *, higher_is_better: bool = True, resamples: int = 2000, seed: int = 0
) -> list[int | None]:
    """1 + the number of methods that are told apart from it as better, for each row of values [n_method, n_query].

    `studies` [n_query]: resampled as clusters. A pair is compared on the queries that both have a value for (not NaN), so that
    a method that lacks some changes nothing between others. None for a method that has no two studies.
    """
    studies = np.asarray(studies, dtype=str)
    patterns, group = np.unique(~np.isnan(values), axis=0, return_inverse=True)
    group, losses, ranked = group.ravel(), np.zeros(len(values), dtype=int), np.zeros(len(values), dtype=bool)
    for a, b in combinations_with_replacement(range(len(patterns)), 2):
        rows, shared = np.flatnonzero((group == a) | (group == b)), patterns[a] & patterns[b]
        if len(set(studies[shared].tolist())) < 2:
            continue
        first, second = np.triu_indices(len(rows), 1)
        counted = (group[rows][first] != group[rows][second]) | (a == b)
        losses[rows] += _losses_of(values[rows][:, shared], studies[shared], counted, higher_is_better, resamples, seed)
        ranked[rows] = True
    return [int(1 + n) if known else None for n, known in zip(losses, ranked, strict=True)]


def _losses_of(
    values: np.ndarray, studies: np.ndarray, counted: np.ndarray, higher_is_better: bool, resamples: int, seed: int
) -> np.ndarray:
    """[n_method] how many others beat it, of the pairs that are counted; values without NaN."""
    n_studies = len(set(studies.tolist()))
    starts = range(0, len(values), METHODS_AT_ONCE)
    resampled = np.concatenate([bootstrap(values[i : i + METHODS_AT_ONCE], studies, resamples, seed).resampled for i in starts])
    value = values.mean(axis=1)
    if is_share_of_studies(values, studies):
        p = _sign_tests(values)
    else:
        error = _spread(resampled) * np.sqrt(n_studies / (n_studies - 1))
        p = p_values(*_of_pairs(value, error), n_studies)
    return _losses(value, resampled, np.where(counted, p, 1.0), expanded_level(n_studies), higher_is_better)


def shared_ranks_redrawn(
    value: np.ndarray, means: np.ndarray, n_studies: int, *, higher_is_better: bool = True
) -> list[int | None]:
    """The same of values that rest on drawn subsets: `means` [n_method, resamples] come from `two_way`, on the same draws."""
    if n_studies < 2:
        return [None] * len(value)
    p = p_values(*_of_pairs(value, _spread(means)), n_studies)
    return (1 + _losses(value, means, p, LEVEL, higher_is_better)).tolist()


def _of_pairs(value: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.triu_indices(len(value), 1)
    return value[first] - value[second], error[first, second]


def _spread(resampled: np.ndarray) -> np.ndarray:
    """[n_method, n_method] standard deviation of the difference of each two rows."""
    covariance = np.atleast_2d(np.cov(resampled, bias=True))
    variance = np.diag(covariance)
    return np.sqrt(np.maximum(variance[:, None] + variance[None] - 2 * covariance, 0.0))


def _sign_tests(values: np.ndarray) -> np.ndarray:
    """[pairs] of rows of 0 and 1, one a study."""
    first, second = np.triu_indices(len(values), 1)
    wins = np.rint(values @ (1 - values).T).astype(int)
    found, place = np.unique(np.stack([wins[first, second], wins[second, first]]), axis=1, return_inverse=True)
    return np.array([sign_test(int(a), int(b)) for a, b in found.T])[place.ravel()]


def _losses(value: np.ndarray, resampled: np.ndarray, p: np.ndarray, level: float, higher_is_better: bool) -> np.ndarray:
    """[n_method] how many others are told apart from it as better."""
    first, second = np.triu_indices(len(value), 1)
    certain = np.flatnonzero(p < 1 - LEVEL)
    least, most = np.minimum(resampled.min(axis=1), value), np.maximum(resampled.max(axis=1), value)
    losses = np.zeros(len(value), dtype=int)
    for start in range(0, len(certain), PAIRS_AT_ONCE):
        pairs = certain[start : start + PAIRS_AT_ONCE]
        a, b = first[pairs], second[pairs]
        apart = (least[a] > most[b]) | (least[b] > most[a])
        unsure = np.flatnonzero(~apart)
        u, v = a[unsure], b[unsure]
        apart[unsure] = _apart(value[u] - value[v], resampled[u] - resampled[v], level)
        better = (value[a] > value[b]) == higher_is_better
        np.add.at(losses, np.where(better, b, a)[apart], 1)
    return losses


def _apart(value: np.ndarray, resampled: np.ndarray, level: float) -> np.ndarray:
    """[pairs] whether the interval of each difference lies on one side of 0. Most have no resample on the other side."""
    above, below = (resampled > 0).all(axis=1) & (value > 0), (resampled < 0).all(axis=1) & (value < 0)
    found = above | below
    unsure = np.flatnonzero(~found)
    if len(unsure):
        low, high = np.quantile(resampled[unsure], [(1 - level) / 2, (1 + level) / 2], axis=1)
        found[unsure] = (np.minimum(low, value[unsure]) > 0) | (np.maximum(high, value[unsure]) < 0)
    return found
