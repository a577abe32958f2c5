"""Named arrays in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attribench.errors import MethodError


class State(Mapping[str, np.ndarray]):
    """Named arrays on disk, one `.npy` each, whole or absent. Reading maps the file, so that nothing big sits in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, name: str) -> Path:
        if not name.replace("_", "").replace("-", "").replace(".", "").isalnum() or name.startswith("."):
            raise MethodError(f"{name!r} cannot name an array: use letters, digits, '.', '-' and '_'")
        return self._folder / f"{name}.npy"

    def __setitem__(self, name: str, value: Any) -> None:
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        path = self._path(name)
        with path.with_suffix(".part").open("wb") as aside:
            np.save(aside, array, allow_pickle=False)
        path.with_suffix(".part").replace(path)  # a kill leaves the array of before, or none, and never a half

    def __getitem__(self, name: str) -> np.ndarray:
        path = self._path(name)
        if not path.exists():
            raise KeyError(name)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def create(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """A new array on disk to be written block by block; opens the one that is there after a kill."""
        path = self._path(name)
        if path.exists():
            return np.load(path, mmap_mode="r+", allow_pickle=False)
        aside = path.with_suffix(".part")
        np.lib.format.open_memmap(aside, mode="w+", dtype=dtype, shape=shape)
        with aside.open("r+b") as file:  # a full disk is an error here, and not a SIGBUS when a block is written
            os.posix_fallocate(file.fileno(), 0, aside.stat().st_size)
        aside.replace(path)
        return np.load(path, mmap_mode="r+", allow_pickle=False)

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(self._folder.glob("*.npy")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self._folder.glob("*.npy"))
