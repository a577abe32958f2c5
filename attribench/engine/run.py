"""Running steps: what is in the store is not made again, and what fails takes only its descendants along.

outcomes = execute([scores], ArtifactStore(root), workers="auto")
if outcomes[scores].ok:
    folder = store.path(scores["scores"].key)
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable
from concurrent.futures import CancelledError
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from attribench.engine.cluster import Workers, connect, pack, perform_on_worker
from attribench.engine.listener import Listener
from attribench.engine.plan import Plan, make_plan
from attribench.engine.steps import Job, Step
from attribench.engine.store import ArtifactStore, DiskFull
from attribench.engine.work import Outcome, perform
from attribench.errors import MethodError, UsageError

if TYPE_CHECKING:
    from distributed import Client, Future


def execute(
    targets: Iterable[Step],
    store: ArtifactStore,
    *,
    workers: Workers = "auto",
    scheduler: str | None = None,
    device: str = "cpu",
    listener: Listener | None = None,
) -> dict[Step, Outcome]:
    """Make every output of the targets, and of their ancestors what that takes.

    Returns the outcome of each step that was run, skipped or found in the store; ancestors that nobody
    needed are not in it. Equal steps (same keys) count as one. A step that fails is an outcome, not an
    exception. Raises DiskFull, UsageError for workers that cannot be had, and KeyboardInterrupt; in each
    case finished steps are kept and unfinished ones go on at their last checkpoint next time.
    """
    plan = make_plan(targets, store)
    hearing = _OneAtATime(listener or Listener())
    cluster = connect(workers, scheduler, device, store) if plan.to_run else nullcontext()
    with cluster as client:
        lanes = sum(client.nthreads().values()) if client else 1
        hearing.call("begin", plan, lanes)
        try:
            outcomes = {step: Outcome("cached") for step in plan.cached}
            for step, outcome in outcomes.items():
                hearing.call("finished", step, outcome)
            if client is None:
                outcomes |= _run_here(plan, store, device, hearing)
            else:
                outcomes |= _run_on_cluster(client, plan, store, device, hearing)
            return outcomes
        finally:
            hearing.call("end")


class _OneAtATime:
    """Calls a listener from several threads, one call at a time."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()

    def call(self, method: str, *arguments: object) -> None:
        with self._lock:
            getattr(self._listener, method)(*arguments)


def _run_here(plan: Plan, store: ArtifactStore, device: str, hearing: _OneAtATime) -> dict[Step, Outcome]:
    outcomes: dict[Step, Outcome] = {}
    for step in plan.to_run:

        def report(done: int, total: int, note: str, step: Step = step) -> None:
            hearing.call("progress", step, done, total, note)

        report(0, 0, "")
        outcomes[step] = perform(Job.of(step, device), store.root, _upstream(step, outcomes), report)
        _heard(hearing, step, outcomes[step])
    return outcomes


def _run_on_cluster(client: Client, plan: Plan, store: ArtifactStore, device: str, hearing: _OneAtATime) -> dict[Step, Outcome]:
    from distributed import as_completed

    run = uuid.uuid4().hex[:12]
    topic = f"attribench-{run}"

    def on_event(event: tuple[float, list]) -> None:
        number, done, total, note = event[1]
        hearing.call("progress", plan.to_run[number], done, total, note)

    client.subscribe_topic(topic, on_event)
    futures: dict[Step, Future] = {}
    for number, step in enumerate(plan.to_run):
        job = Job.of(step, device)
        futures[step] = client.submit(
            perform_on_worker,
            pack(job),
            store.root,
            topic,
            number,
            _upstream(step, futures),
            key=f"{step.name}-{run}-{number}",
            pure=False,
            resources={"GPU": 1} if job.device != "cpu" else None,
        )
    by_key = {future.key: step for step, future in futures.items()}
    outcomes: dict[Step, Outcome] = {}
    try:
        for future in as_completed(futures.values(), loop=client.loop):
            step = by_key[future.key]
            outcomes[step] = _outcome(step, future, _upstream(step, futures))
            _heard(hearing, step, outcomes[step])
    except BaseException:
        client.cancel(list(futures.values()), force=True)
        raise
    return outcomes


def _heard(hearing: _OneAtATime, step: Step, outcome: Outcome) -> None:
    hearing.call("finished", step, outcome)
    if isinstance(outcome.error, DiskFull):
        raise outcome.error


def _upstream(step: Step, ended: dict[Step, Any]) -> list[Any]:
    """Of a step's inputs what `ended` has: their outcomes, or the futures of these."""
    return [ended[needed] for needed in dict.fromkeys(ref.step for ref in step.inputs.values()) if needed in ended]


def _outcome(step: Step, future: Future, upstream: list[Future]) -> Outcome:
    """What the worker returned; or, if the worker itself was lost, what Dask says of it."""
    try:
        return future.result()
    except CancelledError as error:
        raise UsageError("the Dask cluster went away during the run; run the same command again") from error
    except Exception as error:
        told = " ".join(str(error).split())
        lost = MethodError(f"step {step} was lost with its worker: {type(error).__name__}: {told}")
        blamed_on_another = any(needed.status == "error" for needed in upstream)
        return Outcome("skipped" if blamed_on_another else "failed", reason=str(lost), error=lost)
