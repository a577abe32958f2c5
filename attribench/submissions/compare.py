"""Where the numbers of a file are not those that were recomputed: one line for each, by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from attribench.report.record import Row

TOLERANCE = 1e-9
"""Absolute, and relative to the number: what another machine's sums may differ by."""
COMPUTED = ("value", "low", "high", "chance", "ceiling", "rank", "n_queries", "n_studies")
KEYS = ["method", "tuning", "variant", "metric", "study", "query_id", "region", "method_seed"]
NUMBERS = ("value", "chance", "ceiling")


def differences(claimed: Sequence[Row], computed: Sequence[Row]) -> list[str]:
    """Rows that are missing or too many, and numbers that differ; empty if all is the same."""
    said, found = ({(row.label, row.variant, row.metric): row for row in rows} for rows in (claimed, computed))
    lines = [f"the record has a row too many: {metric} of {m} ({v})" for m, v, metric in said if (m, v, metric) not in found]
    for key, row in found.items():
        label, variant, metric = key
        if key not in said:
            lines.append(f"the record lacks {metric} of {label} ({variant})")
            continue
        for name in COMPUTED:
            a, b = getattr(said[key], name), getattr(row, name)
            if (a is None) != (b is None) or (a is not None and not _same(a, b)):
                lines.append(f"{name} of {metric} of {label} ({variant}) is {_text(a)} in the file, recomputed {_text(b)}")
    return lines


def query_differences(claimed: pd.DataFrame, computed: pd.DataFrame) -> list[str]:
    """The same for the values of every query."""
    frames = [frame.sort_values(KEYS, kind="stable").reset_index(drop=True) for frame in (claimed, computed)]
    said, found = frames
    if said.duplicated(KEYS).any():
        return [f"per_query.parquet holds {int(said.duplicated(KEYS).sum())} values twice"]
    if len(said) != len(found) or not (said[KEYS].to_numpy() == found[KEYS].to_numpy()).all():
        return [f"per_query.parquet has {len(said)} values of other queries, methods or metrics than the {len(found)} recomputed"]
    lines = []
    for name in NUMBERS:
        a, b = said[name].to_numpy(dtype=np.float64), found[name].to_numpy(dtype=np.float64)
        for i in np.flatnonzero(~np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)):
            row = found.iloc[i]
            where = f"{row['metric']} of {row['method']} for {row['query_id']} ({row['study']})"
            lines.append(f"{name} of {where} is {a[i]:.9g} in the file, recomputed {b[i]:.9g}")
    return lines


def _same(a: float, b: float) -> bool:
    return bool(np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE))


def _text(number: float | None) -> str:
    return "nothing" if number is None else f"{number:.9g}"
