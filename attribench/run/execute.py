"""Run what was prepared: its steps, then those that depend on scores, then what comes of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from attribench.engine.listener import Listener
from attribench.engine.run import Outcome
from attribench.engine.run import execute as execute_steps
from attribench.engine.steps import Step
from attribench.errors import AttribenchError, Unavailable
from attribench.report import record
from attribench.report.record import Row
from attribench.run import folder
from attribench.run.evaluate import Evaluated, evaluate
from attribench.run.outcomes import is_trained, score_tables
from attribench.run.prepared import Prepared
from attribench.run.truths import write_truths
from attribench.run.tuning import Tuning, tune
from attribench.statistics.controls import check_controls


@dataclass
class Result:
    """A finished run."""

    prepared: Prepared
    folder: Path
    seconds: float
    rows: list[Row]
    failure: AttribenchError | None
    """What makes the exit code non-zero: a method or step that failed, or a control that is off."""
    unserved: dict[str, str] = field(default_factory=dict)
    """Of the metrics that were asked for beside the protocol's own, those without numbers, and why."""


def execute(prepared: Prepared, listener: Listener) -> Result:
    """Execute the steps, then those that depend on the scores; evaluate what came out, write the run folder."""
    started, config = time.perf_counter(), prepared.config
    run_steps = partial(
        execute_steps, store=prepared.store, workers=config.workers, scheduler=config.scheduler, device=prepared.device,
        listener=listener,
    )  # fmt: skip
    folder.clear(prepared.folder, prepared.protocol.pictures)
    folder.write_configuration(prepared)
    outcomes = run_steps(prepared.targets)
    failure: AttribenchError | None = None
    tunings: dict[str, Tuning] = {}
    found = Evaluated()
    try:
        if further := _further(prepared, outcomes):
            outcomes = run_steps(further) | outcomes
        errors = (outcomes[step].error for step in prepared.targets if not outcomes[step].ok)
        failure = next((error for error in errors if not isinstance(error, Unavailable)), None)
        tunings = tune(prepared, outcomes)
        found = evaluate(prepared, outcomes, tunings)
        at_chance = [entry.plugin.name for entry in prepared.methods if entry.method.at_chance]
        check_controls(record.read_per_query(prepared.folder), at_chance)
    except AttribenchError as error:
        failure = failure or error
    seconds = time.perf_counter() - started
    folder.write_scores_of(prepared, outcomes, tunings)
    write_truths(prepared, outcomes)
    folder.write_manifest(prepared, outcomes, tunings, found.unserved, seconds)
    folder.write_page(prepared, found, seconds, failure)
    return Result(prepared, prepared.folder, seconds, found.rows, failure, found.unserved)


def _further(prepared: Prepared, outcomes: dict[Step, Outcome]) -> list[Step]:
    """The steps that the truth takes now that the scores are known."""
    before = set(prepared.targets)
    for plan in prepared.plans:
        if is_trained(prepared, plan, outcomes):
            tables = score_tables(prepared, plan, lambda step: outcomes[step].ok)
            prepared.ask(plan, prepared.protocol.further_retrainings(plan, tables))
    return [step for step in prepared.targets if step not in before]
