"""Performing one step: what happens in the calling thread for `--workers 0`, and on a Dask worker otherwise."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import attribench
from attribench.engine.measure import Cost, measure
from attribench.engine.steps import Job, StepContext
from attribench.engine.store import ArtifactStore, DiskFull
from attribench.errors import AttribenchError, MethodError, Unavailable

Status = Literal["cached", "done", "failed", "unavailable", "skipped"]
Report = Callable[[int, int, str], None]

REPORT_SECONDS = 0.1
"""Progress more frequent than this is dropped, but for the last of a step."""


@dataclass(frozen=True)
class Outcome:
    """How a step ended. For a skipped step, reason and error are those of the ancestor that is to blame."""

    status: Status
    seconds: float = 0.0
    reason: str = ""
    error: AttribenchError | None = None

    @property
    def ok(self) -> bool:
        """Whether its artifacts are in the store."""
        return self.status in ("cached", "done")


class Stopped(BaseException):
    """Raised by `ctx.report` in a run that was cancelled. Not an Exception: no step should handle it."""


def perform(job: Job, root: Path, upstream: Sequence[Outcome], report: Report) -> Outcome:
    """Run a step and commit what it wrote. Raises only what ends the whole run."""
    blocked = next((outcome for outcome in upstream if not outcome.ok), None)
    if blocked is not None:
        return Outcome("skipped", reason=blocked.reason, error=blocked.error)
    start = time.perf_counter()
    try:
        store = ArtifactStore(root)
        context = StepContext(job, store, _at_intervals(report))
    except AttribenchError as error:
        return Outcome("failed", time.perf_counter() - start, _one_line(error), _portable(error))
    if not context.wanted:
        return Outcome("cached")
    if job.device == "cpu":
        one_torch_thread()
    try:
        with store.room_checked():
            with measure(job.device) as cost:
                job.function(context)
            _commit(job, context, store, cost)
        return Outcome("done", cost.seconds)
    except (Exception, SystemExit) as error:
        return _failed(job, context, store, error, time.perf_counter() - start)
    finally:
        for claim in context.claims.values():
            claim.release()


def _commit(job: Job, context: StepContext, store: ArtifactStore, cost: Cost) -> None:
    forgotten = [name for name in context.wanted if name not in context.claims]
    if forgotten:
        raise MethodError(f"step {job.title} did not make its output {forgotten[0]!r}; it must call ctx.out for it")
    for name, claim in context.claims.items():
        store.commit(
            claim,
            {
                "step": job.name,
                "title": job.title,
                "output": name,
                "parents": job.parents(name),
                "device": job.device,
                "cost": {"seconds": cost.seconds, "peak_bytes": cost.peak_bytes},
                "resumed": claim.resumed,
                "versions": package_versions(),
            },
        )


def _failed(job: Job, context: StepContext, store: ArtifactStore, error: BaseException, seconds: float) -> Outcome:
    if isinstance(error, Unavailable):
        return Outcome("unavailable", seconds, _one_line(error), _portable(error))
    reported = error
    if not isinstance(error, AttribenchError):
        record = store.failure_path(job.keys[next(iter(context.wanted))])
        reported = MethodError(f"step {job.title} raised {type(error).__name__}: {_one_line(error)}; traceback: {record}")
    trace = "".join(traceback.format_exception(error))
    for name in context.wanted:
        store.record_failure(job.keys[name], job.title, _one_line(reported), trace)
    # What a killed run left may itself be the cause, so a step that fails on it starts afresh next time.
    # A full disk is not the step's fault.
    for claim in context.claims.values():
        if claim.resumed and not isinstance(error, DiskFull):
            claim.discard()
    return Outcome("failed", seconds, _one_line(reported), _portable(reported))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _portable(error: AttribenchError) -> AttribenchError:
    """The same error with its message alone: it travels between processes, and holds no frame and no tensor."""
    plain = next(cls for cls in type(error).__mro__ if "__init__" not in vars(cls) or cls is AttribenchError)
    return plain(_one_line(error))


def _at_intervals(report: Report) -> Report:
    last = 0.0

    def at_intervals(done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last >= REPORT_SECONDS:
            last = now
            report(done, total, note)

    return at_intervals


def one_torch_thread() -> None:
    """Let torch compute with one thread, now and when it is first imported (docs/decisions/002)."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["MKL_NUM_THREADS"] = "1"
    if "torch" in sys.modules:  # possibly half-imported by another thread: import_module waits for it
        importlib.import_module("torch").set_num_threads(1)


@cache
def package_versions() -> dict[str, str]:
    """Versions of what can change a result, as far as it is installed."""
    found = {"python": platform.python_version(), "attribench": attribench.__version__}
    for name in ("torch", "diffusers", "transformers", "numpy", "dask", "distributed"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
