"""Ordered halves: a query's training images sorted by score and cut in two (MONTRAGE, supplement A, N_S = 2).

    max of the low half's scores ≤ min of the high half's scores

What the paper leaves open is decided here, once, for the retraining and for the metric:

- An odd number of images. The image in the middle belongs to neither half. Halves of unequal size would put a model
  trained on more images, for more steps, beside one trained on fewer, so that the loss would speak of size and not of
  attribution: of a concept with three images the paper's halves are one image and two.
- Ties. Images with equal scores have no order, and where a tie runs through the cut the halves are not determined. The
  query is then cut twice, with the tied images in the order of their rows and in the reverse order, and counts as the
  mean of the two. This draws no random numbers, and it is fair: a method that gives every image the same score has its
  two halves exchanged by the second cut, and so comes out at exactly one half, the value of chance.
- Scores that are equal as float32 are tied; there is no tolerance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from attribench.errors import MethodError


class Halves(NamedTuple):
    """The two subsets of one cut, as bool masks [n_train] over the rows."""

    high: np.ndarray
    low: np.ndarray


def tie_orders(scores: np.ndarray) -> list[np.ndarray]:
    """The rows of scores [n_train], highest first, with tied rows as they come, and in the reverse order.

    Raises MethodError for NaN or infinite scores.
    """
    if not np.isfinite(scores).all():
        raise MethodError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are NaN or infinite and have no order")
    rows = np.arange(len(scores))
    return [np.lexsort((tied, -scores)) for tied in (rows, -rows)]


def ordered_halves(scores: np.ndarray) -> tuple[Halves, ...]:
    """The cuts of one query's scores [n_train]: one, or two where a tie runs through the cut.

    Raises MethodError for NaN or infinite scores, and for fewer than two images.
    """
    scores = np.asarray(scores)
    if scores.ndim != 1 or len(scores) < 2:
        raise MethodError(f"scores of shape {scores.shape} have no halves: give the scores of at least two training images")
    first, second = map(_cut, tie_orders(scores))
    return (first,) if np.array_equal(first, second) else (first, second)


def _cut(order: np.ndarray) -> Halves:
    """The first and the last ⌊n/2⌋ rows of an order."""
    high, low = np.zeros((2, len(order)), dtype=bool)
    half = len(order) // 2
    high[order[:half]] = True
    low[order[len(order) - half :]] = True
    return Halves(high, low)
