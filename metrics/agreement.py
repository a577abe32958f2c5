"""Does a method order the training images as another source of attributions does?

MONTRAGE reports Spearman's rank correlation between predicted attributions and the columns of its own attribution
table M (main §4.3, supplement tables 1-2). It is told apart as agreement *with M*: a method trained on M is favoured
by it, and it says nothing about whether M is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attribench.measurement import Metric, Truth

from .rank_correlation import spearman


@dataclass(frozen=True, kw_only=True)
class SpearmanWithTable(Metric):
    """Spearman's rank correlation between a query's scores and its column of MONTRAGE's table M.

    Tied scores share the mean of their ranks. A query without a column of M, or whose column is constant, has no
    order to agree with: NaN. A method that scores every image of a query alike expresses no order; its correlation
    is undefined, and counts as 0, the value of chance, so that saying nothing is never better than a wrong answer.
    """

    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    table: str = "table"

    @property
    def name(self) -> str:
        return f"spearman_with_{self.table}"

    def _column(self, truth: Truth) -> np.ndarray:
        """[n_query, n_train] the attributions to agree with; NaN throughout where there are none."""
        missing = np.full((len(truth.query_ids), len(truth.train_ids)), np.nan)
        return np.asarray(truth.tables.get(self.table, missing), dtype=np.float64)

    def _defined(self, column: np.ndarray) -> np.ndarray:
        """[n_query] bool: the column is complete and not constant."""
        return np.isfinite(column).all(axis=1) & (column != column[:, :1]).any(axis=1)

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        """[n_query] in [-1, 1]."""
        column = self._column(truth)
        defined = self._defined(column)
        values = np.full(len(column), np.nan)
        values[defined] = spearman(scores[defined], column[defined])[0]
        return values

    def ceiling(self, truth: Truth) -> np.ndarray:
        """[n_query]: 1, of the table itself."""
        return np.where(self._defined(self._column(truth)), 1.0, np.nan)

    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query]: 0."""
        return np.where(self._defined(self._column(truth)), 0.0, np.nan)
