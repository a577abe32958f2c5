"""Is the query forgotten where the images that a method ranks highest are removed? Leave-K-out, by retraining.

Wang et al., "Data attribution for text-to-image models by unlearning synthesized images" (NeurIPS 2024), §3 and §5.1:
a model is retrained from scratch without the K images with the highest scores, and

    ΔL(q) = L(q, θ_{−K}) − L(q, θ)                  rise of the query's loss, in thousandths as the paper prints it
    ΔG(q) = d(G(q; θ_{−K}), G(q; θ))                deviation of the picture generated again from its noise and prompt

with d the mean squared error of pixels in [0, 1], or the cosine of CLIP features (lower = more forgotten). Each is the mean
over the seeds of the retraining. θ is the model that made q, so that even a model retrained on *all* images has ΔL > 0: what
a method is worth is its distance from chance, which is random removal of as many images, and not from 0.

    equivalent_random@K = M such that removing M random images raises the loss as much        (`results.random_curve`)

is a number of a whole study, from the means over its queries: one query's curve is too noisy to be inverted. It stands at
the study's first query and is NaN at the others. `beyond_curve@K` is 1 where M is censored: the curve's last point is then
a lower bound, and so is the mean that contains it.

A query whose removal is not determined by a single tie counts as the mean over both removals. A query for which no model
was retrained (a method that gives every image the same score, or draws at random: that is the curve) is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attribench.errors import MethodError, UsageError
from attribench.measurement import Metric, Retrained, Truth
from attribench.measurement.ordered_removal import is_determined, removals
from attribench.measurement.random_curve import RandomCurve

THOUSANDTHS = 1000.0


def after_removal(scores: np.ndarray, k: int, known: Retrained, values: np.ndarray) -> np.ndarray:
    """[n_query, R] of values [n_query, M, R], each query under the models without its K highest-scored images.

    Mean of both removals where a tie runs through place K; NaN where no such model was looked at.
    """
    number = {mask.tobytes(): m for m, mask in enumerate(np.asarray(known.masks, dtype=bool))}
    found = np.full((len(scores), values.shape[2]), np.nan)
    for query, row in enumerate(scores):
        if not is_determined(row):
            continue
        subsets = []
        for left_out in removals(row, k):
            mask = np.ones(len(row), dtype=bool)
            mask[list(left_out)] = False
            subsets.append(number.get(mask.tobytes()))
        if None not in subsets:
            found[query] = values[query, subsets].mean(axis=0)
    return found


def over_seeds(values: np.ndarray) -> np.ndarray:
    """[n_query] mean over the seeds that there are, of [n_query, R]; NaN without any."""
    there = np.isfinite(values)
    sums, counts = np.where(there, values, 0.0).sum(axis=1), there.sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


@dataclass(frozen=True, kw_only=True)
class _AtK(Metric):
    """What the metrics of this page share: how many images are removed."""

    k: int = 500

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"K = {self.k}: remove at least one image")

    def rises(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        """[n_query, R] ΔL, in thousandths."""
        known = _known(truth)
        return THOUSANDTHS * (after_removal(scores, self.k, known, known.losses) - known.full[:, None])

    def _at_random(self, truth: Truth, values: np.ndarray) -> np.ndarray:
        """[n_query] mean of values [n_query, M, R] over the models without K random images."""
        known = _known(truth)
        own = known.drawn & ((~known.masks).sum(axis=1) == self.k)
        return over_seeds(values[:, own].reshape(len(values), -1))


@dataclass(frozen=True, kw_only=True)
class DeltaLoss(_AtK):
    """ΔL × 10³: the rise of the query's loss."""

    @property
    def name(self) -> str:
        return f"delta_loss@{self.k}"

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        return over_seeds(self.rises(scores, truth))

    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query]: with K random images removed."""
        known = _known(truth)
        return THOUSANDTHS * (self._at_random(truth, known.losses) - known.full)


@dataclass(frozen=True, kw_only=True)
class DeltaGeneration(_AtK):
    """ΔG: mean squared error of the picture that is generated again, over pixels in [0, 1]."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def name(self) -> str:
        return f"delta_generation@{self.k}"

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        known = _known(truth)
        return over_seeds(after_removal(scores, self.k, known, _pictures(known.squared_errors)))

    def chance(self, truth: Truth) -> np.ndarray:
        return self._at_random(truth, _pictures(_known(truth).squared_errors))


