"""Does a model retrained on the images with the higher scores fit the query better? Accuracy within a concept.

MONTRAGE Eq. 10-13. For each query the training images are sorted by score and cut into two ordered halves; a model is
retrained on each, and L is the query's loss under it. With two subsets Spearman's rank correlation is a sign:

    LDS(q) = sign(g_high − g_low) · sign(L_low − L_high)                          in {-1, 1}               (Eq. 10)
    accuracy(study) = share of its queries with LDS > 0                                                    (Eq. 11)
    share above η = share of the studies with accuracy > η                                                 (Eq. 13)

The sign of Eq. 10 is flipped: as printed it correlates attribution with *loss*, so that a good method, whose high half
gives the lower loss, would have a negative LDS. Ordered halves have g_high ≥ g_low, so the first sign is 1 unless all
scores are equal. Ties and odd numbers of images: `attribench.measurement.ordered_halves`. A query that a tie cuts twice
counts as the mean of both cuts (0, ½ or 1); equal losses count as ½. A query whose halves were not retrained is NaN.

Accuracy has a value per query. The share above η and its area are numbers of a whole study: they stand at the study's
first query and are NaN at the others, so that means, intervals and ranks count studies, each once.

The share above η runs from η = ½, the accuracy of chance, to 1. Its area over that range, divided by the range, is the
mean over studies of max(2 · accuracy − 1, 0), since a study is above η exactly up to its own accuracy.

Chance is that of a method that draws anew for every query: its queries are independent, whatever the losses. A method
that cannot tell pictures of one prompt apart does better by luck alone: `attribench.measurement.share_curve` has its null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attribench.errors import MethodError, UsageError
from attribench.measurement import Metric, Truth
from attribench.measurement.ordered_halves import ordered_halves

ROUNDING = 1e-9


def lds_of_halves(scores: np.ndarray, masks: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """[n_query, 2] LDS in {-1, 0, 1} of each query's cuts; both are the same unless a tie runs through the cut.

    scores [n_query, n_train], masks [n_subset, n_train] bool, losses [n_query, n_subset] of each query under the model
    retrained on each subset, NaN where there is none. NaN for a query that lacks a loss. 0 where the losses are equal.
    """
    number = {mask.tobytes(): m for m, mask in enumerate(np.asarray(masks, dtype=bool))}
    found = np.full((len(scores), 2), np.nan)
    for query, row in enumerate(scores):
        cuts = ordered_halves(row)
        for place, halves in enumerate((cuts[0], cuts[-1])):
            high, low = (number.get(half.tobytes()) for half in halves)
            if high is not None and low is not None:
                found[query, place] = np.sign(losses[query, low] - losses[query, high])
    return found


def tied_cuts(scores: np.ndarray) -> np.ndarray:
    """[n_query] bool: a tie runs through the query's cut."""
    return np.array([len(ordered_halves(row)) > 1 for row in scores], dtype=bool)


def above_chance(accuracy: np.ndarray) -> np.ndarray:
    """The area under 1[accuracy > η] over η from ½ to 1, divided by ½."""
    return np.maximum(2 * np.asarray(accuracy) - 1, 0.0)


@dataclass(frozen=True, kw_only=True)
class Accuracy(Metric):
    """Share of the queries whose high half gives the lower loss (Eq. 11, with Eq. 10's sign flipped)."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def name(self) -> str:
        return "accuracy"

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        """[n_query]: 0 or 1; ½ for equal losses, and for a tie whose two cuts disagree."""
        lds = lds_of_halves(scores, *_retrained(truth))
        return ((lds + 1) / 2).mean(axis=1)

    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query]: ½ (Eq. 12)."""
        return np.full(len(truth.query_ids), 0.5)

    def ceiling(self, truth: Truth) -> np.ndarray:
        """[n_query]: 1, of scores that put the better half first."""
        return np.ones(len(truth.query_ids))


@dataclass(frozen=True, kw_only=True)
class _OfStudy(Metric):
    """A function of a study's accuracy, at its first query."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def of_accuracy(self, accuracy: np.ndarray) -> np.ndarray:
        """The number of a study, elementwise."""
        raise NotImplementedError

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        """[n_query]: the study's number, then NaN. A study with a query that has no value has none."""
        return _at_first(len(scores), self.of_accuracy(Accuracy().values(scores, truth).mean()))

    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query]: the expectation when the queries' successes are independent and as likely as not."""
        from scipy.stats import binom  # takes two seconds to import, and `attribench list` computes none

        n = len(truth.query_ids)
        successes = np.arange(n + 1)
        return _at_first(n, (binom.pmf(successes, n, 0.5) * self.of_accuracy(successes / n)).sum())

    def ceiling(self, truth: Truth) -> np.ndarray:
        """[n_query]: that of an accuracy of 1."""
        return _at_first(len(truth.query_ids), self.of_accuracy(np.array(1.0)))


@dataclass(frozen=True, kw_only=True)
class ShareAbove(_OfStudy):
    """Share of the studies whose accuracy is above η (Eq. 13)."""

    eta: float = 0.5

    def __post_init__(self) -> None:
        if not 0.5 <= self.eta < 1:
            raise UsageError(f"η = {self.eta}: give a value from 0.5, the accuracy of chance, to below 1")

    @property
    def name(self) -> str:
        return f"share_above@{self.eta:g}"

    def of_accuracy(self, accuracy: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(accuracy), np.nan, (accuracy > self.eta + ROUNDING).astype(np.float64))


@dataclass(frozen=True, kw_only=True)
class AreaAbove(_OfStudy):
    """Area under the share of studies above η, from chance (η = ½) to 1, as a share of the largest."""

    @property
    def name(self) -> str:
        return "area_above"

    def of_accuracy(self, accuracy: np.ndarray) -> np.ndarray:
        return above_chance(accuracy)


@dataclass(frozen=True, kw_only=True)
class TiedCuts(Metric):
    """Share of the queries whose halves are not determined, since equal scores lie on both sides of the cut."""

    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def name(self) -> str:
        return "tied_cuts"

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        """[n_query]: 0 or 1."""
        return tied_cuts(scores).astype(np.float64)

    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query]: 0; random scores are not tied."""
        return np.zeros(len(truth.query_ids))

    def ceiling(self, truth: Truth) -> np.ndarray:
        """[n_query]: 0."""
        return np.zeros(len(truth.query_ids))


def _at_first(n_query: int, value: float | np.ndarray) -> np.ndarray:
    values = np.full(n_query, np.nan)
    values[:1] = value
    return values


def _retrained(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """masks [n_subset, n_train], and losses [n_query, n_subset] as means over the seeds of the retrainings."""
    if truth.retrained is None:
        raise MethodError("this truth has no retrained halves: measure accuracy under the protocol within-concept")
    return truth.retrained.masks, truth.retrained.losses.mean(axis=2)
