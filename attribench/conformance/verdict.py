"""A named check and its verdict."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from attribench.conformance.subject import Subject

Status = Literal["passed", "failed", "exempt", "not judged"]


class Failed(Exception):
    """The method breaks what the check holds it to; the message says how, and what to do."""


class Exempt(Exception):
    """The check does not apply to this method; the message says why."""


class NotJudged(Exception):
    """It cannot be told, since another check fails first; the message names it."""


@dataclass(frozen=True)
class Verdict:
    """What a check found, in one line."""

    check: str
    status: Status
    what: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it speaks for the method, or at least not against it."""
        return self.status in ("passed", "exempt")

    def __str__(self) -> str:
        return f"{self.status:<10}  {self.check:<16}  {self.what}"


@dataclass(frozen=True)
class Check:
    """A check by its name. Calling it gives the verdict on a method; nothing that a method does makes it raise."""

    name: str
    judge: Callable[[Subject], str]
    """Returns what was found, or raises Failed, Exempt or NotJudged."""

    @property
    def about(self) -> str:
        """What it holds a method to."""
        return " ".join((inspect.getdoc(self.judge) or "").split())

    def __call__(self, subject: Subject) -> Verdict:
        start = time.perf_counter()
        status, what = self._judged(subject)
        return Verdict(self.name, status, " ".join(what.split()), time.perf_counter() - start)

    def _judged(self, subject: Subject) -> tuple[Status, str]:
        try:
            return "passed", self.judge(subject)
        except Exempt as exempt:
            return "exempt", str(exempt)
        except NotJudged as unknown:
            return "not judged", str(unknown)
        except Failed as failed:
            return "failed", str(failed)
        except Exception as error:  # a stranger's method raises what it likes
            return "failed", f"it raised {type(error).__name__}: {error}"

    def __str__(self) -> str:
        return self.name
