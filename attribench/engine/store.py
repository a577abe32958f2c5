"""The artifact store: every result of a run, in a folder of its own, whole or absent.

    root/store.json                       the version of this layout
    root/artifacts/ab/abcd…/              one artifact: manifest.json and files in open formats
    root/scratch/abcd…/                   one being made; it survives a kill, and becomes the artifact
    root/scratch/abcd….lock               held by the process that writes there
    root/partial/abcd…-host-pid-born-…/   private to one process (the scratch folder is taken); swept after its death
    root/failures/abcd….json              why a step failed last; never read as a result

An artifact appears by one rename, after each of its files was fsynced and hashed. So a reader in another
process, or after a kill or a power cut, sees all of it or nothing. Several runs may share a store: the
first to finish an artifact wins and the others drop their copy.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attribench.engine.claim import Claim, sweep
from attribench.errors import StoreError

FORMAT = 1
"""Version of the layout above. A store of another version is refused, never guessed at."""

MANIFEST = "manifest.json"


class DiskFull(StoreError):
    """No room left for the store. Ends the run, since every further step would fail the same way."""


class ArtifactStore:
    """Artifacts by key below `root`. Opening one makes the folders and sweeps what dead processes left.

    Raises StoreError for a store of another version or a root that cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        try:
            with self.room_checked():
                for folder in ("artifacts", "scratch", "partial", "failures"):
                    (self.root / folder).mkdir(parents=True, exist_ok=True)
                self._check_format()
        except OSError as error:
            raise StoreError(f"the store {self.root} cannot be used: {error.strerror}; choose another --store") from error
        sweep(self.root / "partial", self.root / "scratch")

    def _check_format(self) -> None:
        path = self.root / "store.json"
        if not path.exists():
            write_text_whole(path, json.dumps({"format": FORMAT}))
        try:
            found = json.loads(path.read_text())["format"]
        except (ValueError, KeyError, TypeError):
            found = "unreadable"
        if found != FORMAT:
            raise StoreError(
                f"the store {self.root} has format {found}, this attribench reads format {FORMAT}; choose another --store"
            )

    # ------------------------------------------------------------------------------------- reading

    def has(self, key: str) -> bool:
        return (self._folder(key) / MANIFEST).is_file()

    def path(self, key: str) -> Path:
        """The artifact's folder. Raises StoreError if it is absent, or a file is missing or cut short."""
        self.manifest(key)
        return self._folder(key)

    def manifest(self, key: str) -> dict[str, Any]:
        """What the artifact is made of, from and by. Raises StoreError as `path` does."""
        folder = self._folder(key)
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            sizes = {name: file["bytes"] for name, file in manifest["files"].items()}
        except FileNotFoundError:
            raise StoreError(f"the store {self.root} has no artifact {key}; run the same command again") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _damaged(folder, f"its {MANIFEST} cannot be read") from None
        for name, size in sizes.items():
            found = (folder / name).stat().st_size if (folder / name).is_file() else None
            if found != size:
                seen = "is missing" if found is None else f"has {found} bytes"
                raise _damaged(folder, f"{name} {seen}, expected {size}")
        return manifest

    def verify(self, key: str) -> None:
        """Hash every file again. Raises StoreError for the first that is not what was written."""
        for name, file in self.manifest(key)["files"].items():
            with open(self._folder(key) / name, "rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != file["sha256"]:
                    raise _damaged(self._folder(key), f"the content of {name} has changed")

    def manifests(self) -> Iterator[dict[str, Any]]:
        """The manifests of all artifacts; damaged ones are passed over."""
        for path in sorted((self.root / "artifacts").glob(f"*/*/{MANIFEST}")):
            with suppress(StoreError):
                yield self.manifest(path.parent.name)

    # ------------------------------------------------------------------------------------- writing

    def scratch(self, key: str) -> Path:
        """Where the artifact is being made. Write there through `claim`."""
        return self.root / "scratch" / key

    def claim(self, key: str) -> Claim:
        """The sole right to write this artifact's scratch folder, or a private one if somebody has it."""
        return Claim(key, self.scratch(key), self.root / "partial")

    def commit(self, claim: Claim, manifest: Mapping[str, Any]) -> None:
        """Make the claimed folder the artifact `claim.key`, with what `manifest` says of it.

        Raises StoreError for files that cannot be part of an artifact, DiskFull if there is no room.
        """
        target = self._folder(claim.key)
        (claim.folder / MANIFEST).unlink(missing_ok=True)
        entry = {
            "key": claim.key,
            **manifest,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "files": _seal(claim.folder),
        }
        # Not aside: the rename below makes it whole, and a kill must leave no further file in this folder.
        _write_synced(claim.folder / MANIFEST, json.dumps(entry, indent=1, sort_keys=True))
        target.parent.mkdir(exist_ok=True)
        _fsync_folder(target.parent.parent)
        try:
            claim.folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if not self.has(claim.key):
                raise _damaged(target, f"it has no {MANIFEST}") from error
            claim.discard()
        _fsync_folder(target.parent)
        self.failure_path(claim.key).unlink(missing_ok=True)

    @contextmanager
    def room_checked(self) -> Iterator[None]:
        """Turns any error whose cause is a full disk into DiskFull, with what is free and what to do."""
        try:
            yield
        except Exception as error:
            if self._is_full(error):
                raise DiskFull(
                    f"no room left for the store {self.root} ({self._free():,} bytes free); free some, or choose another "
                    "--store, and run the same command again: finished steps are kept"
                ) from error
            raise

    def _is_full(self, error: BaseException | None) -> bool:
        """Whether a full disk caused the error. numpy and torch lose the errno: they are known by the free space."""
        while error is not None:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                return True
            if "No space left on device" in str(error):
                return True
            if isinstance(error, (OSError, RuntimeError)) and self._free() < 4096:
                return True
            error = error.__cause__ or error.__context__
        return False

    def _free(self) -> int:
        return shutil.disk_usage(self.root).free

    # ------------------------------------------------------------------------------------ failures

    def record_failure(self, key: str, step: str, reason: str, traceback: str) -> None:
        """Keep why a step failed, for whoever wants to know. Says nothing about the next run."""
        entry = {"key": key, "step": step, "reason": reason, "traceback": traceback}
        with suppress(OSError):  # a disk too full for this note has already been reported
            write_text_whole(self.failure_path(key), json.dumps(entry, indent=1))

    def failure_path(self, key: str) -> Path:
        """Where the last failure of this artifact's step is recorded, until it succeeds."""
        return self.root / "failures" / f"{key}.json"

    def _folder(self, key: str) -> Path:
        return self.root / "artifacts" / key[:2] / key


def write_text_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader sees all of it or the one before."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        _write_synced(aside, text)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _write_synced(path: Path, text: str) -> None:
    with open(path, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _seal(folder: Path) -> dict[str, dict[str, Any]]:
    """Fsync every file and folder below; sha256 and size of each file by its posix path."""
    files = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_symlink():
                raise StoreError(f"{path} is a link; a step must write plain files only")
            with open(path, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                os.fsync(stream.fileno())
            files[path.relative_to(folder).as_posix()] = {"sha256": digest, "bytes": path.stat().st_size}
        _fsync_folder(Path(parent))
    return dict(sorted(files.items()))


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(folder: Path, fault: str) -> StoreError:
    return StoreError(f"the artifact {folder} is damaged: {fault}; delete that folder and run the same command again")
