"""Every error that attribench raises on purpose, each saying what to do next.

    AttribenchError                 exit code 1, one line, no traceback
    ├── UsageError                  2: the command line or run.toml asks for something that cannot be
    │   └── UnknownName             2: no plugin of that name (carries the nearest one)
    ├── DatasetError                3: files missing, unreadable or not in the layout
    ├── ModelError                  4: a model that cannot be loaded or lacks what is needed
    ├── MethodError                 5: a plugin raised, or returned what is not Scores
    │   ├── Unavailable             (a row with its reason, not a failure of the run)
    │   └── AccessError             5: a method touched what its `needs` does not name
    ├── StoreError                  6: the artifact store is full, damaged or of another version
    ├── ControlError                7: a random control is off its known value; the numbers cannot be trusted
    └── SubmissionError             8: a submission that is refused

A warning beside it: NameClash (UserWarning), where two plugins have one name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AttribenchError(Exception):
    """An expected failure. Its message is one line that names the value, the place and the next step."""

    exit_code = 1


class UsageError(AttribenchError):
    exit_code = 2


class UnknownName(UsageError):
    """No plugin goes by this name.

    >>> str(UnknownName("method", "montrag", ["montrage", "random"]))
    "no method is called 'montrag'; did you mean 'montrage'? (there are: montrage, random)"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"no {kind} is called {name!r}{hint} (there are: {', '.join(known) or 'none'})")


class DatasetError(AttribenchError):
    exit_code = 3


class ModelError(AttribenchError):
    exit_code = 4


class MethodError(AttribenchError):
    exit_code = 5


class Unavailable(MethodError):
    """This method cannot run here (weights missing, no accelerator …). The run goes on; the row says why."""


class AccessError(MethodError):
    """A method asked for something that its `needs` does not name."""


class StoreError(AttribenchError):
    exit_code = 6


class ControlError(AttribenchError):
    exit_code = 7


class SubmissionError(AttribenchError):
    """A submission that is not what it says, or fits no board."""

    exit_code = 8


class NameClash(UserWarning):
    """A stranger's plugin has the name of a built-in one, which is used."""
