"""A truth as named arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from attribench.errors import StoreError
from attribench.measurement.truth import Retrained, Truth

TABLE = "table/"
BOOLEAN = ("relevant", "masks", "drawn")
"""Bytes of 0 and 1 in the file."""
ARRAYS = ("masks", "losses", "full")
OPTIONAL = ("squared_errors", "similarities", "drawn")
KNOWN = {
    Truth: ("query_ids", "train_ids", "relevant", "concepts", "tables", "retrained"),
    Retrained: ("seeds", "own_seed", *ARRAYS, *OPTIONAL),
}
"""What `arrays_of` writes; a field that is added to the classes must find its place here. `concepts` is not written: the plan
says it, to whoever reads the file."""


def arrays_of(truth: Truth) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a truth's file, and what its metadata say of them. Raises StoreError for what has no place there."""
    for value in (truth, truth.retrained):
        unknown = [f.name for f in fields(value) if f.name not in KNOWN[type(value)]] if value is not None else []
        if unknown and getattr(value, unknown[0]) is not None:
            raise StoreError(f"a truth file has no place for {unknown[0]!r}; give it one in attribench/measurement/arrays.py")
    about: dict[str, Any] = {"query_ids": list(truth.query_ids), "train_ids": list(truth.train_ids)}
    arrays = {"relevant": truth.relevant}
    arrays |= {TABLE + name: np.asarray(table, dtype=np.float64) for name, table in truth.tables.items()}
    if (known := truth.retrained) is not None:
        arrays |= {name: getattr(known, name) for name in (*ARRAYS, *OPTIONAL)}
        arrays["seeds"] = np.array(known.seeds, dtype=np.int64)
        about["own_seed"] = known.own_seed
    stored = {name: np.uint8 if name in BOOLEAN else None for name, array in arrays.items() if array is not None}
    return {name: np.ascontiguousarray(arrays[name], dtype=dtype) for name, dtype in stored.items()}, about


def truth_from(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Truth:
    """The inverse of `arrays_of`."""
    arrays = {name: array.astype(bool) if name in BOOLEAN else array for name, array in arrays.items()}
    retrained = None
    if "losses" in arrays:
        retrained = Retrained(
            seeds=tuple(arrays["seeds"].tolist()),
            own_seed=about["own_seed"],
            **dict[str, Any]({name: arrays[name] for name in ARRAYS} | {name: arrays.get(name) for name in OPTIONAL}),
        )
    return Truth(
        query_ids=tuple(about["query_ids"]),
        train_ids=tuple(about["train_ids"]),
        relevant=arrays.get("relevant"),
        tables={name.removeprefix(TABLE): array for name, array in arrays.items() if name.startswith(TABLE)},
        retrained=retrained,
    )
