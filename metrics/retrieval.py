"""Does a method find the images that show what the query shows? Recall@K, precision@K and average precision.

MONTRAGE reports recall@K and precision@K with K = 5 for un-mixed and 10 for mixed prompts (main §4.3, supplement
tables 1-2). The paper does not define them; its tables fit only recall = hits / relevant images and
precision = hits / K, which are the definitions here.

Ties. A score says nothing about the order of two images that share it, so the value of a query is the exact
expectation over all orders of the tied images (McSherry & Najork 2008, "Computing Information Retrieval Performance
Measures Efficiently in the Presence of Tied Scores"). It depends on no sorting algorithm and on no order of the
images, and a method that gives every image the same score gets exactly the value of chance.

A query without any relevant image cannot tell methods apart: its value is NaN for every metric of this page, and so
is its chance. K may exceed the number of training images: the whole list is then retrieved, recall is 1 and
precision still divides by K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attribench.errors import MethodError, UsageError
from attribench.measurement import Metric, Truth


def tied_places(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last place (1 = highest score) that each image can take when ties break at random.

    Two int arrays [n_query, n_train]; they are equal where a score is not shared.
    """
    from scipy.stats import rankdata  # takes two seconds to import, and `attribench list` computes none

    descending = -np.asarray(scores, dtype=np.float64)
    first = rankdata(descending, method="min", axis=1)
    last = rankdata(descending, method="max", axis=1)
    return first.astype(np.int64), last.astype(np.int64)


def expected_hits(scores: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """[n_query] expected number of relevant images among the K with the highest scores.

    The tied images that straddle place K count in proportion: places from `first` to `last` are equally likely for
    each of them, so each is retrieved with probability (K - first + 1) / (last - first + 1).
    """
    first, last = tied_places(scores)
    retrieved = np.clip((k - first + 1) / (last - first + 1), 0.0, 1.0)
    return np.where(relevant, retrieved, 0.0).sum(axis=1)


def _relevant(truth: Truth) -> np.ndarray:
    """[n_query, n_train] bool. Raises MethodError for a truth that does not say which images are relevant."""
    if truth.relevant is None:
        raise MethodError("this truth does not say which images are relevant: take a protocol that does, e.g. between-concepts")
    return truth.relevant


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where nothing is relevant (denominator 0)."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


@dataclass(frozen=True, kw_only=True)
class _Retrieval(Metric):
    """What the metrics of this page share: values, and the best one, which the relevant images would get as scores."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def ceiling(self, truth: Truth) -> np.ndarray:
        """[n_query]: of a method that gives the relevant images 1 and the others 0."""
        return self.values(_relevant(truth).astype(np.float64), truth)


@dataclass(frozen=True, kw_only=True)
class _AtK(_Retrieval):
    """What recall and precision share: the number of images retrieved."""

    k: int = 5

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"K = {self.k}: a metric at K looks at the first K images; give a K of at least 1")

    def _hits_and_relevant(self, scores: np.ndarray, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        return expected_hits(scores, _relevant(truth), self.k), _relevant(truth).sum(axis=1).astype(np.float64)

    def _chance_of_retrieval(self, truth: Truth) -> float:
        """min(K, N) / N: how likely an image is among the first K of a random order of N."""
        n_train = _relevant(truth).shape[1]
        return min(self.k, n_train) / max(n_train, 1)


@dataclass(frozen=True, kw_only=True)
class Recall(_AtK):
    """Share of the relevant images that are among the K with the highest scores (MONTRAGE §4.3)."""

    grows_with_k: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"recall@{self.k}"

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        """[n_query]: hits / relevant."""
        return _ratio(*self._hits_and_relevant(scores, truth))

    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query]: K / N, whatever the number of relevant images."""
        relevant = _relevant(truth).sum(axis=1)
        return np.where(relevant > 0, self._chance_of_retrieval(truth), np.nan)


@dataclass(frozen=True, kw_only=True)
class Precision(_AtK):
    """Share of the K images with the highest scores that are relevant (MONTRAGE §4.3)."""

    @property
    def name(self) -> str:
        return f"precision@{self.k}"

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        """[n_query]: hits / K."""
        hits, relevant = self._hits_and_relevant(scores, truth)
        return np.where(relevant > 0, hits / self.k, np.nan)

    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query]: R / N for R relevant of N images (R / K where K exceeds N)."""
        relevant = _relevant(truth).sum(axis=1)
        return np.where(relevant > 0, relevant * self._chance_of_retrieval(truth) / self.k, np.nan)


@dataclass(frozen=True, kw_only=True)
class AveragePrecision(_Retrieval):
    """Mean, over the relevant images, of the precision at the place where each is found."""

    @property
    def name(self) -> str:
        return "average_precision"

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        """[n_query]: (1/R) sum over places p of E[relevant at p, and precision at p].

        In a group of n tied images, r of them relevant, behind g images with higher scores, R' of them relevant, the
        place g + j holds a relevant image with probability r / n, and given that, (j - 1)(r - 1)/(n - 1) of the j - 1
        tied images before it are relevant on average (McSherry & Najork 2008, §2.5):

            AP = (1/R) sum over groups, j = 1..n of  (r / n) (R' + (j - 1)(r - 1)/(n - 1) + 1) / (g + j)
        """
        scores = np.asarray(scores, dtype=np.float64)
        order = np.argsort(-scores, axis=1, kind="stable")
        first, last = tied_places(np.take_along_axis(scores, order, axis=1))
        found = np.cumsum(np.take_along_axis(_relevant(truth), order, axis=1), axis=1)
        found = np.pad(found, ((0, 0), (1, 0)))  # found[:, p] = relevant images among the first p
        before = np.take_along_axis(found, first - 1, axis=1)
        in_group = np.take_along_axis(found, last, axis=1) - before
        size = last - first + 1
        place = np.arange(1, scores.shape[1] + 1)
        tied_before = (place - first) * (in_group - 1) / np.maximum(size - 1, 1)
        expected = in_group / size * (before + tied_before + 1) / place
        return _ratio(expected.sum(axis=1), _relevant(truth).sum(axis=1).astype(np.float64))

    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query]: the same with all N images tied: (H + (R - 1)(N - H)/(N - 1)) / N, H = 1 + 1/2 + ... + 1/N."""
        n_train = _relevant(truth).shape[1]
        relevant = _relevant(truth).sum(axis=1)
        harmonic = (1.0 / np.arange(1, n_train + 1)).sum()
        value = (harmonic + (relevant - 1) * (n_train - harmonic) / max(n_train - 1, 1)) / max(n_train, 1)
        return np.where(relevant > 0, value, np.nan)
