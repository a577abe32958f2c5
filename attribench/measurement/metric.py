"""The contract of a metric."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attribench.measurement.truth import Truth


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """A pure function of scores and truth with one value per query."""

    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    """What a value can be; a record that holds another is refused."""
    grows_with_k: ClassVar[bool] = False
    """Whether "name@K" cannot fall as K grows."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As in the papers: "recall@5"."""

    @abstractmethod
    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        """[n_query] float64 for scores [n_query, n_train]; NaN where the metric is not defined for a query."""

    @abstractmethod
    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query] float64: the expected value of a method that ranks at random."""

    def ceiling(self, truth: Truth) -> np.ndarray:
        """[n_query] float64: the best that can be expected, from a method that knows the truth; NaN if not known."""
        return np.full(len(truth.query_ids), np.nan)

    def n_subsets(self, truth: Truth) -> int:
        """On how many drawn subsets a value rests: other draws would give other values. 0 if on none."""
        return 0

    def redrawn(self, scores: np.ndarray, truth: Truth, counts: np.ndarray) -> np.ndarray:
        """[resamples, n_query] values, had each subset been drawn `counts` [resamples, n_subsets] times.

        With counts of 1 they are those of `values`. For the bootstrap over subsets and queries; only asked where
        `n_subsets` is not 0.
        """
        raise NotImplementedError(f"{self.name} rests on subsets but cannot redraw them; give the metric a `redrawn`")
