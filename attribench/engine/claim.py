"""Who may write where: one process at a time in a scratch folder, and a private folder for the others.

The scratch folder of an artifact outlives a kill, so that a long training goes on at its last checkpoint.
Two writers would spoil it; so its owner holds a file lock, which the kernel frees when the process dies.
Whoever finds it taken works in `partial/`, in a folder whose name says which process it belongs to, so
that a later run can tell what is left over from what is in use.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil


class Claim:
    """The sole right to write `folder`, until `release`. `resumed` if it holds what a killed run left."""

    def __init__(self, key: str, scratch: Path, partial: Path) -> None:
        self.key = key
        self._lock_path = scratch.with_name(f"{key}.lock")
        self._lock = _try_lock(self._lock_path)
        self.folder = scratch if self._lock is not None else partial / owned_name(key)
        self.resumed = self.folder.is_dir() and any(self.folder.iterdir())
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError:
            self.release()
            raise

    def discard(self) -> None:
        """Drop what was written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self) -> None:
        """Let others write. What is in a scratch folder stays for the next run; a private one goes."""
        if self._lock is None:
            self.discard()
            return
        with suppress(OSError):  # holds something, or became the artifact
            self.folder.rmdir()
        self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None


def _try_lock(path: Path) -> int | None:
    """An open descriptor that holds the lock, or None if another process has it or files cannot be locked here."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        # The owner before us unlinks its file on release: a lock on a file that no longer has
        # this name excludes nobody, so take the one that has.
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)


def sweep(partial: Path, scratch: Path) -> None:
    """Remove what dead processes left: their private folders, and locks of what became an artifact."""
    for folder in partial.iterdir():
        if _owner_is_gone(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
    for path in scratch.glob("*.lock"):
        if not path.with_suffix("").exists() and (descriptor := _try_lock(path)) is not None:
            path.unlink()
            os.close(descriptor)


def _owner_is_gone(name: str) -> bool:
    """Whether a folder in `partial/` belonged to a process of this machine that has ended."""
    try:
        _, host, pid, born, _ = name.split("-")
        owner = (int(pid), int(born))
    except ValueError:
        return False
    if host != _host():
        return False
    try:
        # A second process may get the number of a dead one, but not its birth; clocks may be nudged.
        return abs(psutil.Process(owner[0]).create_time() - owner[1]) > 2
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def owned_name(key: str) -> str:
    """A name in `partial/` that says whose it is, so that a later run sweeps it if this process is killed."""
    born = int(psutil.Process().create_time())
    return f"{key}-{_host()}-{os.getpid()}-{born}-{uuid.uuid4().hex[:8]}"


@cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
