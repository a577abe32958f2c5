"""Linear datamodelling score: do the scores of a subset's images, added up, tell how well a model trained on it does?

    LDS(q) = Spearman over subsets S of ( Σ_{i in S} τ(q, i),  − L(q, θ_S) )

Park et al. 2023 ("TRAK", §2), Zheng et al. 2024 ("Intriguing Properties of Data Attribution on Diffusion Models",
D-TRAK, §2.2). The loss enters with its sign reversed, so that a method whose high scores name helpful images has a
positive LDS. L is the mean over the seeds that each subset was trained with.

Ceiling. Training is random, so that not even the expected losses of the subsets correlate perfectly with those that
were seen. With r₁ the correlation over subsets of the losses by two different seeds (its mean over pairs of seeds, and
over the queries of a study), that of the means of R seeds with those of R others is, by Spearman and Brown (1910),

    r_R = R r₁ / (1 + (R − 1) r₁)

and the expected losses themselves correlate √r_R with the means of R. That is what a perfect method would be expected
to score, exactly so for Pearson's correlation and nearly for Spearman's. It needs two seeds: with one it is NaN.

Seeds. One of the seeds of the retrained models is that of the model that is attributed. `lds_same_seed` takes that one
alone: these models share with the attributed one the order and noise of what they saw, and a method that reads the
attributed model may foretell some of what is due to them, so no ceiling is known. `lds_cross_seed` takes the other
seeds alone: what it measures belongs to the images and to nothing else. `lds` takes all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np

from attribench.errors import MethodError
from attribench.measurement import Metric, Retrained, Truth

from .rank_correlation import spearman

FEWEST_SUBSETS = 4
"""With three, a correlation of ranks can take but four values."""


def subset_scores(scores: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """[n_query, n_subsets] sum of the scores [n_query, n_train] of each subset's images."""
    return np.asarray(scores, dtype=np.float64) @ masks.T.astype(np.float64)


def agreement_of_seeds(losses: np.ndarray, counts: np.ndarray | None = None, given: np.ndarray | None = None) -> np.ndarray:
    """[resamples] r₁ of losses [n_query, n_subsets, n_seeds]: mean over queries and pairs of seeds.

    Each subset counts `counts` [resamples, n_subsets] times, once by default; what `given` [n_subsets, c] explains is taken out.
    NaN with fewer than two seeds.
    """
    pairs = [spearman(losses[:, :, a], losses[:, :, b], counts, given=given) for a, b in combinations(range(losses.shape[2]), 2)]
    if not pairs:
        return np.full(1 if counts is None else len(counts), np.nan)
    found = np.concatenate(pairs, axis=1)
    known = np.isfinite(found)
    sums, n = np.where(known, found, 0.0).sum(axis=1), known.sum(axis=1)
    return np.divide(sums, n, out=np.full(len(found), np.nan), where=n > 0)


def spearman_brown(r_1: np.ndarray | float, n_seeds: int) -> np.ndarray | float:
    """r_R: the correlation of the means of R = `n_seeds` seeds with those of R others, from that of one with another."""
    return n_seeds * r_1 / (1 + (n_seeds - 1) * r_1)


