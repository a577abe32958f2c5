"""How the steps of a run are shown: a live table, or a line per event."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Table

from attribench.engine.listener import Listener
from attribench.engine.plan import Plan
from attribench.engine.steps import Step
from attribench.engine.work import Outcome

PLAIN_SECONDS = 30
"""Plain lines about a step that is running come no more often than this."""
STATES = ("cached", "done", "running", "waiting", "failed")


def listener_for(json: bool) -> Listener:
    """Rich on a terminal; plain lines otherwise; plain lines on stderr if stdout is for machines."""
    if json:
        return PlainLines(sys.stderr)
    return RichDisplay() if sys.stdout.isatty() else PlainLines(sys.stdout)


class Tally:
    """Counts of steps by kind and state, and the time that may be left."""

    def __init__(self, plan: Plan, lanes: int) -> None:
        self._expected = {step: plan.estimates[step].seconds for step in plan.to_run}
        self._lanes = lanes
        self._start = time.monotonic()
        self._taken: dict[str, list[float]] = defaultdict(list)
        # All steps from the start: the display reads this from another thread, so it must not grow.
        self.state = dict.fromkeys(plan.cached, "cached") | dict.fromkeys(plan.to_run, "waiting")
        self.part: dict[Step, float] = {}
        """How much of a running step is done, 0 to 1."""

    def running(self, step: Step, done: int, total: int) -> bool:
        """Note progress; False for a step that has ended already."""
        if self.state.get(step) not in ("waiting", "running"):
            return False
        self.state[step] = "running"
        self.part[step] = min(1.0, done / total) if total else 0.0
        return True

    def ended(self, step: Step, outcome: Outcome) -> None:
        """Note the end of a step. An unavailable or skipped step counts as failed."""
        self.state[step] = outcome.status if outcome.ok else "failed"
        if outcome.status == "done":
            self._taken[step.name].append(outcome.seconds)

    def by_kind(self) -> dict[str, Counter[str]]:
        """Number of steps in each state, by step name."""
        kinds: dict[str, Counter[str]] = defaultdict(Counter)
        for step, state in self.state.items():
            kinds[step.name][state] += 1
        return kinds

    def left(self) -> float | None:
        """Seconds that may be left; None while some kind of step has neither run nor an estimate."""
        to_come = {step: state for step, state in self.state.items() if state in ("waiting", "running")}
        left = 0.0
        for step, state in to_come.items():
            taken = self._taken.get(step.name)
            seconds = sum(taken) / len(taken) if taken else self._expected[step]
            if seconds is None:
                return None
            left += seconds * (1 - self.part.get(step, 0.0) if state == "running" else 1)
        return left / max(1, min(self._lanes, len(to_come)))

    def summary(self) -> str:
        """ "1:20 so far, about 3:05 left"."""
        left = self.left()
        return f"{clock(time.monotonic() - self._start)} so far" + ("" if left is None else f", about {clock(left)} left")


class PlainLines(Listener):
    """One line per event, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: dict[Step, float] = {}

    def begin(self, plan: Plan, lanes: int) -> None:
        self._tally = Tally(plan, lanes)
        left = self._tally.left()
        about = "" if left is None or not plan.to_run else f", about {clock(left)}"
        self._say(f"{len(plan.to_run)} steps to run, {len(plan.cached)} cached{about}")

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        if not self._tally.running(step, done, total):
            return
        now = time.monotonic()
        if step in self._told and now - self._told[step] < PLAIN_SECONDS:
            return
        self._told[step] = now
        self._say(f"{step}: {done} of {total} {note}".rstrip() if total else f"{step}: started")

    def finished(self, step: Step, outcome: Outcome) -> None:
        self._tally.ended(step, outcome)
        if outcome.status == "cached":
            return
        said = f"done in {clock(outcome.seconds)}" if outcome.ok else f"{outcome.status}: {outcome.reason}"
        self._say(f"{step}: {said} ({self._tally.summary()})")

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class RichDisplay(Listener):
    """A live table of step kinds and states, with a bar for each running step."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()

    def begin(self, plan: Plan, lanes: int) -> None:
        self._tally = Tally(plan, lanes)
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}")
        )
        self._tasks: dict[Step, TaskID] = {}
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4)
        self._live.start()

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        if not self._tally.running(step, done, total):
            return
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(str(step), total=None, note="")
        self._bars.update(self._tasks[step], completed=done, total=total or None, note=note)

    def finished(self, step: Step, outcome: Outcome) -> None:
        self._tally.ended(step, outcome)
        if step in self._tasks:
            self._bars.remove_task(self._tasks.pop(step))
        if not outcome.ok and outcome.status != "skipped":
            self._live.console.print(f"{step}: {outcome.status}: {outcome.reason}", markup=False, highlight=False)

    def end(self) -> None:
        self._live.stop()

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        table.add_column("step")
        for state in STATES:
            table.add_column(state, justify="right")
        for kind, states in self._tally.by_kind().items():
            table.add_row(kind, *(str(states[state] or "·") for state in STATES))
        return Group(table, self._bars, self._tally.summary())


def clock(seconds: float) -> str:
    """ "0:42", "12:05", "3:10:00"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
