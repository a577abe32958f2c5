"""A result file is there whole, or as it was before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attribench.errors import StoreError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends without an error.

    Raises StoreError when the folder cannot be written or the disk is full; nothing is left behind then.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            with open(aside, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(aside, path)
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {error.strerror or error}; free some space, or choose another --out"
            ) from error
    finally:
        aside.unlink(missing_ok=True)
