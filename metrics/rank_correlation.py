"""Spearman's rank correlation of rows, where each column may count several times (as in a bootstrap resample)."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-12
"""Of squares of centred ranks."""


def midranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[n, resamples, m] the rank of each value of a row [n, m], were column j there counts[:, j] times [resamples, m].

    Equal values, copies of one column included, share the mean of their ranks: a value comes after all that are smaller
    and in the middle of its equals, so that its rank is ½ + Σ_j counts_j (1 if smaller, ½ if equal). That is a product of
    matrices, many times faster than a sort for each resample.
    """
    columns, rows = values[:, :, None], values[:, None, :]
    before = (columns < rows) + 0.5 * (columns == rows)  # [n, what may come before, what is ranked]
    return np.asarray(counts, dtype=np.float64) @ before + 0.5


def spearman(
    first: np.ndarray, second: np.ndarray, counts: np.ndarray | None = None, *, given: np.ndarray | None = None
) -> np.ndarray:
    """[resamples, n] correlation of each row of `first` [n, m] with that of `second` [n, m]; one resample by default.

    `given` [m, c]: the partial correlation, of what a regression of both ranks on the ranks of these columns leaves.

    NaN where `second`, what is known, is constant: there is no order to agree with. 0 where `first`, what is
    predicted, is constant: it expresses no order, and saying nothing is never better than a wrong answer. NaN in rows with NaN.
    """
    n_columns = first.shape[1]
    weights = np.ones((1, n_columns)) if counts is None else np.asarray(counts, dtype=np.float64)
    middle = (weights.sum(axis=1)[:, None] + 1) / 2
    x, y = (_ranks(np.asarray(values, dtype=np.float64), counts) - middle for values in (first, second))
    if given is not None:
        columns = np.moveaxis(_ranks(np.asarray(given, dtype=np.float64).T, counts) - middle, 0, -1)  # [resamples, m, c]
        x, y = (_residuals(ranks, columns, weights) for ranks in (x, y))
    weighted = weights * x
    covariance, x_spread = np.vecdot(weighted, y), np.vecdot(weighted, x)  # [n, resamples]
    y_spread = np.vecdot(weights * y, y)
    scale = np.sqrt(x_spread * y_spread)
    # a side that `given` explains wholly leaves nothing but rounding
    least = 0.0 if given is None else ROUNDING * weights.sum(axis=1) * n_columns**2
    told = (x_spread > least) & (y_spread > least)
    correlation = np.divide(covariance, scale, out=np.zeros_like(covariance), where=told)
    known = (y_spread > least) & ~np.isnan(first + second).any(axis=1)[:, None]
    return np.where(known, np.clip(correlation, -1.0, 1.0), np.nan).T


def _residuals(ranks: np.ndarray, given: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[n, resamples, m] what a regression of ranks [n, resamples, m] on `given` [resamples, m, c] leaves, all of them centred.

    `weights` [resamples, m].
    """
    root = np.sqrt(weights)[:, :, None]
    columns = root * given
    fitted = columns @ (np.linalg.pinv(columns, rcond=1e-9) @ (root * np.moveaxis(ranks, 0, -1)))  # [resamples, m, n]
    explained = np.divide(fitted, root, out=np.zeros_like(fitted), where=root > 0)
    return ranks - np.moveaxis(explained, -1, 0)


def _ranks(values: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """[n, resamples, m]; without counts by a sort, which takes rows of any length."""
    from scipy.stats import rankdata  # takes two seconds to import, and `attribench list` computes none

    return rankdata(values, axis=1)[:, None] if counts is None else midranks(values, counts)
