"""A truth as named arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from attribench.errors import StoreError
from attribench.measurement.truth import Retrained, Truth

TABLE = "table/"
OPTIONAL = ("squared_errors", "similarities", "drawn")
KNOWN = {
    Truth: ("query_ids", "train_ids", "relevant", "tables", "retrained"),
    Retrained: ("masks", "seeds", "losses", "full", "own_seed", *OPTIONAL),
}
"""What `arrays_of` writes; a field that is added to the classes must find its place here."""


def arrays_of(truth: Truth) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a truth's file, and what its metadata say of them. Raises StoreError for what has no place there."""
    for value in (truth, truth.retrained):
        unknown = [f.name for f in fields(value) if f.name not in KNOWN[type(value)]] if value is not None else []
        if unknown and getattr(value, unknown[0]) is not None:
            raise StoreError(f"a truth file has no place for {unknown[0]!r}; give it one in attribench/run/truths.py")
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {"query_ids": list(truth.query_ids), "train_ids": list(truth.train_ids)}
    if truth.relevant is not None:
        arrays["relevant"] = truth.relevant.astype(np.uint8)
    for name, table in truth.tables.items():
        arrays[TABLE + name] = np.asarray(table, dtype=np.float64)
    if truth.retrained is not None:
        known = truth.retrained
        arrays |= {
            "masks": known.masks.astype(np.uint8),
            "seeds": np.array(known.seeds, dtype=np.int64),
            "losses": known.losses,
            "full": known.full,
        }
        optional = {name: getattr(known, name) for name in OPTIONAL if getattr(known, name) is not None}
        arrays |= {name: array.astype(np.uint8) if array.dtype == bool else array for name, array in optional.items()}
        about["own_seed"] = known.own_seed
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, about


def truth_from(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Truth:
    """The inverse of `arrays_of`."""
    retrained = None
    if "losses" in arrays:
        retrained = Retrained(
            masks=arrays["masks"].astype(bool),
            seeds=tuple(arrays["seeds"].tolist()),
            losses=arrays["losses"],
            full=arrays["full"],
            own_seed=about["own_seed"],
            squared_errors=arrays.get("squared_errors"),
            similarities=arrays.get("similarities"),
            drawn=arrays["drawn"].astype(bool) if "drawn" in arrays else None,
        )
    return Truth(
        query_ids=tuple(about["query_ids"]),
        train_ids=tuple(about["train_ids"]),
        relevant=arrays["relevant"].astype(bool) if "relevant" in arrays else None,
        tables={name.removeprefix(TABLE): array for name, array in arrays.items() if name.startswith(TABLE)},
        retrained=retrained,
    )
