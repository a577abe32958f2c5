"""The two-way bootstrap: intervals of what rests on drawn subsets as well as on queries.

An LDS is a correlation over subsets, each of which every query of its study shares. Other subsets would have given
other values for all queries at once, so that queries alone, resampled, would say too little of how sure a number is.
Each resample draws S of the S studies with replacement, and for each that is drawn its subsets and its queries anew,
with replacement and independently; the metric says what its values are when a subset counts several times. All
methods see the same resamples.

Over one study the interval is that of this one model: it says nothing of other models. It errs on the safe side: drawing
rows and columns at once counts what belongs to single (subset, query) pairs three times (Owen 2007, "The pigeonhole
bootstrap"), and over several studies, what varies within them is counted with the studies too. That makes up for the
shortness of a plain percentile interval over few studies (see `statistics`). Coverage of the nominal 95 %, simulated with
24 subsets, 6 queries and methods that err alike everywhere (or much more in some studies than in others): 100 % over one
study, 100 % over two, 99 % (90 %) over four.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from attribench.measurement import Metric, Truth
from attribench.statistics.intervals import LEVEL, Difference, Estimate, differences, p_values

AT_ONCE = 10_000_000
"""Numbers that a metric handles in one call: resamples × queries × subsets."""

Method = Hashable


@dataclass
class _Study:
    """What one study says of one metric: its truth, and the scores of each method, one array a seed."""

    metric: Metric
    truth: Truth
    scores: dict[Method, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))


class TwoWay:
    """Scores and truths of one variant and one metric; resampled means by method."""

    def __init__(self, *, resamples: int = 1000, seed: int = 0) -> None:
        self.resamples, self.seed = resamples, seed
        self._studies: dict[str, _Study] = {}
        self._means: dict[Method, np.ndarray] | None = None

    def add(self, method: Method, study: str, metric: Metric, truth: Truth, scores: np.ndarray) -> None:
        """The scores [n_query, n_train] of a method with one of its seeds; several are averaged over."""
        self._studies.setdefault(study, _Study(metric, truth)).scores[method].append(scores)
        self._means = None

    @property
    def n_studies(self) -> int:
        return len(self._studies)

    def means(self) -> dict[Method, np.ndarray]:
        """[resamples] mean over the drawn studies' drawn queries, by method. NaN where no drawn query has a value."""
        if self._means is None:  # minutes for a table of twenty methods, and asked for by the table and by a board
            self._means = self._drawn_means()
        return self._means

    def _drawn_means(self) -> dict[Method, np.ndarray]:
        studies = list(self._studies.values())
        chosen = np.random.default_rng(self.seed).integers(len(studies), size=(self.resamples, len(studies)))
        totals: dict[Method, np.ndarray] = defaultdict(lambda: np.zeros((2, self.resamples)))
        for number, study in enumerate(studies):
            resample = np.nonzero(chosen == number)[0]
            for method, (sums, counts) in self._redrawn(study, number, len(resample)).items():
                np.add.at(totals[method][0], resample, sums)
                np.add.at(totals[method][1], resample, counts)
        return {
            method: np.divide(sums, counts, out=np.full(self.resamples, np.nan), where=counts > 0)
            for method, (sums, counts) in totals.items()
        }

    def _redrawn(self, study: _Study, number: int, n: int) -> dict[Method, tuple[np.ndarray, np.ndarray]]:
        """By method [n] sum of the values of the drawn queries, and how many have one, in n draws within a study."""
        random = np.random.default_rng([self.seed, number])
        n_queries, n_subsets = len(study.truth.query_ids), study.metric.n_subsets(study.truth)
        subsets = random.multinomial(n_subsets, np.full(n_subsets, 1 / n_subsets), size=n)
        queries = random.multinomial(n_queries, np.full(n_queries, 1 / n_queries), size=n)
        at_once = max(1, AT_ONCE // (n_queries * n_subsets))
        found = {}
        for method, by_seed in study.scores.items():
            values = np.empty((n, n_queries))
            for start in range(0, n, at_once):
                block = slice(start, start + at_once)
                values[block] = np.mean([study.metric.redrawn(own, study.truth, subsets[block]) for own in by_seed], axis=0)
            defined = np.isfinite(values)
            found[method] = (np.where(defined, values, 0.0) * queries).sum(axis=1), (defined * queries).sum(axis=1)
        return found


def estimate_redrawn(value: float, means: np.ndarray, n_queries: int, n_studies: int) -> Estimate:
    """A mean over queries with the percentile interval of its resampled means."""
    low, high = _interval(means, value)
    return Estimate(value=value, low=low, high=high, n_queries=n_queries, n_studies=n_studies)


def compare_redrawn(value: Mapping[Method, float], means: Mapping[Method, np.ndarray], n_studies: int) -> list[Difference]:
    """Every pair of methods on the same resamples, as `statistics.compare`; no p-value over one study."""
    pairs = list(combinations(value, 2))
    if not pairs:
        return []
    difference = np.array([value[a] - value[b] for a, b in pairs])
    spread = np.array([means[a] - means[b] for a, b in pairs])
    low, high = np.array([_interval(own, mean) for own, mean in zip(spread, difference, strict=True)]).T
    if n_studies < 2:  # of this one model: no reason to rank methods
        low = high = np.full(len(pairs), np.nan)
    return differences(pairs, difference, low, high, p_values(difference, np.nanstd(spread, axis=1), n_studies))


def _interval(means: np.ndarray, value: float) -> tuple[float, float]:
    found = means[np.isfinite(means)]
    if not len(found) or np.isnan(value):
        return float("nan"), float("nan")
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(min(low, value)), float(max(high, value))
