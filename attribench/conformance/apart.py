"""A fit in a process of its own, so that it can be killed, measured, and watched for what it writes.

Processes are forked from a server that has imported this page and what it imports, and nothing of a run
(`multiprocessing`'s forkserver), so that each begins clean and in milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import cloudpickle
import diffusers  # noqa: F401
import open_clip  # noqa: F401
import torch  # noqa: F401
import transformers  # noqa: F401

from attribench.conformance.trial import Trial
from attribench.data import GenerationCase
from attribench.engine.cluster import clean_sys_path, pack
from attribench.engine.measure import measure
from attribench.engine.work import one_torch_thread

START_SECONDS = 300
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.mkdir": 1, "os.rmdir": 1, "os.remove": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2, "os.truncate": 1,
    "os.chmod": 1, "os.chown": 1,
}  # fmt: skip
"""What else changes a file system, and how many of its arguments are paths."""
NOWHERE = ("/dev/null", "/dev/tty", "/dev/stdout", "/dev/stderr")


@dataclass(frozen=True)
class Report:
    fit_seconds: float
    peak_bytes: int
    """Above what the process held before."""
    written: tuple[str, ...]
    """Paths outside the trial's folder that it wrote, made, renamed or removed."""
    error: str | None


def run_apart(
    trial: Trial, cases: Sequence[GenerationCase] = (), *, kill_after: float | None = None, dies_at: int | None = None
) -> Report | None:
    """Fit in a process of its own, and score these cases if there are any; None if it was killed.

    `kill_after`: seconds after it began (SIGKILL). `dies_at`: as it opens that file for writing (1: the first).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as working_folder:
        process = context.Process(target=perform, args=(pack((trial, cases, dies_at)), working_folder, theirs))
        process.start()
        theirs.close()
        try:
            if not ours.poll(START_SECONDS):
                raise TimeoutError(f"a process did not start within {START_SECONDS} s; try again when the machine is less busy")
            ours.recv()
            if kill_after is not None and not ours.poll(kill_after):
                process.kill()
            return ours.recv()
        except EOFError:
            return None
        finally:
            process.kill()
            process.join()


def perform(packed: bytes, working_folder: str, link: Connection) -> None:
    """In the process: say that it begins, fit and score, send the report."""
    clean_sys_path()
    one_torch_thread()
    sys.dont_write_bytecode = True
    try:
        trial, cases, dies_at = cloudpickle.loads(packed)
    except Exception as raised:
        link.send("begins")
        link.send(Report(0.0, 0, (), f"another process cannot import it: {type(raised).__name__}: {raised}"))
        return
    os.chdir(working_folder)
    watch = _Watch(trial.folder, dies_at)
    sys.addaudithook(watch)
    link.send("begins")
    error, fitted = None, 0.0
    start = time.perf_counter()
    with measure("cpu") as cost:
        watch.armed = True
        try:
            trial.fit()
            fitted = time.perf_counter() - start
            if cases:
                trial.score(cases)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        watch.armed = False
    left = sorted(str(path) for path in Path(working_folder).iterdir())  # native code may write unseen
    link.send(Report(fitted, cost.peak_bytes, tuple(dict.fromkeys([*watch.outside, *left])), error))


class _Watch:
    """An audit hook that notes what is written outside a folder, and may kill the process as it writes inside."""

    def __init__(self, folder: Path, dies_at: int | None) -> None:
        self.armed = False
        self.outside: list[str] = []
        self._folder = os.path.realpath(folder)
        self._dies_at, self._writes = dies_at, 0

    def __call__(self, event: str, arguments: Sequence) -> None:
        if not self.armed:
            return
        if event == "open":
            path, _, flags = arguments
            if flags & WRITING:
                self._wrote(path)
        elif event in CHANGES:
            for path in arguments[: CHANGES[event]]:
                in_vain = {"os.mkdir": self._is_there(path), "os.remove": not self._is_there(path)}
                if not in_vain.get(event, False):
                    self._wrote(path)

    def _is_there(self, path: object) -> bool:
        with suppress(TypeError, ValueError, OSError):
            return os.path.lexists(path)
        return False

    def _wrote(self, path: object) -> None:
        if isinstance(path, int) or path is None:  # a descriptor: it was seen when it was opened
            return
        name = os.fsdecode(path)
        real = os.path.realpath(name)
        if real == self._folder or real.startswith(self._folder + os.sep):
            self._writes += 1
            if self._writes == self._dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
        elif name not in NOWHERE:
            self.outside.append(real)