@dataclass(frozen=True, kw_only=True)
class Lds(Metric):
    """LDS against the mean loss over all seeds."""

    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    @property
    def name(self) -> str:
        return "lds"

    def values(self, scores: np.ndarray, truth: Truth) -> np.ndarray:
        """[n_query] in [-1, 1]; NaN where a query's loss is the same for every subset."""
        return self.redrawn(scores, truth, np.ones((1, self.n_subsets(truth))))[0]

    def redrawn(self, scores: np.ndarray, truth: Truth, counts: np.ndarray) -> np.ndarray:
        """[resamples, n_query]: each subset counted `counts` [resamples, n_subsets] times."""
        known = _known(truth)
        return spearman(subset_scores(scores, known.masks), self._benefit(known), counts)

    def n_subsets(self, truth: Truth) -> int:
        """All that the truth holds."""
        return len(_known(truth).masks)

    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query]: 0. The subsets are of one size, so that reversing random scores reverses their sums."""
        return np.where(self._defined(truth), 0.0, np.nan)

    def ceiling(self, truth: Truth) -> np.ndarray:
        """[n_query]: √r_R of the study, the same for all of its queries; 0 if its seeds do not agree at all."""
        return np.where(self._defined(truth), self._best(_known(truth))[0], np.nan)

    def _seeds(self, known: Retrained) -> list[int]:
        """The numbers of the seeds whose losses are taken."""
        return list(range(len(known.seeds)))

    def _benefit(self, known: Retrained) -> np.ndarray:
        """[n_query, n_subsets]: minus the mean loss."""
        return -known.losses[:, :, self._seeds(known)].mean(axis=2)

    def _defined(self, truth: Truth) -> np.ndarray:
        benefit = self._benefit(_known(truth))
        return (benefit != benefit[:, :1]).any(axis=1)

    def _best(self, known: Retrained, counts: np.ndarray | None = None) -> np.ndarray:
        """[resamples] √r_R, where each subset counts `counts` times; NaN with one seed."""
        return np.sqrt(spearman_brown(np.maximum(agreement_of_seeds(known.losses, counts), 0.0), len(self._seeds(known))))


@dataclass(frozen=True, kw_only=True)
class LdsSameSeed(Lds):
    """LDS against models trained with the seed of the model that is attributed. No ceiling is known."""

    @property
    def name(self) -> str:
        return "lds_same_seed"

    def _seeds(self, known: Retrained) -> list[int]:
        return [number for number, seed in enumerate(known.seeds) if seed == known.own_seed]

    def _best(self, known: Retrained, counts: np.ndarray | None = None) -> np.ndarray:
        return np.full(1 if counts is None else len(counts), np.nan)


@dataclass(frozen=True, kw_only=True)
class LdsCrossSeed(Lds):
    """LDS against models trained with other seeds than the model that is attributed."""

    @property
    def name(self) -> str:
        return "lds_cross_seed"

    def _seeds(self, known: Retrained) -> list[int]:
        return [number for number, seed in enumerate(known.seeds) if seed != known.own_seed]


@dataclass(frozen=True, kw_only=True)
class LdsOverCeiling(Lds):
    """LDS as a share of the ceiling of its study: LDS / √r_R.

    Beyond 1 or -1 where the ceiling was underrated by chance. NaN where the seeds do not agree at all. Its interval
    takes the ceiling anew from each draw of the subsets; draws in which the seeds do not agree have no value.
    """

    bounds: ClassVar[tuple[float, float]] = (-np.inf, np.inf)

    @property
    def name(self) -> str:
        return "lds_over_ceiling"

    def redrawn(self, scores: np.ndarray, truth: Truth, counts: np.ndarray) -> np.ndarray:
        """[resamples, n_query]: LDS over the ceiling, both of the same draw."""
        best = self._best(_known(truth), counts)
        return super().redrawn(scores, truth, counts) / np.where(best > 0, best, np.nan)[:, None]

    def chance(self, truth: Truth) -> np.ndarray:
        """[n_query]: 0."""
        return np.where(super().ceiling(truth) > 0, super().chance(truth), np.nan)

    def ceiling(self, truth: Truth) -> np.ndarray:
        """[n_query]: 1."""
        return np.where(super().ceiling(truth) > 0, 1.0, np.nan)


@dataclass(frozen=True, kw_only=True)
class LdsWithin(Lds):
    """LDS within concepts: what is left of it once the number of images of each concept in a subset is taken out of both sides.

        corr over subsets of ( e(rank Σ_{i in S} τ(q, i)),  e(rank −L(q, θ_S)) ),   e: residual of a regression on the ranks of
                                                                                     the counts (a partial rank correlation)

    Where subsets hold other numbers of each concept's images, a score that knows nothing but the labels foretells a good part of
    the losses: here it is worth 0, as is a method that tells concepts apart and nothing within them. Its ceiling is that of the
    residuals. Where all subsets hold as many of each concept it is `lds`.
    """

    @property
    def name(self) -> str:
        return "lds_within"

    def redrawn(self, scores: np.ndarray, truth: Truth, counts: np.ndarray) -> np.ndarray:
        """[resamples, n_query]: the regression is made anew for each draw of the subsets."""
        known, of_concepts = _known(truth), _concept_counts(truth)
        return spearman(subset_scores(scores, known.masks), self._benefit(known), counts, given=of_concepts)

    def ceiling(self, truth: Truth) -> np.ndarray:
        """[n_query]: √r_R of the residuals, the mean over the study."""
        known, of_concepts = _known(truth), _concept_counts(truth)
        r_1 = np.maximum(agreement_of_seeds(known.losses, given=of_concepts), 0.0)
        return np.where(self._defined(truth), np.sqrt(spearman_brown(r_1, len(known.seeds)))[0], np.nan)


def _concept_counts(truth: Truth) -> np.ndarray:
    """[n_subsets, n_concepts] images of each concept in each subset."""
    if truth.concepts is None:
        raise MethodError("lds_within needs to know which concept each training image shows, and this data has no labels")
    return _known(truth).masks.astype(np.float64) @ np.eye(truth.concepts.max() + 1)[truth.concepts]


def _known(truth: Truth) -> Retrained:
    known = truth.retrained
    if known is None or len(known.masks) < FEWEST_SUBSETS:
        found = "no" if known is None else len(known.masks)
        raise MethodError(f"LDS needs losses under at least {FEWEST_SUBSETS} retrained subsets, there are {found}; ask for more")
    return known
