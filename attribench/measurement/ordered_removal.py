"""The K training images that a method would remove for a query: those with the highest scores.

Ties are broken as in `ordered_halves`. Where a tie runs through place K the removal is not determined, and it is made
twice, with the tied images in the order of their rows and in the reverse order; the query counts as the mean of the two.
"""

from __future__ import annotations

import numpy as np

from attribench.errors import UsageError
from attribench.measurement.ordered_halves import tie_orders


def removals(scores: np.ndarray, k: int) -> tuple[tuple[int, ...], ...]:
    """The rows to remove for one query's scores [n_train], rising: one removal, or two where a tie runs through place K.

    Raises MethodError for NaN or infinite scores, UsageError unless 0 < K < n_train.
    """
    scores = np.asarray(scores)
    if not 0 < k < len(scores):
        raise UsageError(f"K = {k} of {len(scores)} training images: K must be at least 1, and leave images to train on")
    return tuple(dict.fromkeys(tuple(sorted(order[:k].tolist())) for order in tie_orders(scores)))


def is_determined(scores: np.ndarray) -> bool:
    """Whether the scores of a query tell any image from another."""
    return bool(np.ptp(scores) > 0) if len(scores) else False
