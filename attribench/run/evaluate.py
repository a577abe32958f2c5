"""From the scores of a run to its folder: values per query, numbers with intervals, record and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from attribench.errors import AttribenchError, MethodError
from attribench.measurement import Metric, Truth
from attribench.report import record
from attribench.report.figures.intervals import interval_plot
from attribench.report.figures.top_five import Shown, top_five
from attribench.run.costs import costs, made_on, n_models
from attribench.run.measured import query_rows, variants_of
from attribench.run.outcomes import Outcomes, fault, measured, truths_of
from attribench.run.prepared import MethodSteps, Prepared
from attribench.run.shown import shown_again, shown_queries
from attribench.run.tuning import Contender, Tuning, contenders_of
from attribench.statistics.controls import check_controls
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
    two_way: dict[tuple[str, str], TwoWay] = {}
    values, unserved = _all_values(prepared, contenders, truths, two_way)
    per_query = pd.DataFrame(values)
    rows, shown = [], []
    if len(per_query):
        worse_is_more = [metric.name for metric in _metrics(prepared) if not metric.higher_is_better]
        numbers = summary(per_query, lower_is_better=worse_is_more, two_way=two_way, seed=prepared.config.seed).to_dict("records")
        for contender in contenders:
            identity = _identity(prepared, contender) | costs(prepared, contender.entry)
            which = (contender.entry.plugin.name, contender.tuning or "")
            own = [number for number in numbers if (number["method"], number["tuning"]) == which]
            rows += [record.Row(**number | identity, status="ok") for number in own]
    for entry in prepared.methods:
        if entry not in finished:
            rows += _empty_rows(prepared, entry, outcomes, unserved)
    record.write(rows, per_query, prepared.folder)
    if len(per_query):
        interval_plot(prepared.folder / "intervals.png", rows)
        trained = [plan for plan in prepared.plans if plan.id in truths]
        prepared.protocol.draw(prepared.folder, trained, truths, rows, per_query)
        competing = [contender for contender in contenders if contender.tuning in (None, "tuned")]
        labels = {row.method: row.label for row in rows if row.competes}
        if again := shown_again(prepared, competing, labels, list(truths)):
            prepared.protocol.draw_again(prepared.folder, again)
        shown = shown_queries(prepared, competing, labels, outcomes)
        top_five(prepared.folder / "top-five.png", shown)
    return Evaluated(rows, unserved, shown)


def check_at_chance(prepared: Prepared) -> None:
    """Raise ControlError when a control whose known value is chance is off it."""
    at_chance = [entry.plugin.name for entry in prepared.methods if entry.method.at_chance]
    check_controls(record.read_per_query(prepared.folder), at_chance)


def _metrics(prepared: Prepared) -> list[Metric]:
    return [metric for variant in variants_of(prepared.plans) for metric in prepared.metrics(variant)]


def _all_values(
    prepared: Prepared, contenders: Sequence[Contender], truths: Mapping[str, Truth], two_way: dict[tuple[str, str], TwoWay]
) -> tuple[list[dict], dict[str, str]]:
    """The rows of per_query.parquet, and why an added metric has none, by its name.

    One that this truth cannot serve, or that is broken, takes no other number along.
    """

    def rows_of(metrics: Callable[[str], Sequence[Metric]], drawn: dict[tuple[str, str], TwoWay]) -> list[dict]:
        return [row for contender in contenders for row in _values(prepared, contender, truths, metrics, drawn)]

    rows, unserved = rows_of(prepared.protocol.metrics, two_way), {}
    for added in prepared.added:
        drawn: dict[tuple[str, str], TwoWay] = {}
        try:
            own = rows_of(lambda variant, added=added: [m for m in prepared.metrics(variant) if m is added], drawn)
            _require_usable(added, own)
            for resampling in drawn.values():
                resampling.means()
        except Exception as error:  # a stranger's metric raises what it likes
            known = isinstance(error, AttribenchError)
            unserved[added.name] = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split())
        else:
            rows += own
            two_way |= drawn
    return rows, unserved


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
    prepared: Prepared,
    contender: Contender,
    truths: Mapping[str, Truth],
    metrics: Callable[[str], Sequence[Metric]],
    two_way: dict[tuple[str, str], TwoWay],
) -> Iterator[dict]:
    """The rows of per_query.parquet; what rests on drawn subsets is put into `two_way` as well."""
    entry = contender.entry
    for found in measured(prepared, entry, truths, metrics, candidate=contender.candidate):
        truth, metric = found.truth, found.metric
        if metric.n_subsets(truth):
            of_metric = two_way.setdefault((found.variant, metric.name), TwoWay(seed=prepared.config.seed))
            method = (entry.plugin.name, contender.tuning or "")
            of_metric.add(method, found.plan.id, metric, truth, found.scores)
        yield from query_rows(entry.plugin.name, contender.tuning or "", found)


# --------------------------------------------------------------------------------------------- rows


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
    identity = _identity(prepared, Contender(entry, entry.method))
    return [
        record.Row(**identity, variant=variant, metric=metric.name, status=status, reason=reason)
        for variant in variants_of(prepared.plans)
        for metric in prepared.metrics(variant)
        if metric.name not in unserved
    ]
