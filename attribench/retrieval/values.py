"""Recall@K and average precision from ranks alone, where the scores of a million rows are never held together.

The definitions are those of `attribench.metrics.retrieval`, ties included: each value is the expectation over all orders
of rows with the same score.
"""

from __future__ import annotations

import numpy as np

from attribench.retrieval.exact import Ranks


def recall(ranks: Ranks, k: int) -> np.ndarray:
    """[n_query]: the share of a query's own rows that are among the first K of them and the pool; NaN without own rows."""
    values = []
    for above, tied, scores in zip(ranks.above, ranks.tied, ranks.scores, strict=True):
        first = above + (scores[None] > scores[:, None]).sum(axis=1)
        size = tied + (scores[None] == scores[:, None]).sum(axis=1)
        values.append(np.clip((k - first) / size, 0.0, 1.0).mean() if len(scores) else np.nan)
    return np.array(values)


def average_precision(ranks: Ranks) -> np.ndarray:
    """[n_query]: the mean over a query's own rows of the precision at the place of each; NaN without own rows."""
    return np.array([_average_precision(*of) for of in zip(ranks.above, ranks.tied, ranks.scores, strict=True)])


def _average_precision(above: np.ndarray, tied: np.ndarray, scores: np.ndarray) -> float:
    """Group by group of equal scores; the formula is in `attribench.metrics.retrieval.AveragePrecision`."""
    total = 0.0
    for score in np.unique(scores):
        number = int(np.flatnonzero(scores == score)[0])
        own, own_before = int((scores == score).sum()), int((scores > score).sum())
        size, before = own + int(tied[number]), own_before + int(above[number])
        place = np.arange(1, size + 1)
        tied_before = (place - 1) * (own - 1) / max(size - 1, 1)
        total += (own / size * (own_before + tied_before + 1) / (before + place)).sum()
    return total / len(scores) if len(scores) else float("nan")
