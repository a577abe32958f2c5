"""Feature rows on disk, read a block at a time: they are never mapped, so that memory is what a block takes.

Formats: `.npy` [n, d], or one tensor [n, d] of a `.safetensors` file; float16 or float32. Both headers are checked
before anything is read, and neither format can hold code.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from attribench.errors import DatasetError
from attribench.files.text import shown

DTYPES = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
HEADER_BYTES = 100 * 2**20


class Rows(Protocol):
    """[n, d] features of a file, read in blocks; `read` may be called from several threads."""

    @property
    def path(self) -> Path: ...

    @property
    def n(self) -> int: ...

    @property
    def d(self) -> int: ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, [stop - start, d] float16 or float32."""

    def take(self, places: np.ndarray) -> np.ndarray:
        """The rows of these numbers, [len(places), d]; rising numbers are read fastest."""


@dataclass(frozen=True)
class FeatureRows:
    """`Rows` of a `.npy` or `.safetensors` file."""

    path: Path
    n: int
    d: int
    dtype: np.dtype
    offset: int
    """Of the first row, in bytes."""

    @classmethod
    def open(cls, path: Path, tensor: str = "features") -> FeatureRows:
        """A `.npy` or `.safetensors` file; `tensor` is the name in the latter. Raises DatasetError with what is wrong."""
        try:
            with path.open("rb") as file:
                found = _safetensors(path, file, tensor) if path.suffix == ".safetensors" else _npy(path, file)
            size = path.stat().st_size
        except OSError as error:
            raise _fault(path, f"cannot be read ({error.strerror})") from error
        expected = found.offset + found.n * found.d * found.dtype.itemsize
        if size < expected:
            raise _fault(path, f"is truncated: {size:,} bytes, and its header promises {expected:,}")
        if not found.n or not found.d:
            raise _fault(path, f"holds no feature: {found.n} rows of {found.d} numbers")
        return found

    def read(self, start: int, stop: int) -> np.ndarray:
        """In the file's own type, as `take`. Both raise DatasetError if the file got shorter."""
        count = (stop - start) * self.d
        block = np.fromfile(self.path, self.dtype, count, offset=self.offset + start * self.d * self.dtype.itemsize)
        if block.size != count:
            raise _fault(self.path, f"ends within row {start + block.size // self.d}")
        return block.reshape(-1, self.d)

    def take(self, places: np.ndarray) -> np.ndarray:
        width = self.d * self.dtype.itemsize
        with self.path.open("rb", buffering=0) as file:
            data = b"".join(os.pread(file.fileno(), width, self.offset + int(place) * width) for place in places)
        if len(data) != width * len(places):
            raise _fault(self.path, "got shorter while it was read")
        return np.frombuffer(data, self.dtype).reshape(-1, self.d)


def _npy(path: Path, file) -> FeatureRows:
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read_header(file)
    except (ValueError, KeyError) as error:
        raise _fault(path, f"is no array in npy format ({shown(str(error))})") from error
    if len(shape) != 2 or dtype not in DTYPES.values() or (fortran and min(shape) > 1):
        order = "Fortran" if fortran else "C"
        raise _fault(path, f"holds {dtype} of shape {shape} in {order} order, not float16 or float32 [n, d] in C order")
    return FeatureRows(path, *shape, dtype, file.tell())


def _safetensors(path: Path, file, tensor: str) -> FeatureRows:
    length = int.from_bytes(file.read(8), "little")
    try:
        header = json.loads(file.read(length)) if length <= HEADER_BYTES else None
        entry = header[tensor]
        dtype, (n, d), (start, stop) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _fault(path, f"has no float16 or float32 tensor {shown(tensor)!r} [n, d] ({shown(str(error))[:80]})") from error
    whole = all(isinstance(number, int) and number >= 0 for number in (n, d, start, stop))
    if not whole or stop - start != n * d * dtype.itemsize:
        raise _fault(path, f"has a tensor {shown(tensor)!r} whose shape does not fit its bytes")
    return FeatureRows(path, n, d, dtype, 8 + length + start)


def _fault(path: Path, what: str) -> DatasetError:
    return DatasetError(f"{shown(str(path))}: {what}; make the file again")
