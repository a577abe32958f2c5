"""The value of every query of a run: stored scores, held against the truth by the protocol's metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attribench.engine.run import Outcome
from attribench.engine.steps import Step
from attribench.errors import Unavailable
from attribench.interface import Metric, Role, Scores, State, Truth
from attribench.study.plan import StudyPlan
from attribench.study.runs import MethodRun
from attribench.study.scores import SCORES, read_scores
from attribench.study.steps import observation_name

if TYPE_CHECKING:
    from attribench.job import MethodSteps, Prepared

Outcomes = Mapping[Step, Outcome]


@dataclass(frozen=True)
class Measured:
    """One metric on the queries of one variant, in one study and with one seed of the method."""

    run: MethodRun
    variant: str
    metric: Metric
    values: np.ndarray
    """[n_query] float64."""
    truth: Truth
    """Of the same queries."""


def measured(
    prepared: Prepared,
    entry: MethodSteps,
    truths: Mapping[str, Truth],
    metrics: Callable[[str], Sequence[Metric]],
    *,
    role: Role = "query",
    candidate: int | None = None,
) -> Iterator[Measured]:
    """Everything that `metrics(variant)` says of a method, or of one candidate of it.

    `truths` are those of the role, by study id (`truths_of`).
    """
    for run in entry.runs:
        scores = scores_of(prepared, run, role, candidate)
        for variant, numbers in by_variant(run.plan, role).items():
            truth = _part(truths[run.plan.id], numbers)
            for metric in metrics(variant):
                yield Measured(run, variant, metric, metric.values(scores.values[numbers], truth), truth)


def scores_of(prepared: Prepared, run: MethodRun, role: Role, candidate: int | None) -> Scores:
    """The stored scores of a method's run, or of one candidate of it."""
    return read_scores(prepared.store.path(run.scores_of(role).keys["scores"]) / SCORES, candidate)


def truths_of(prepared: Prepared, outcomes: Outcomes, role: Role = "query") -> dict[str, Truth]:
    """The truth of each study that could be trained, by its id."""
    return {plan.id: _truth(prepared, plan, role) for plan in prepared.plans if is_trained(prepared, plan, outcomes)}


def _truth(prepared: Prepared, plan: StudyPlan, role: Role) -> Truth:
    trained = prepared.studies[plan.id].trainings[0]
    observed = {
        observer: State(prepared.store.path(trained.keys[observation_name(observer)]))
        for observer in prepared.protocol.truth_observers(plan)
    }
    return prepared.protocol.truth(plan, observed, role)


def is_trained(prepared: Prepared, plan: StudyPlan, outcomes: Outcomes) -> bool:
    """Whether the study's own training succeeded."""
    return outcomes[prepared.studies[plan.id].trainings[0]].ok


def fault(entry: MethodSteps, outcomes: Outcomes) -> tuple[str, str] | None:
    """(status, reason) of a method that has no scores, or None."""
    if entry.skipped is not None:
        return "unavailable", entry.skipped
    for run in entry.runs:
        for step in run.steps:
            if not outcomes[step].ok:
                error = outcomes[step].error
                return "unavailable" if isinstance(error, Unavailable) else "failed", str(error)
    return None


def variants_of(plans: Sequence[StudyPlan]) -> list[str]:
    """The variants that any study has queries of, in order."""
    return list(dict.fromkeys(case.variant for plan in plans for case in plan.roles("query")))


def by_variant(plan: StudyPlan, role: Role = "query") -> dict[str, list[int]]:
    """Numbers of the queries of each variant."""
    numbers: dict[str, list[int]] = {}
    for number, case in enumerate(plan.roles(role)):
        numbers.setdefault(case.variant, []).append(number)
    return numbers


def _part(truth: Truth, numbers: list[int]) -> Truth:
    return Truth(
        query_ids=tuple(truth.query_ids[i] for i in numbers),
        train_ids=truth.train_ids,
        relevant=truth.relevant[numbers],
        tables={name: table[numbers] for name, table in truth.tables.items()},
    )
