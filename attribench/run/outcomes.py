"""The value of every query of a run: stored scores, held against the truth by the protocol's metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from attribench.attribution.method_run import MethodRun
from attribench.attribution.scores import SCORES, ScoreTable, read_scores
from attribench.data import Role
from attribench.engine.run import Outcome
from attribench.engine.steps import Step
from attribench.errors import Unavailable
from attribench.files.state import State
from attribench.interface import Scores
from attribench.measurement import Metric, Truth
from attribench.run.measured import Measured, measured_on
from attribench.run.prepared import MethodSteps, Prepared
from attribench.study.plan import StudyPlan
from attribench.study.steps import observation_name

Outcomes = Mapping[Step, Outcome]


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
        yield from measured_on(run.plan, run.seed, scores.values, truths[run.plan.id], metrics, role)


def scores_of(prepared: Prepared, run: MethodRun, role: Role, candidate: int | None) -> Scores:
    """The stored scores of a method's run, or of one candidate of it."""
    return read_scores(prepared.store.path(run.scores_of(role).keys["scores"]) / SCORES, candidate)


def truths_of(prepared: Prepared, outcomes: Outcomes, role: Role = "query") -> dict[str, Truth]:
    """The truth of each study whose training succeeded, and all that was retrained for its truth; by its id."""
    known = [plan for plan in prepared.plans if is_trained(prepared, plan, outcomes)]
    whole = [plan for plan in known if all(outcomes[step].ok for step in prepared.truth_steps(plan))]
    return {plan.id: truth_of(prepared, plan, role) for plan in whole}


def truth_of(prepared: Prepared, plan: StudyPlan, role: Role = "query") -> Truth:
    """The truth of a study of which everything was made that it takes."""
    trained = prepared.studies[plan.id].trainings[0]
    observed = {
        observer: State(prepared.store.path(trained.keys[observation_name(observer)]))
        for observer in prepared.protocol.truth_observers(plan)
    }
    taken = prepared.truths[plan.id].get(role)
    return prepared.protocol.truth(plan, observed, role, taken.retrained(prepared.store.path) if taken else None)


def is_trained(prepared: Prepared, plan: StudyPlan, outcomes: Outcomes) -> bool:
    """Whether the study's own training succeeded, or its queries are given, so that their truth does not depend on it."""
    return plan.given is not None or outcomes[prepared.studies[plan.id].trainings[0]].ok


def fault(prepared: Prepared, entry: MethodSteps, outcomes: Outcomes) -> tuple[str, str] | None:
    """(status, reason) of a method that has no scores, or whose scores have no truth to be held against; or None."""
    if entry.skipped is not None:
        return "unavailable", entry.skipped
    for run in entry.runs:
        for step in (*run.steps, *prepared.truth_steps(run.plan)):
            if not outcomes[step].ok:
                error = outcomes[step].error
                return "unavailable" if isinstance(error, Unavailable) else "failed", str(error)
    return None


def score_tables(prepared: Prepared, plan: StudyPlan, done: Callable[[Step], bool]) -> list[ScoreTable]:
    """All scores of a study whose steps are `done`, as `Protocol.further_retrainings` gets them."""
    tables = []
    for entry in prepared.methods:
        runs = [run for run in entry.runs if run.plan.id == plan.id and all(map(done, run.steps))]
        for run in runs:
            for role in ("query", "fit") if prepared.tunes else ("query",):
                for candidate in entry.candidates(role):
                    scores = scores_of(prepared, run, role, candidate)
                    tables.append(
                        ScoreTable(method=entry.plugin.name, seed=run.seed, candidate=candidate, role=role, scores=scores)
                    )
    return tables
