"""Which candidate of a method stands in the table (rule 2 of the design: tune on the dev queries only).

    tuned      the best on the dev queries: the method's row, the only one that is ranked and compared
    default    the one that its author names
    oracle     the best on the test queries themselves: what tuning could have reached, and no result

"Best" is the highest mean, over variants, of the mean over all dev (test) queries of all studies and seeds by the
protocol's tuning metric; of equals, the earliest.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from attribench.data import Role
from attribench.interface import AttributionMethod
from attribench.measurement import Truth
from attribench.report.record import Standing
from attribench.run.outcomes import Outcomes, fault, measured, truths_of
from attribench.run.prepared import MethodSteps, Prepared


@dataclass(frozen=True)
class Tuning:
    """The candidates of a method with what each was worth, and those that are shown, by number."""

    candidates: tuple[AttributionMethod, ...]
    dev: tuple[float, ...]
    """By candidate, higher is better; NaN where the metric is nowhere defined."""
    tuned: int
    default: int
    oracle: int

    def number(self, standing: Standing) -> int:
        """The candidate that a row shows."""
        return getattr(self, standing)

    def curve(self) -> list[dict[str, Any]]:
        """The fields in which the candidates differ and what the dev queries say of each, for the manifest alone."""
        fields = [field.name for field in dataclasses.fields(self.candidates[0])]
        differing = [name for name in fields if any(self._field(i, name) != self._field(0, name) for i in range(len(self.dev)))]
        return [
            {"params": {name: self._field(i, name) for name in differing}, "dev": None if np.isnan(value) else value}
            for i, value in enumerate(self.dev)
        ]

    def _field(self, number: int, name: str) -> Any:
        return getattr(self.candidates[number], name)


def tune(prepared: Prepared, outcomes: Outcomes) -> dict[str, Tuning]:
    """The choice for each method that has candidates and scores, by the method's name."""
    tunable = [e for e in prepared.methods if e.tuned and fault(prepared, e, outcomes) is None]
    if not tunable:
        return {}
    dev, test = (truths_of(prepared, outcomes, role) for role in ("fit", "query"))
    return {entry.plugin.name: _tuning(prepared, entry, dev, test) for entry in tunable}


def _tuning(prepared: Prepared, entry: MethodSteps, dev: Mapping[str, Truth], test: Mapping[str, Truth]) -> Tuning:
    candidates = entry.method.candidates()
    on_dev = [_worth(prepared, entry, number, "fit", dev) for number in range(len(candidates))]
    on_test = [_worth(prepared, entry, number, "query", test) for number in range(len(candidates))]
    return Tuning(
        candidates=candidates,
        dev=tuple(on_dev),
        tuned=_best(on_dev),
        default=entry.method.default_candidate(),
        oracle=_best(on_test),
    )


def _worth(prepared: Prepared, entry: MethodSteps, candidate: int, role: Role, truths: Mapping[str, Truth]) -> float:
    """Mean over variants of the mean over queries, higher is better; NaN if no query has a value."""
    values: dict[str, list[np.ndarray]] = defaultdict(list)
    protocol = prepared.protocol
    for found in measured(
        prepared, entry, truths, lambda variant: [protocol.tuning_metric(variant)], role=role, candidate=candidate
    ):
        values[found.variant].append(found.values if found.metric.higher_is_better else -found.values)
    joined = [np.concatenate(of_variant) for of_variant in values.values()]
    means = [of_variant[~np.isnan(of_variant)].mean() for of_variant in joined if not np.isnan(of_variant).all()]
    return float(np.mean(means)) if means else float("nan")


def _best(worth: Sequence[float]) -> int:
    return int(np.argmax(np.where(np.isnan(worth), -np.inf, worth)))


@dataclass(frozen=True)
class Contender:
    """A method with scores, or one of the candidates of a method that the table shows."""

    entry: MethodSteps
    method: AttributionMethod
    tuning: Standing | None = None
    candidate: int | None = None


def contenders_of(entry: MethodSteps, tuning: Tuning | None) -> list[Contender]:
    if tuning is None:
        (candidate,) = entry.candidates("query")
        method = entry.method if candidate is None else entry.method.candidates()[candidate]
        return [Contender(entry, method, candidate=candidate)]
    return [
        Contender(entry, tuning.candidates[tuning.number(standing)], standing, tuning.number(standing))
        for standing in get_args(Standing)
    ]
