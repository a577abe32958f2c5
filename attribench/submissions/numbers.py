"""The numbers of a submission from its scores and the truth: the same functions that a run is evaluated by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attribench.measurement import Metric, Truth
from attribench.run.experiment import Planned
from attribench.run.measured import measured_on, query_rows, variants_of
from attribench.statistics.summary import summary
from attribench.statistics.two_way import TwoWay
from attribench.submissions.statement import Method

ScoresOf = Mapping[tuple[str, str, int], np.ndarray]
"""Scores [n_query, n_train] by (method, study, seed)."""


@dataclass(frozen=True)
class Values:
    """The value of every query, and what was drawn beside it."""

    per_query: pd.DataFrame
    two_way: dict[tuple[str, str], TwoWay]
    """By (variant, metric), of metrics that rest on drawn subsets; methods named (method, tuning)."""


def values(planned: Planned, methods: tuple[Method, ...], scores: ScoresOf, truths: Mapping[str, Truth]) -> Values:
    """Every metric of every query, of scores against the truths by study id."""
    rows, two_way = [], {}
    for method in methods:
        tuning = "tuned" if method.tuned else ""
        for plan in planned.plans:
            for seed in method.seeds:
                own = scores[method.name, plan.id, seed]
                for found in measured_on(plan, seed, own, truths[plan.id], planned.protocol.metrics):
                    if found.metric.n_subsets(found.truth):
                        key = (found.variant, found.metric.name)
                        drawn = two_way.setdefault(key, TwoWay(seed=planned.experiment.seed))
                        drawn.add((method.name, tuning), plan.id, found.metric, found.truth, found.scores)
                    rows += query_rows(method.name, tuning, found)
    return Values(pd.DataFrame(rows), two_way)


def numbers(planned: Planned, found: Values) -> pd.DataFrame:
    """Value, interval, chance, ceiling and rank of each method, variant and metric: see `summary`."""
    lower = [metric.name for metric in metrics_of(planned) if not metric.higher_is_better]
    return summary(found.per_query, lower_is_better=lower, two_way=found.two_way, seed=planned.experiment.seed)


def metrics_of(planned: Planned) -> list[Metric]:
    """Every metric that any variant has."""
    return [metric for variant in variants_of(planned.plans) for metric in planned.protocol.metrics(variant)]


def resting_on(
    planned: Planned, methods: tuple[Method, ...], scores: ScoresOf, known: Mapping[str, Truth], whole: Values
) -> set[tuple[str, str]]:
    """The (variant, metric)s whose values need no more than what is `known` of the truth of each study.

    Their values against that truth are those against the whole one: found by measuring again, metric by metric, since only
    a metric itself says what it reads.
    """
    columns = ["variant", "metric", "method", "study", "method_seed", "query_id"]
    expected = whole.per_query.set_index(columns)[["value", "chance", "ceiling"]]
    found = set()
    for variant in variants_of(planned.plans):
        for number, metric in enumerate(planned.protocol.metrics(variant)):

            def alone(name: str, wanted: str = variant, number: int = number) -> list[Metric]:
                return planned.protocol.metrics(name)[number : number + 1] if name == wanted else []

            try:
                rows = [
                    row
                    for method in methods for of in planned.plans for seed in method.seeds
                    for one in measured_on(of, seed, scores[method.name, of.id, seed], known[of.id], alone)
                    for row in query_rows(method.name, "", one)
                ]  # fmt: skip
            except Exception:  # a metric may fail as it likes without what it rests on
                continue
            again = pd.DataFrame(rows).set_index(columns)[["value", "chance", "ceiling"]]
            before = expected.loc[again.index].to_numpy(dtype=np.float64)
            if np.allclose(again.to_numpy(dtype=np.float64), before, rtol=1e-9, atol=1e-9, equal_nan=True):
                found.add((variant, metric.name))
    return found
