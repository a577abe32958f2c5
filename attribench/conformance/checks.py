"""A named check, and all of them in the order in which they are shown."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass

from attribench.conformance import declared, repeated, scored
from attribench.conformance.subject import Subject
from attribench.conformance.verdict import Exempt, Failed, NotJudged, Verdict


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
        try:
            status, what = "passed", self.judge(subject)
        except (Failed, Exempt, NotJudged) as ended:
            status, what = ended.status, str(ended)
        except Exception as error:  # a stranger's method raises what it likes
            status, what = "failed", f"it raised {type(error).__name__}: {error}"
        return Verdict(self.name, status, " ".join(what.split()), time.perf_counter() - start)

    def __str__(self) -> str:
        return self.name


CHECKS: tuple[Check, ...] = (
    Check("identity", declared.identity),
    Check("needs", declared.needs),
    Check("shape", scored.shape),
    Check("sign", scored.sign),
    Check("determinism", repeated.determinism),
    Check("learning", repeated.learning),
    Check("batches", repeated.batches),
    Check("permutation", repeated.permutation),
    Check("hyper-parameters", declared.hyper_parameters),
    Check("resume", repeated.resume),
    Check("memory", declared.memory),
    Check("writes", declared.writes),
)
