"""Features of training images or queries on disk, written block by block, read without loading them all.

In a `State`, under a name:

    <name>            [versions, n, k] float32, float16, or the bits of bfloat16 as uint16
    <name>.written    [1] int64: how many rows are there, counted version after version
    <name>.identity   the UTF-8 bytes of what the features are of: model, gradients, projection

The count goes up when the rows it counts are on disk, so that a kill loses the block in the making and nothing else.
No file stays mapped between two calls: pages that were read or written would count as this process's memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from attribench.errors import MethodError
from attribench.files.state import State

StoreDtype = Literal["float32", "float16", "bfloat16"]

COARSE = 0.01
"""A row whose rounding error is more than this part of its norm is refused; bfloat16 stays below 0.004."""


class FeatureRows:
    """The rows of a whole store as a matrix [versions · n, k] of which slices are read as float32 tensors.

    Raises MethodError for a store that is absent, half-written or of other features.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], name: str, identity: str) -> None:
        if not _are_there(arrays, name, identity):
            raise MethodError(f"there are no features {name!r}; fit the method before it scores")
        self._arrays, self._name, self.shape = arrays, name, _flat(arrays[name]).shape
        written, rows = int(arrays[f"{name}.written"][0]), self.shape[0]
        if written < rows:
            raise MethodError(
                f"features {name!r} are half-written: {written} of {rows} rows are there; run the fit again, it goes on there"
            )

    def __getitem__(self, rows: slice) -> Tensor:
        stored = _flat(self._arrays[self._name])[rows]
        if stored.dtype == np.uint16:  # a float32 whose lower half is 0
            return torch.from_numpy((stored.astype(np.uint32) << 16).view(np.float32))
        return torch.from_numpy(np.array(stored, dtype=np.float32))


class FeatureWriter:
    """Writes the rows of a store in order, version after version, and goes on after a kill.

    Constructing it makes the store, or opens the one that is there. Raises MethodError if that one holds other
    features, or has other sizes.
    """

    def __init__(
        self, state: State, name: str, ids: Sequence[str], k: int, *,
        identity: str, versions: int = 1, dtype: StoreDtype = "float32",
    ) -> None:  # fmt: skip
        if dtype not in get_args(StoreDtype):
            raise MethodError(f"features cannot be kept as {dtype!r}; use one of {', '.join(get_args(StoreDtype))}")
        if not (ids and k > 0 and versions > 0 and identity):
            raise MethodError(f"features {name!r} need rows, columns and an identity, not {versions} x {len(ids)} x {k}")
        self._state, self._name, self._ids, self._k, self._dtype = state, name, tuple(ids), k, dtype
        self.rows = versions * len(ids)
        there = _are_there(state, name, identity)
        self._layout = (versions, len(ids), k), "uint16" if dtype == "bfloat16" else dtype
        data = state.create(name, *self._layout)
        if (data.shape, data.dtype) != self._layout:
            raise MethodError(
                f"features {name!r} are kept as {data.dtype} {list(data.shape)}, not as {self._layout[1]} "
                f"{list(self._layout[0])}; fit again in a new folder, or ask for what they were made with"
            )
        if not there:  # the identity comes last: without it nothing counts as written
            state[f"{name}.written"] = np.zeros(1, dtype=np.int64)
            state[f"{name}.identity"] = np.frombuffer(identity.encode(), dtype=np.uint8)

    @property
    def written(self) -> int:
        """Rows that are there; the next one is (version, image) = divmod(written, n)."""
        return int(self._state[f"{self._name}.written"][0])

    def append(self, values: Tensor) -> None:
        """Write the next rows, [b, k]. Raises MethodError for rows that are NaN, infinite or too much for the dtype."""
        start = self.written
        stop = start + len(values)
        if values.dim() != 2 or values.shape[1] != self._k or stop > self.rows:
            raise MethodError(
                f"features {self._name!r} have {self.rows - start} rows of {self._k} left to write, not {list(values.shape)}"
            )
        stored = self._encoded(values.detach().to("cpu", torch.float32), start)
        data = self._state.create(self._name, *self._layout)  # opens the one that is there
        _flat(data)[start:stop] = stored
        data.flush()
        self._count(stop)

    def _count(self, rows: int) -> None:
        counter = self._state.create(f"{self._name}.written", (1,), "int64")
        counter[0] = rows
        counter.flush()

    def _encoded(self, values: Tensor, start: int) -> np.ndarray:
        self._refuse(~values.isfinite().all(dim=1), start, "NaN or infinite; check the model's loss on these images")
        if self._dtype == "float32":
            return values.numpy()
        rounded = values.to(getattr(torch, self._dtype))
        advice = "keep them as bfloat16 or float32" if self._dtype == "float16" else "keep them as float32"
        largest = torch.finfo(rounded.dtype).max
        self._refuse(~rounded.isfinite().all(dim=1), start, f"beyond {largest:.6g}, the largest {self._dtype}; {advice}")
        error = torch.linalg.vector_norm(rounded.float() - values, dim=1)
        lost = error > COARSE * torch.linalg.vector_norm(values, dim=1)
        self._refuse(lost, start, f"too small for {self._dtype} and would be rounded away; {advice}")
        return rounded.view(torch.uint16).numpy() if self._dtype == "bfloat16" else rounded.numpy()

    def _refuse(self, bad: Tensor, start: int, why: str) -> None:
        if bad.any():
            ids = [self._ids[(start + row) % len(self._ids)] for row in bad.nonzero()[:, 0].tolist()]
            named = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
            raise MethodError(f"features of {named} are {why}")


def _flat(data: np.ndarray) -> np.ndarray:
    """[versions, n, k] as [versions · n, k], the same memory."""
    return data.reshape(-1, data.shape[2])


def _are_there(arrays: Mapping[str, np.ndarray], name: str, identity: str) -> bool:
    """Whether there are features; none if a kill came while the store was made. Raises MethodError if they are others."""
    try:
        found = bytes(arrays[f"{name}.identity"]).decode()
    except (KeyError, ValueError, EOFError):  # absent, cut off, empty
        return False
    if found != identity:
        raise MethodError(
            f"features {name!r} are of another model or projection ({found}, not {identity}); "
            "fit again in a new folder, or ask for what they were made with"
        )
    return True
