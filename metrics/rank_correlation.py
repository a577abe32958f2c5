"""Spearman's rank correlation of rows, where each column may count several times (as in a bootstrap resample)."""

from __future__ import annotations

import numpy as np


def midranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[resamples, n, m] the rank of each value of a row [n, m], were column j there counts[:, j] times [resamples, m].

    Equal values, copies of one column included, share the mean of their ranks.
    """
    order = np.argsort(values, axis=1, kind="stable")
    in_order = np.take_along_axis(values, order, axis=1)
    starts = np.ones_like(in_order, dtype=bool)
    starts[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    place = np.arange(values.shape[1])
    first = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    ends = np.roll(starts, -1, axis=1)
    ends[:, -1:] = True
    last = np.minimum.accumulate(np.where(ends, place, len(place))[:, ::-1], axis=1)[:, ::-1]
    own = counts[:, order]  # [resamples, n, m], in rising order of the values
    up_to = np.cumsum(own, axis=2)
    before = np.take_along_axis(up_to - own, first[None], axis=2)
    ranks = (before + np.take_along_axis(up_to, last[None], axis=2) + 1) / 2
    return np.take_along_axis(ranks, np.argsort(order, axis=1)[None], axis=2)


def spearman(first: np.ndarray, second: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """[resamples, n] correlation of each row of `first` [n, m] with that of `second` [n, m]; one resample by default.

    NaN where `second`, what is known, is constant: there is no order to agree with. 0 where `first`, what is
    predicted, is constant: it expresses no order, and saying nothing is never better than a wrong answer.
    """
    counts = np.ones((1, first.shape[1])) if counts is None else np.asarray(counts, dtype=np.float64)
    weights = counts[:, None]
    total = counts.sum(axis=1)[:, None, None]
    x, y = (midranks(np.asarray(values, dtype=np.float64), counts) - (total + 1) / 2 for values in (first, second))
    covariance = (weights * x * y).sum(axis=2)
    x_spread, y_spread = ((weights * ranks**2).sum(axis=2) for ranks in (x, y))
    scale = np.sqrt(x_spread * y_spread)
    correlation = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    return np.where(y_spread > 0, np.clip(correlation, -1.0, 1.0), np.nan)
