"""The numbers of a submission from its scores and the truth, by what a run is evaluated by; and where a file has others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attribench.measurement import Metric, Truth
from attribench.report.record import Row
from attribench.run.experiment import Planned
from attribench.run.measured import Measured, measured_on, query_rows, variants_of
from attribench.statistics.summary import summary
from attribench.statistics.two_way import TwoWay
from attribench.submissions.statement import Method

ScoresOf = Mapping[tuple[str, str, int], np.ndarray]
"""Scores [n_query, n_train] by (method, study, seed)."""
TOLERANCE = 1e-9
"""Absolute, and relative to the number: what another machine's sums may differ by."""
COMPUTED = ("value", "low", "high", "chance", "ceiling", "rank", "n_queries", "n_studies")
KEYS = ["method", "tuning", "variant", "metric", "study", "query_id", "region", "method_seed"]
NUMBERS = ("value", "chance", "ceiling")


@dataclass(frozen=True)
class Values:
    """The value of every query, and what was drawn beside it."""

    per_query: pd.DataFrame
    two_way: dict[tuple[str, str], TwoWay]
    """By (variant, metric), of metrics that rest on drawn subsets; methods named (method, tuning)."""


def values(planned: Planned, methods: tuple[Method, ...], scores: ScoresOf, truths: Mapping[str, Truth]) -> Values:
    """Every metric of every query, of scores against the truths by study id."""
    rows, two_way = [], {}
    for method, found in _measured(planned, methods, scores, truths, planned.protocol.metrics):
        tuning = "tuned" if method.tuned else ""
        if found.metric.n_subsets(found.truth):
            drawn = two_way.setdefault((found.variant, found.metric.name), TwoWay(seed=planned.experiment.seed))
            drawn.add((method.name, tuning), found.plan.id, found.metric, found.truth, found.scores)
        rows += query_rows(method.name, tuning, found)
    return Values(pd.DataFrame(rows), two_way)


def _measured(
    planned: Planned,
    methods: tuple[Method, ...],
    scores: ScoresOf,
    truths: Mapping[str, Truth],
    metrics: Callable[[str], Sequence[Metric]],
) -> Iterator[tuple[Method, Measured]]:
    for method in methods:
        for plan in planned.plans:
            for seed in method.seeds:
                for found in measured_on(plan, seed, scores[method.name, plan.id, seed], truths[plan.id], metrics):
                    yield method, found


def numbers(planned: Planned, found: Values) -> pd.DataFrame:
    """Value, interval, chance, ceiling and rank of each method, variant and metric: see `summary`."""
    lower = [metric.name for metric in metrics_of(planned) if not metric.higher_is_better]
    return summary(found.per_query, lower_is_better=lower, two_way=found.two_way, seed=planned.experiment.seed)


def recomputed(planned: Planned, found: Values, stated: Sequence[Row]) -> list[Row]:
    """The record with every number anew; what is not a number of a metric is as stated of its method."""
    by_method = {row.method: row.model_dump() for row in stated}
    n_concepts = len(planned.plans[0].concepts) or None
    return [
        Row.model_validate(by_method[row["method"]] | row | {"n_concepts": n_concepts, "tuning": row["tuning"] or None})
        for row in numbers(planned, found).to_dict("records")
    ]


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
                measured = _measured(planned, methods, scores, known, alone)
                rows = [row for method, one in measured for row in query_rows(method.name, "", one)]
            except Exception:  # a metric may fail as it likes without what it rests on
                continue
            again = pd.DataFrame(rows).set_index(columns)[["value", "chance", "ceiling"]]
            before = expected.loc[again.index].to_numpy(dtype=np.float64)
            if np.allclose(again.to_numpy(dtype=np.float64), before, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                found.add((variant, metric.name))
    return found


# -------------------------------------------------------------------------------- as the file has them


def differences(claimed: Sequence[Row], computed: Sequence[Row]) -> list[str]:
    """Rows that are missing or too many, and numbers that differ; empty if all is the same."""
    said, found = ({(row.label, row.variant, row.metric): row for row in rows} for rows in (claimed, computed))
    lines = [f"the record has a row too many: {metric} of {m} ({v})" for m, v, metric in said if (m, v, metric) not in found]
    for key, row in found.items():
        label, variant, metric = key
        if key not in said:
            lines.append(f"the record lacks {metric} of {label} ({variant})")
            continue
        for name in COMPUTED:
            a, b = getattr(said[key], name), getattr(row, name)
            if (a is None) != (b is None) or (a is not None and not np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)):
                lines.append(f"{name} of {metric} of {label} ({variant}) is {_text(a)} in the file, recomputed {_text(b)}")
    return lines


def query_differences(claimed: pd.DataFrame, computed: pd.DataFrame) -> list[str]:
    """The same for the values of every query."""
    said, found = (frame.sort_values(KEYS, kind="stable").reset_index(drop=True) for frame in (claimed, computed))
    if said.duplicated(KEYS).any():
        return [f"per_query.parquet holds {int(said.duplicated(KEYS).sum())} values twice"]
    if len(said) != len(found) or not (said[KEYS].to_numpy() == found[KEYS].to_numpy()).all():
        return [f"per_query.parquet has {len(said)} values of other queries, methods or metrics than the {len(found)} recomputed"]
    lines = []
    for name in NUMBERS:
        a, b = said[name].to_numpy(dtype=np.float64), found[name].to_numpy(dtype=np.float64)
        for i in np.flatnonzero(~np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)):
            row = found.iloc[i]
            where = f"{row['metric']} of {row['method']} for {row['query_id']} ({row['study']})"
            lines.append(f"{name} of {where} is {a[i]:.9g} in the file, recomputed {b[i]:.9g}")
    return lines


def _text(number: float | None) -> str:
    return "nothing" if number is None else f"{number:.9g}"
