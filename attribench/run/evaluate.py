"""From the scores of a run to its folder: values per query, numbers with intervals, record and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from attribench.errors import AttribenchError, MethodError
from attribench.measurement import Metric, Truth
from attribench.protocols.protocol import Results
from attribench.report import record
from attribench.report.figures.intervals import interval_plot
from attribench.report.figures.top_five import Shown, top_five
from attribench.run.costs import costs, made_on, n_models
from attribench.run.measured import query_rows, variants_of
from attribench.run.outcomes import Outcomes, fault, measured, truths_of
from attribench.run.prepared import MethodSteps, Prepared
from attribench.run.shown import shown_again, shown_queries
from attribench.run.tuning import Contender, Tuning, contenders_of
from attribench.statistics.summary import summary
from attribench.statistics.two_way import TwoWay


@dataclass(frozen=True)
class Evaluated:
    """What came out of a run."""

    rows: list[record.Row] = field(default_factory=list)
    """Of the record."""
    unserved: dict[str, str] = field(default_factory=dict)
    """Why metrics that were asked for beside the protocol's own have no values, by their names."""
    shown: list[Shown] = field(default_factory=list)
    """Some queries, and what each method found for them."""


def evaluate(prepared: Prepared, outcomes: Outcomes, tunings: Mapping[str, Tuning]) -> Evaluated:
    """Write record, values per query and pictures to the run folder."""
    finished = [entry for entry in prepared.methods if fault(prepared, entry, outcomes) is None]
    contenders = [contender for entry in finished for contender in contenders_of(entry, tunings.get(entry.plugin.name))]
    truths = truths_of(prepared, outcomes)
    values, two_way, unserved = _all_values(prepared, contenders, truths)
    per_query = pd.DataFrame(values)
    rows, shown = [], []
    if len(per_query):
        metrics = [metric for variant in variants_of(prepared.plans) for metric in prepared.metrics(variant)]
        worse_is_more = [metric.name for metric in metrics if not metric.higher_is_better]
        numbers = summary(per_query, lower_is_better=worse_is_more, two_way=two_way, seed=prepared.config.seed).to_dict("records")
        for contender in contenders:
            identity = _identity(prepared, contender) | costs(prepared, contender.entry)
            own = [number for number in numbers if (number["method"], number["tuning"]) == contender.name]
            rows += [record.Row(**number | identity, status="ok") for number in own]
    for entry in prepared.methods:
        if entry not in finished:
            rows += _empty_rows(prepared, entry, outcomes, unserved)
    record.write(rows, per_query, prepared.folder)
    if len(per_query):
        interval_plot(prepared.folder / "intervals.png", rows)
        trained = [plan for plan in prepared.plans if plan.id in truths]
        prepared.protocol.draw(prepared.folder, Results(trained, truths, rows, per_query))
        labels = {row.method: row.label for row in rows if row.competes}
        competing = {labels[contender.name[0]]: contender for contender in contenders if contender.tuning in (None, "tuned")}
        if again := shown_again(prepared, competing, trained):
            prepared.protocol.draw_again(prepared.folder, again)
        shown = shown_queries(prepared, competing, outcomes)
        top_five(prepared.folder / "top-five.png", shown)
    return Evaluated(rows, unserved, shown)


def _all_values(
    prepared: Prepared, contenders: Sequence[Contender], truths: Mapping[str, Truth]
) -> tuple[list[dict], dict[tuple[str, str], TwoWay], dict[str, str]]:
    """As `_values`, of all metrics; and why an added metric has none, by its name.

    One that this truth cannot serve, or that is broken, takes no other number along.
    """
    rows, two_way = _values(prepared, contenders, truths, prepared.protocol.metrics)
    unserved = {}
    for added in prepared.added:
        try:
            own, drawn = _values(
                prepared, contenders, truths, lambda variant, added=added: [m for m in prepared.metrics(variant) if m is added]
            )
            _require_usable(added, own)
            for resampling in drawn.values():
                resampling.means()
        except Exception as error:  # a stranger's metric raises what it likes
            known = isinstance(error, AttribenchError)
            unserved[added.name] = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split())
        else:
            rows += own
            two_way |= drawn
    return rows, two_way, unserved


def _require_usable(metric: Metric, rows: Sequence[dict]) -> None:
    """Raise MethodError for values that a record would refuse, or if there are none."""
    smallest, largest = metric.bounds
    for column in ("value", "chance", "ceiling"):
        numbers = np.array([row[column] for row in rows], dtype=np.float64)
        numbers = numbers[~np.isnan(numbers)]
        if rows and column == "value" and not len(numbers):
            raise MethodError("the truth of this run defines it for no query")
        beyond = numbers[(numbers < smallest - record.ROUNDING) | (numbers > largest + record.ROUNDING) | np.isinf(numbers)]
        if len(beyond):
            raise MethodError(f"it has the {column} {beyond[0]}, outside its bounds [{smallest}, {largest}]; mend the plugin")


def _values(
    prepared: Prepared, contenders: Sequence[Contender], truths: Mapping[str, Truth], metrics: Callable[[str], Sequence[Metric]]
) -> tuple[list[dict], dict[tuple[str, str], TwoWay]]:
    """The rows of per_query.parquet; and what rests on drawn subsets, by variant and metric."""
    rows: list[dict] = []
    two_way: dict[tuple[str, str], TwoWay] = {}
    for contender in contenders:
        for found in measured(prepared, contender.entry, truths, metrics, candidate=contender.candidate):
            metric = found.metric
            if metric.n_subsets(found.truth):
                of_metric = two_way.setdefault((found.variant, metric.name), TwoWay(seed=prepared.config.seed))
                of_metric.add(contender.name, found.plan.id, metric, found.truth, found.scores)
            rows += query_rows(*contender.name, found)
    return rows, two_way


def _identity(prepared: Prepared, contender: Contender) -> dict:
    entry, method = contender.entry, contender.method
    return {
        "method": entry.plugin.name,
        "tuning": contender.tuning,
        "params": {field.name: getattr(method, field.name) for field in dataclasses.fields(method)},
        "plugin": entry.plugin.origin,
        "control": method.control,
        "dataset": prepared.dataset.name,
        "edition": prepared.dataset.edition,
        "protocol": prepared.protocol.name,
        "n_concepts": len(prepared.plans[0].concepts) or None,
        "split": prepared.config.split,
        "region": prepared.config.region or ("per query" if prepared.config.regions else None),
        "seed": prepared.config.seed,
        "n_models": n_models(entry),
        "device": made_on(prepared, entry),
    }


def _empty_rows(prepared: Prepared, entry: MethodSteps, outcomes: Outcomes, unserved: Mapping[str, str]) -> list[record.Row]:
    status, reason = fault(prepared, entry, outcomes)
    identity = _identity(prepared, Contender(entry))
    return [
        record.Row(**identity, variant=variant, metric=metric.name, status=status, reason=reason)
        for variant in variants_of(prepared.plans)
        for metric in prepared.metrics(variant)
        if metric.name not in unserved
    ]
