"""Reading a stranger's files: below one root, regular, and never more bytes than asked for.

A data set is downloaded from somewhere, so its paths and sizes are not to be trusted. Everything that reads
one goes through `read_bytes`, and a file that cannot be had becomes one `Problem`: to be raised (FileFault)
when the file is needed, to be listed by `Dataset.verify`.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from attribench.errors import DatasetError
from attribench.files.text import shown

RESTORE = "restore the file from where the data set came from"


@dataclass(frozen=True)
class Problem:
    """One finding of `Dataset.verify`: which file, what is wrong, what to do."""

    file: str
    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.fault}; {self.remedy}"


class FileFault(DatasetError):
    """One file that cannot be used. `problem` says which, what is wrong and what to do."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


def fault(file: str, what: str, remedy: str = RESTORE) -> FileFault:
    """A FileFault in one line, whatever characters the file's name holds."""
    return FileFault(Problem(shown(file), what, remedy))


def confined(root: Path, relative: str) -> Path:
    """The path of `relative` below `root`, symlinks followed. Raises FileFault if it leads out of the root."""
    pure = PurePosixPath(relative)
    try:
        path = (root / pure).resolve()
        inside = path.is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, a loop of symlinks
        raise fault(relative, f"is not a usable path ({error})", "rename or remove it") from error
    if pure.is_absolute() or ".." in pure.parts or not inside:
        raise fault(
            relative, f"leads out of the data root {shown(str(root))}", "put the file itself below the root, with a relative path"
        )
    return path


def file_size(root: Path, relative: str) -> int:
    """Bytes of a regular file below `root`. Raises FileFault if there is none."""
    try:
        status = confined(root, relative).stat()
    except FileNotFoundError as error:
        raise fault(relative, "is missing") from error
    except OSError as error:
        raise fault(relative, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error
    if not stat.S_ISREG(status.st_mode):
        raise fault(relative, "is not a regular file", "put the file itself there")
    return status.st_size


def read_bytes(root: Path, relative: str, limit: int) -> bytes:
    """The content of a regular file below `root`, of at most `limit` bytes. Raises FileFault otherwise."""
    size = file_size(root, relative)
    if size <= limit:
        try:
            with confined(root, relative).open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise fault(relative, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error
        size = len(data)
    if size > limit:
        raise fault(relative, f"has {size:,} bytes, more than the {limit:,} allowed", "replace it with a smaller one")
    return data


def read_text(root: Path, relative: str, limit: int) -> str:
    """The UTF-8 text of a file below `root`, with or without a byte order mark. Raises FileFault otherwise."""
    try:
        return read_bytes(root, relative, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(relative, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8") from error
