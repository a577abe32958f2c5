"""From the scores of a run to its folder: values per query, numbers with intervals, record and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd
from PIL import Image

from attribench.interface import AttributionMethod
from attribench.measurement import Metric, Truth
from attribench.results import pictures, record
from attribench.results.controls import check_controls
from attribench.results.costs import costs, made_on, n_models
from attribench.results.summary import summary
from attribench.results.tuning import Tuning
from attribench.results.two_way import TwoWay
from attribench.results.values import (
    Outcomes,
    by_variant,
    fault,
    is_trained,
    measured,
    scores_of,
    truths_of,
    variants_of,
)
from attribench.study.generated import generated
from attribench.study.plan import StudyPlan

if TYPE_CHECKING:
    from attribench.job import MethodSteps, Prepared

SHOWN_QUERIES = 6


@dataclass(frozen=True)
class Contender:
    """A method with scores, or one of the candidates of a method that the table shows."""

    entry: MethodSteps
    method: AttributionMethod
    tuning: record.Standing | None = None
    candidate: int | None = None


def evaluate(prepared: Prepared, outcomes: Outcomes, tunings: Mapping[str, Tuning]) -> list[record.Row]:
    """Write record, values per query and pictures to the run folder; the record's rows."""
    finished = [entry for entry in prepared.methods if fault(prepared, entry, outcomes) is None]
    contenders = [contender for entry in finished for contender in _contenders(entry, tunings.get(entry.plugin.name))]
    truths = truths_of(prepared, outcomes)
    two_way: dict[tuple[str, str], TwoWay] = {}
    per_query = pd.DataFrame(value for contender in contenders for value in _values(prepared, contender, truths, two_way))
    rows = []
    if len(per_query):
        worse_is_more = [metric.name for metric in _metrics(prepared) if not metric.higher_is_better]
        numbers = summary(
            per_query, lower_is_better=worse_is_more, two_way=two_way, seed=prepared.config.seed
        ).to_dict("records")
        for contender in contenders:
            identity = _identity(prepared, contender) | costs(prepared, contender.entry)
            which = (contender.entry.plugin.name, contender.tuning or "")
            own = [number for number in numbers if (number["method"], number["tuning"]) == which]
            rows += [record.Row(**number | identity, status="ok") for number in own]
    for entry in prepared.methods:
        if entry not in finished:
            rows += _empty_rows(prepared, entry, outcomes)
    record.write(rows, per_query, prepared.folder)
    if len(per_query):
        pictures.interval_plot(prepared.folder / "intervals.png", rows)
        trained = [plan for plan in prepared.plans if plan.id in truths]
        prepared.protocol.draw(prepared.folder, trained, truths, rows, per_query)
        competing = [contender for contender in contenders if contender.tuning in (None, "tuned")]
        labels = {row.method: row.label for row in rows if row.competes}
        pictures.top_five(prepared.folder / "top-five.png", _shown_queries(prepared, competing, labels, outcomes))
    return rows


def check_at_chance(prepared: Prepared) -> None:
    """Raise ControlError when a control whose known value is chance is off it."""
    at_chance = [entry.plugin.name for entry in prepared.methods if entry.method.at_chance]
    check_controls(record.read_per_query(prepared.folder), at_chance)


def _contenders(entry: MethodSteps, tuning: Tuning | None) -> list[Contender]:
    if tuning is None:
        (candidate,) = entry.candidates("query")
        method = entry.method if candidate is None else entry.method.candidates()[candidate]
        return [Contender(entry, method, candidate=candidate)]
    return [
        Contender(entry, tuning.candidates[tuning.number(standing)], standing, tuning.number(standing))
        for standing in get_args(record.Standing)
    ]


def _metrics(prepared: Prepared) -> list[Metric]:
    return [metric for variant in variants_of(prepared.plans) for metric in prepared.protocol.metrics(variant)]


def _values(
    prepared: Prepared, contender: Contender, truths: Mapping[str, Truth], two_way: dict[tuple[str, str], TwoWay]
) -> Iterator[dict]:
    """The rows of per_query.parquet; what rests on drawn subsets is put into `two_way` as well."""
    entry = contender.entry
    for found in measured(prepared, entry, truths, prepared.protocol.metrics, candidate=contender.candidate):
        truth, metric = found.truth, found.metric
        if metric.n_subsets(truth):
            of_metric = two_way.setdefault((found.variant, metric.name), TwoWay(seed=prepared.config.seed))
            method = (entry.plugin.name, contender.tuning or "")
            of_metric.add(method, found.run.plan.id, metric, truth, found.scores)
        known = (truth.query_ids, found.values, metric.chance(truth), metric.ceiling(truth))
        for query_id, value, chance, ceiling in zip(*known, strict=True):
            yield {
                "method": entry.plugin.name,
                "tuning": contender.tuning or "",
                "variant": found.variant,
                "metric": metric.name,
                "study": found.run.plan.id,
                "query_id": query_id,
                "method_seed": found.run.seed,
                "value": value,
                "chance": chance,
                "ceiling": ceiling,
            }


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
        "n_concepts": len(prepared.plans[0].concepts),
        "split": prepared.config.split,
        "seed": prepared.config.seed,
        "n_models": n_models(entry),
        "device": made_on(prepared, entry),
    }


def _empty_rows(prepared: Prepared, entry: MethodSteps, outcomes: Outcomes) -> list[record.Row]:
    status, reason = fault(prepared, entry, outcomes)
    identity = _identity(prepared, Contender(entry, entry.method))
    return [
        record.Row(**identity, variant=variant, metric=metric.name, status=status, reason=reason)
        for variant in variants_of(prepared.plans)
        for metric in prepared.protocol.metrics(variant)
    ]


# ----------------------------------------------------------------------------------------- pictures


def _shown_queries(
    prepared: Prepared, contenders: Sequence[Contender], labels: Mapping[str, str], outcomes: Outcomes
) -> list[pictures.Shown]:
    """Some queries of every variant, from different studies, with each method's first five training images."""
    shown = []
    plans = [plan for plan in prepared.plans if is_trained(prepared, plan, outcomes)]
    variants = variants_of(plans)
    for i in range(SHOWN_QUERIES):
        plan, variant = plans[i % len(plans)], variants[i % len(variants)]
        numbers = by_variant(plan).get(variant, [])
        if numbers:
            shown.append(_shown(prepared, contenders, labels, plan, numbers[(i * 7) % len(numbers)]))
    return shown


def _shown(
    prepared: Prepared, contenders: Sequence[Contender], labels: Mapping[str, str], plan: StudyPlan, number: int
) -> pictures.Shown:
    folder = prepared.store.path(prepared.studies[plan.id].pictures.keys["pictures"])
    case = plan.roles("query")[number]
    top: dict[str, list[tuple[Image.Image, bool]]] = {}
    for contender in contenders:
        run = next(run for run in contender.entry.runs if run.plan.id == plan.id)
        scores = scores_of(prepared, run, "query", contender.candidate).values[number]
        images = [plan.training.images[i] for i in np.argsort(-scores, kind="stable")[:5]]
        top[labels[contender.entry.plugin.name]] = [
            (prepared.dataset.load(image.id), image.concept in case.concepts) for image in images
        ]
    return pictures.Shown(
        prompt=case.prompt, picture=generated(plan, folder, "query")[number], title=" + ".join(case.concepts), top=top
    )
