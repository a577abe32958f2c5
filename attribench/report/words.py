"""How tables, pages and plots word a record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

from attribench.files.text import shown
from attribench.measurement import Metric
from attribench.report.record import Row, Standing, metric_class
from attribench.statistics.intervals import caution

EDITIONS = {
    "mini": "mini edition (64×64 artwork and rendered objects, tiny model): not comparable with the papers",
    "paper": "paper edition",
}
TUNING = (
    "tuned: hyper-parameters chosen on the dev queries, once for all variants; default: the author's; oracle: chosen on "
    "the test queries themselves, no result but what tuning could have reached. Only tuned rows are ranked."
)
NOTHING = "–"
NO_VALUE = "no method has a value"


def what_was_run(row: Row) -> str:
    """Data set, edition and protocol, as the title of a picture has them."""
    edition = "mini edition, not comparable with the papers" if row.edition == "mini" else "paper edition"
    return f"{shown(row.dataset)} ({edition}), {shown(row.protocol)}"


def warning_of(rows: Sequence[Row]) -> str:
    """What to know of intervals over a few studies, unless subsets drawn within the studies widen all of them; or nothing."""
    metrics = {row.metric for row in rows if row.low is not None}
    alone = any(metric_class(metric).n_subsets is Metric.n_subsets for metric in metrics)
    return caution(max(row.n_studies for row in rows)) if alone else ""


def by_rank(rows: Sequence[Row]) -> list[str]:
    """The methods' labels of one variant: by the first metric's rank, then value; those without one last.

    A tuned method's default and oracle stand directly below it.
    """
    headline = rows[0].metric
    first = [row for row in rows if row.metric == headline]
    first.sort(key=lambda row: (row.rank or math.inf, math.inf if row.value is None else -row.value, row.label))
    ordered = []
    for row in first:
        if row.competes:
            below = {other.tuning: other for other in first if other.method == row.method and not other.competes}
            ordered += [row, *(below[standing] for standing in get_args(Standing) if standing in below)]
    return list(dict.fromkeys(row.label for row in [*ordered, *rows]))


def decimal(number: float) -> str:
    """0.1234 -> "0.123".

    A value on the edge (-0.5125, a mean of 80 tenths) is written alike by all machines, whichever order they add in.
    """
    return f"{round(number, 9):.3f}"


def duration(seconds: float) -> str:
    """0.012 -> "12 ms", 5.2 -> "5.2 s", 600 -> "10 min", 7200 -> "2.0 h"."""
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.0f} ms" if milliseconds >= 9.95 or milliseconds == 0 else f"{milliseconds:.1f} ms"
    if seconds < 119.5:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7170 else f"{seconds / 3600:.1f} h"


def size(n_bytes: float) -> str:
    """1500 -> "1.5 kB"; a kilobyte is 1000 bytes."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 99.5 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"


def published_what(row: Row) -> str:
    """What sets published numbers apart from those of this record."""
    return "other data and model" if row.edition == "mini" else "the papers' own models and pictures"
