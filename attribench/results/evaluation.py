"""From the scores of a run to its folder: values per query, numbers with intervals, record and pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from attribench.engine.run import Outcome
from attribench.engine.steps import Step
from attribench.interface import Metric, Scores, State, Truth
from attribench.results import pictures, record
from attribench.results.controls import check_controls
from attribench.results.summary import summary
from attribench.study.granted import generated
from attribench.study.plan import StudyPlan
from attribench.study.steps import COST, SCORES, observation_name, read_scores

if TYPE_CHECKING:
    from attribench.job import MethodSteps, Prepared

AT_CHANCE = "random"
"""The control that draws anew for every query, whose value is therefore known."""
SHOWN_QUERIES = 6

Outcomes = Mapping[Step, Outcome]


def evaluate(prepared: Prepared, outcomes: Outcomes) -> list[record.Row]:
    """Write record, values per query and pictures to the run folder; the record's rows."""
    finished = [entry for entry in prepared.methods if _reason(entry, outcomes) is None]
    per_query = pd.DataFrame(_values(prepared, finished, outcomes))
    rows = []
    if len(per_query):
        worse_is_more = [metric.name for metric in _metrics(prepared) if not metric.higher_is_better]
        numbers = summary(per_query, lower_is_better=worse_is_more, seed=prepared.config.seed)
        rows += [_row(prepared, entry, outcomes, number) for entry in finished for number in _of(numbers, entry)]
    for entry in prepared.methods:
        if entry not in finished:
            rows += _empty_rows(prepared, entry, outcomes)
    record.write(rows, per_query, prepared.folder)
    if len(per_query):
        pictures.interval_plot(prepared.folder / "intervals.png", rows)
        labels = {row.method: row.label for row in rows}
        pictures.top_five(prepared.folder / "top-five.png", _shown_queries(prepared, finished, labels, outcomes))
    return rows


def check(prepared: Prepared, outcomes: Outcomes) -> None:
    """Raise ControlError when the random control is off its known value."""
    if any(row.method == AT_CHANCE and row.status == "ok" for row in record.read(prepared.folder)):
        check_controls(record.read_per_query(prepared.folder), [AT_CHANCE])


def _metrics(prepared: Prepared) -> list[Metric]:
    variants = dict.fromkeys(case.variant for plan in prepared.plans for case in plan.roles("query"))
    return [metric for variant in variants for metric in prepared.protocol.metrics(variant)]


# -------------------------------------------------------------------------------- values per query


def _values(prepared: Prepared, entries: list[MethodSteps], outcomes: Outcomes) -> Iterator[dict]:
    truths = {plan.id: _truth(prepared, plan) for plan in prepared.plans if _trained(prepared, plan, outcomes)}
    for entry in entries:
        for plan, seed, step in entry.scores:
            scores = _scores(prepared, step)
            for variant, number in _by_variant(plan).items():
                truth = _part(truths[plan.id], number)
                for metric in prepared.protocol.metrics(variant):
                    values = metric.values(scores.values[number], truth)
                    known = (truth.query_ids, values, metric.chance(truth), metric.ceiling(truth))
                    for query_id, value, chance, ceiling in zip(*known, strict=True):
                        yield {
                            "method": entry.plugin.name,
                            "variant": variant,
                            "metric": metric.name,
                            "study": plan.id,
                            "query_id": query_id,
                            "method_seed": seed,
                            "value": value,
                            "chance": chance,
                            "ceiling": ceiling,
                        }


def _truth(prepared: Prepared, plan: StudyPlan) -> Truth:
    trained = prepared.trainings[plan.id]
    observed = {
        observer: State(prepared.store.path(trained.keys[observation_name(observer)]))
        for observer in prepared.protocol.truth_observers(plan)
    }
    return prepared.protocol.truth(plan, observed)


def _trained(prepared: Prepared, plan: StudyPlan, outcomes: Outcomes) -> bool:
    return outcomes[prepared.trainings[plan.id]].ok


def _scores(prepared: Prepared, step: Step) -> Scores:
    return read_scores(prepared.store.path(step.keys["scores"]) / SCORES)


def _by_variant(plan: StudyPlan) -> dict[str, list[int]]:
    """Numbers of the queries of each variant."""
    numbers: dict[str, list[int]] = {}
    for number, case in enumerate(plan.roles("query")):
        numbers.setdefault(case.variant, []).append(number)
    return numbers


def _part(truth: Truth, numbers: list[int]) -> Truth:
    return Truth(
        query_ids=tuple(truth.query_ids[i] for i in numbers),
        train_ids=truth.train_ids,
        relevant=truth.relevant[numbers],
        tables={name: table[numbers] for name, table in truth.tables.items()},
    )


# --------------------------------------------------------------------------------------------- rows


