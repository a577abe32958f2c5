"""Listeners: how a run is shown. Rich's live display on a terminal, plain lines elsewhere.

A listener hears `begin`, then `progress` and `finished` for steps in any order, then `end`; one call at a
time, from any thread.
"""

from __future__ import annotations

from attribench.engine.plan import Plan
from attribench.engine.steps import Step
from attribench.engine.work import Outcome


class Listener:
    """Hears of a run and shows nothing. Base of the others."""

    def begin(self, plan: Plan, lanes: int) -> None:
        """The run starts: what is to do, and how many steps can run at once."""

    def progress(self, step: Step, done: int, total: int, note: str) -> None:
        """A step is at `done` of `total`. The first call, with a total of 0, says that it was started."""

    def finished(self, step: Step, outcome: Outcome) -> None:
        """A step ended, or was found in the store."""

    def end(self) -> None:
        """The run is over, or was cut short."""
