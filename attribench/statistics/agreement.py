"""Whether two score tables say the same: ranks, query by query."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

SAME_RANKS = 0.999
"""A mean correlation of this much is rounding: one of the two has learned, or drawn, nothing that counts."""


def rank_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """The mean over queries of Spearman's correlation of two tables of scores [..., n_query, n_train].

    A query is left out where one of the two gives every image the same score; 1 where that leaves none, and both are equal.
    """
    a, b = (rankdata(scores, axis=-1) for scores in (first, second))
    a, b = (ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (a, b))
    scale = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    if not (scale > 0).any():
        return float(np.array_equal(first, second))
    return float(((a * b).sum(axis=-1)[scale > 0] / scale[scale > 0]).mean())
