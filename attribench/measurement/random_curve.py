"""What removing images at random does to queries, as a curve over how many are removed, and its inverse.

"Removing K images by this method does as much as removing M at random." M is read off the curve of random removal: means
over its models, made rising by pooling adjacent violators (a loss cannot truly fall as more images go, whatever few models
say), joined by straight lines. Where a method does less than removing nothing M is 0; where it does more than the last
point of the curve M is that point, and *censored*: more would be needed than was tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from attribench.errors import MethodError
from attribench.measurement.truth import Retrained


@dataclass(frozen=True)
class RandomCurve:
    """Random removal in one study. Arrays over the queries (Q), the points of the curve (J) and the models of each (D)."""

    removed: np.ndarray
    """[J] int64: how many images were removed, rising."""
    rises: tuple[np.ndarray, ...]
    """J arrays [Q, D_j]: of the loss, against the model that is attributed."""

    @classmethod
    def of(cls, known: Retrained) -> Self:
        """From the subsets that were drawn. Raises MethodError if there are none."""
        if known.drawn is None or not known.drawn.any():
            raise MethodError("this truth has no random removals: measure counterfactuals under the protocol leave-k-out")
        rises = known.losses - known.full[:, None, None]
        removed = (~known.masks).sum(axis=1)
        points = np.unique(removed[known.drawn])
        # A model is a subset and a seed, if it was trained.
        flat = [rises[:, known.drawn & (removed == k)].reshape(len(rises), -1) for k in points]
        return cls(points, tuple(of[:, np.isfinite(of).all(axis=0)] for of in flat))

    def at(self, k: int) -> np.ndarray:
        """[Q] mean rise when k images are removed at random. Raises MethodError where the curve has no such point."""
        found = np.flatnonzero(self.removed == k)
        if not len(found):
            raise MethodError(f"the random curve has no point at K = {k}; the protocol must ask for it")
        return self.rises[int(found[0])].mean(axis=1)

    def rising(self, queries: np.ndarray | None = None) -> np.ndarray:
        """[J] the mean over queries (numbers, maybe repeated) and models, made rising."""
        from scipy.optimize import isotonic_regression  # slow to import, and `attribench list` needs none

        chosen = [of if queries is None else of[queries] for of in self.rises]
        return isotonic_regression([of.mean() for of in chosen], weights=[of.shape[1] for of in chosen]).x

    def equivalent(self, rise: float) -> tuple[float, bool]:
        """How many random images raise the queries' mean loss by `rise`, and whether that is censored."""
        return invert(self.removed, self.rising(), rise)


def invert(removed: np.ndarray, rising: np.ndarray, rise: float) -> tuple[float, bool]:
    """The least x at which the line through (removed, rising) reaches `rise`; (last x, True) where it never does."""
    if rise > rising[-1]:
        return float(removed[-1]), True
    j = int(np.argmax(rising >= rise))
    if j == 0:
        return float(removed[0]), False
    share = (rise - rising[j - 1]) / (rising[j] - rising[j - 1])
    return float(removed[j - 1] + share * (removed[j] - removed[j - 1])), False
