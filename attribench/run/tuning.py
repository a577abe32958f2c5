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

    def curve(self) -> list[dict[str, Any]]:
        """The fields in which the candidates differ and what the dev queries say of each, for the manifest alone."""
        given = [{field.name: getattr(of, field.name) for field in dataclasses.fields(of)} for of in self.candidates]
        differing = [name for name in given[0] if any(params[name] != given[0][name] for params in given)]
        return [
            {"params": {name: params[name] for name in differing}, "dev": None if np.isnan(value) else value}
            for params, value in zip(given, self.dev, strict=True)
        ]


def tune(prepared: Prepared, outcomes: Outcomes) -> dict[str, Tuning]:
    """The choice for each method that has candidates and scores, by the method's name."""
    tunable = [e for e in prepared.methods if e.tuned and fault(prepared, e, outcomes) is None]
    if not tunable:
        return {}
    dev, test = (truths_of(prepared, outcomes, role) for role in ("fit", "query"))
    found = {}
    for entry in tunable:
        candidates = entry.method.candidates()
        on_dev = tuple(_worth(prepared, entry, number, "fit", dev) for number in range(len(candidates)))
        on_test = tuple(_worth(prepared, entry, number, "query", test) for number in range(len(candidates)))
        default = entry.method.default_candidate()
        found[entry.plugin.name] = Tuning(candidates, on_dev, tuned=_best(on_dev), default=default, oracle=_best(on_test))
    return found


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
    tuning: Standing | None = None
    candidate: int | None = None

    @property
    def method(self) -> AttributionMethod:
        """With its hyper-parameters."""
        return self.entry.method if self.candidate is None else self.entry.method.candidates()[self.candidate]

    @property
    def name(self) -> tuple[str, str]:
        """Method and tuning, as per_query.parquet has them."""
        return self.entry.plugin.name, self.tuning or ""


def contenders_of(entry: MethodSteps, tuning: Tuning | None) -> list[Contender]:
    if tuning is None:
        (candidate,) = entry.candidates("query")
        return [Contender(entry, candidate=candidate)]
    return [Contender(entry, standing, getattr(tuning, standing)) for standing in get_args(Standing)]