def _reason(entry: MethodSteps, outcomes: Outcomes) -> tuple[str, str] | None:
    """(status, reason) of a method that has no scores, or None."""
    if entry.skipped is not None:
        return "unavailable", entry.skipped
    for _, _, step in [*entry.fits, *entry.scores]:
        outcome = outcomes.get(step)
        if outcome is not None and not outcome.ok:
            return ("unavailable" if outcome.status == "unavailable" else "failed"), str(outcome.error)
    return None


def _of(numbers: pd.DataFrame, entry: MethodSteps) -> list[Mapping]:
    return numbers[numbers["method"] == entry.plugin.name].to_dict("records")


def _row(prepared: Prepared, entry: MethodSteps, outcomes: Outcomes, number: Mapping) -> record.Row:
    return record.Row(**_identity(prepared, entry), **number, **_costs(prepared, entry), status="ok", reason=None)


def _empty_rows(prepared: Prepared, entry: MethodSteps, outcomes: Outcomes) -> list[record.Row]:
    status, reason = _reason(entry, outcomes)
    variants = dict.fromkeys(case.variant for plan in prepared.plans for case in plan.roles("query"))
    return [
        record.Row(
            **_identity(prepared, entry),
            method=entry.plugin.name,
            variant=variant,
            metric=metric.name,
            n_queries=0,
            n_studies=0,
            status=status,
            reason=reason,
        )
        for variant in variants
        for metric in prepared.protocol.metrics(variant)
    ]


def _identity(prepared: Prepared, entry: MethodSteps) -> dict:
    return {
        "params": {field.name: getattr(entry.method, field.name) for field in dataclasses.fields(entry.method)},
        "plugin": entry.plugin.origin,
        "control": entry.method.control,
        "dataset": prepared.dataset.name,
        "edition": prepared.dataset.edition,
        "protocol": prepared.protocol.name,
        "n_concepts": len(prepared.plans[0].concepts),
        "split": prepared.config.split,
        "seed": prepared.config.seed,
        "device": _made_on(prepared, entry),
    }


def _made_on(prepared: Prepared, entry: MethodSteps) -> str:
    """The device that the scores were made on, maybe by an earlier run."""
    keys = [step.keys["scores"] for _, _, step in entry.scores]
    made = {prepared.store.manifest(key)["device"] for key in keys if prepared.store.has(key)}
    return " and ".join(sorted(made)) or prepared.device


def _costs(prepared: Prepared, entry: MethodSteps) -> dict:
    """Means over studies and seeds: seconds to fit, seconds a query, peak memory, bytes a training image."""
    fits = [_cost(prepared, step, "state") for _, _, step in entry.fits]
    scores = [_cost(prepared, step, "scores") for _, _, step in entry.scores]
    n_queries = [len(plan.roles("query")) for plan, _, _ in entry.scores]
    n_images = [len(plan.training.images) for plan, _, _ in entry.fits]
    return {
        "fit_seconds": float(np.mean([cost["seconds"] for cost in fits])),
        "query_seconds": float(np.mean([cost["seconds"] / n for cost, n in zip(scores, n_queries, strict=True)])),
        "peak_bytes": int(max(cost["peak_bytes"] for cost in [*fits, *scores])),
        "bytes_per_train_image": float(np.mean([cost["bytes"] / n for cost, n in zip(fits, n_images, strict=True)])),
    }


def _cost(prepared: Prepared, step: Step, output: str) -> dict:
    return json.loads((prepared.store.path(step.keys[output]) / COST).read_text())


# ----------------------------------------------------------------------------------------- pictures


def _shown_queries(
    prepared: Prepared, entries: list[MethodSteps], labels: Mapping[str, str], outcomes: Outcomes
) -> list[pictures.Shown]:
    """Some queries of every variant, from different studies, with each method's first five training images."""
    shown = []
    plans = [plan for plan in prepared.plans if _trained(prepared, plan, outcomes)]
    variants = list(dict.fromkeys(case.variant for plan in plans for case in plan.roles("query")))
    for i in range(SHOWN_QUERIES):
        plan, variant = plans[i % len(plans)], variants[i % len(variants)]
        numbers = _by_variant(plan).get(variant, [])
        if numbers:
            shown.append(_shown(prepared, entries, labels, plan, numbers[(i * 7) % len(numbers)]))
    return shown


def _shown(
    prepared: Prepared, entries: list[MethodSteps], labels: Mapping[str, str], plan: StudyPlan, number: int
) -> pictures.Shown:
    folder = prepared.store.path(prepared.generations[plan.id].keys["pictures"])
    case = plan.roles("query")[number]
    top: dict[str, list[tuple[Image.Image, bool]]] = {}
    for entry in entries:
        step = next(step for of, _, step in entry.scores if of.id == plan.id)
        best = np.argsort(-_scores(prepared, step).values[number], kind="stable")[:5]
        images = [plan.training.images[i] for i in best]
        top[labels[entry.plugin.name]] = [
            (prepared.dataset.load(image.id), image.concept in case.concepts) for image in images
        ]
    return pictures.Shown(
        prompt=case.prompt, picture=generated(plan, folder, "query")[number], title=" + ".join(case.concepts), top=top
    )
