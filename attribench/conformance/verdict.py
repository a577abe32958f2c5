"""The verdict of a check, and what a check raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "failed", "exempt", "not judged"]


class Failed(Exception):
    """The method breaks what the check holds it to; the message says how, and what to do."""

    status: Status = "failed"


class Exempt(Exception):
    """The check does not apply to this method; the message says why."""

    status: Status = "exempt"


class NotJudged(Exception):
    """It cannot be told, since another check fails first; the message names it."""

    status: Status = "not judged"


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