@dataclass(frozen=True, kw_only=True)
class ClipSimilarity(_AtK):
    """ΔG: cosine of CLIP features of the picture and the one that is generated again. Lower: more is forgotten."""

    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    @property
    def name(self) -> str:
        return f"clip_similarity@{self.k}"

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        known = _known(truth)
        return over_seeds(after_removal(scores, self.k, known, _pictures(known.similarities)))

    def chance(self, truth: Truth) -> np.ndarray:
        return self._at_random(truth, _pictures(_known(truth).similarities))


@dataclass(frozen=True, kw_only=True)
class SeedSpread(_AtK):
    """Standard deviation of ΔL × 10³ over the seeds of the retraining, of each query; NaN with one seed."""

    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    @property
    def name(self) -> str:
        return f"seed_spread@{self.k}"

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        return _spread(self.rises(scores, truth))

    def chance(self, truth: Truth) -> np.ndarray:
        return np.full(len(truth.query_ids), np.nan)


@dataclass(frozen=True, kw_only=True)
class _OfStudy(_AtK):
    """A number of a study, from the means over its queries, at its first query."""

    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def of_rises(self, rises: np.ndarray, truth: Truth) -> float:
        """From the queries' ΔL [n_query] in thousandths, all of them known."""
        raise NotImplementedError

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        rises = over_seeds(self.rises(scores, truth))
        values = np.full(len(rises), np.nan)
        if len(rises) and np.isfinite(rises).all():
            values[0] = self.of_rises(rises, truth)
        return values

    def chance(self, truth: Truth) -> np.ndarray:
        return np.full(len(truth.query_ids), np.nan)


@dataclass(frozen=True, kw_only=True)
class QuerySpread(_OfStudy):
    """Standard deviation of ΔL × 10³ (each the mean over seeds) over a study's queries; NaN with one query."""

    higher_is_better: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return f"query_spread@{self.k}"

    def of_rises(self, rises: np.ndarray, truth: Truth) -> float:
        return float(_spread(rises[None])[0])


@dataclass(frozen=True, kw_only=True)
class EquivalentRandom(_OfStudy):
    """How many images removed at random raise the loss as much; the last point of the curve where more would be needed."""

    @property
    def name(self) -> str:
        return f"equivalent_random@{self.k}"

    def of_rises(self, rises: np.ndarray, truth: Truth) -> float:
        return RandomCurve.of(_known(truth)).equivalent(rises.mean() / THOUSANDTHS)[0]

    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query]: K, at the first query."""
        values = np.full(len(truth.query_ids), np.nan)
        values[:1] = self.k
        return values


@dataclass(frozen=True, kw_only=True)
class BeyondCurve(_OfStudy):
    """Share of the studies whose `equivalent_random` is but a lower bound, the end of the curve."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def name(self) -> str:
        return f"beyond_curve@{self.k}"

    def of_rises(self, rises: np.ndarray, truth: Truth) -> float:
        return float(RandomCurve.of(_known(truth)).equivalent(rises.mean() / THOUSANDTHS)[1])


def _spread(values: np.ndarray) -> np.ndarray:
    """[n] standard deviation, with n − 1, of the numbers that each row has; NaN for fewer than two."""
    there = np.isfinite(values)
    counts = there.sum(axis=1)
    mean = np.where(there, values, 0.0).sum(axis=1) / np.maximum(counts, 1)
    squares = np.where(there, np.square(values - mean[:, None]), 0.0).sum(axis=1)
    return np.where(counts > 1, np.sqrt(squares / np.maximum(counts - 1, 1)), np.nan)


def _known(truth: Truth) -> Retrained:
    known = truth.retrained
    if known is None or known.drawn is None:
        raise MethodError("this truth has no removals: measure counterfactuals under the protocol leave-k-out")
    return known


def _pictures(values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise MethodError("no picture was generated again: measure deviations under the protocol leave-k-out")
    return values
