"""What a run has to do: which steps, in which order, and what they may cost."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from attribench.engine.steps import Step
from attribench.engine.store import ArtifactStore


@dataclass(frozen=True)
class Estimate:
    """What a step may cost; None where nothing is known."""

    seconds: float | None = None
    peak_bytes: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class Plan:
    """The steps that must run, every one after its inputs, and those whose results are all in the store.

    An ancestor that lacks a result which nobody needs is in neither.
    """

    to_run: tuple[Step, ...]
    cached: tuple[Step, ...]
    estimates: Mapping[Step, Estimate]


@dataclass(frozen=True)
class DryRunRow:
    """One line of `--dry-run`. For a cached step the estimate is what is still to spend: nothing."""

    step: Step
    cached: bool
    estimate: Estimate


def make_plan(targets: Iterable[Step], store: ArtifactStore) -> Plan:
    """Walk from the targets to what they lack. All outputs of a target are needed; of an ancestor, only
    those that a step which must run takes as input."""
    to_run: dict[Step, None] = {}
    seen: dict[Step, None] = {}

    def require(step: Step) -> None:
        if step in to_run:
            return
        for ref in step.needed(store.has):
            if not store.has(ref.key):
                require(ref.step)
        to_run[step] = None

    def look(step: Step) -> None:
        if step in seen:
            return
        for ref in step.inputs.values():
            look(ref.step)
        seen[step] = None

    for step in targets:
        look(step)
        if not _all_present(step, store):
            require(step)
    cached = tuple(step for step in seen if step not in to_run and _all_present(step, store))
    return Plan(tuple(to_run), cached, _estimates(to_run, store))


def dry_run(targets: Iterable[Step], store: ArtifactStore) -> list[DryRunRow]:
    """What `execute` would do, without doing it: the cached steps, then those to run, in order."""
    plan = make_plan(targets, store)
    nothing = Estimate(0.0, 0.0, 0.0)
    return [
        *(DryRunRow(step, True, nothing) for step in plan.cached),
        *(DryRunRow(step, False, plan.estimates[step]) for step in plan.to_run),
    ]


def _all_present(step: Step, store: ArtifactStore) -> bool:
    return all(store.has(key) for key in step.keys.values())


def _estimates(steps: Collection[Step], store: ArtifactStore) -> dict[Step, Estimate]:
    """From the median of earlier artifacts of the same step name, else from what the step itself says."""
    earlier: dict[str, list[dict]] = defaultdict(list)
    if steps:
        for manifest in store.manifests():
            if not manifest["resumed"]:  # the time of a resumed step is that of its last part
                earlier[manifest["step"]].append(manifest)
    return {step: _estimate(step, earlier[step.name], store) for step in steps}


def _estimate(step: Step, earlier: list[dict], store: ArtifactStore) -> Estimate:
    if not earlier:
        return Estimate(**(step.estimate or {}))
    missing = sum(not store.has(key) for key in step.keys.values())
    sizes = [sum(file["bytes"] for file in manifest["files"].values()) for manifest in earlier]
    return Estimate(
        seconds=statistics.median(manifest["cost"]["seconds"] for manifest in earlier),
        peak_bytes=statistics.median(manifest["cost"]["peak_bytes"] for manifest in earlier),
        bytes=missing * statistics.median(sizes),
    )
