"""`report.html`: a finished run as one page that explains itself, with everything in the file.

What was run and on what, the tables with intervals, the plots, for some queries what each method found, the published
numbers under a heading of their own, costs, and how to do it again. Names and prompts come from strangers: the template escapes
all of them, and the page loads nothing and runs no script.
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from PIL import Image

from attribench import __version__
from attribench.files.text import shown
from attribench.files.whole import whole_file
from attribench.report.figures.top_five import FIVE, Shown
from attribench.report.published import by_variant, published
from attribench.report.record import Row
from attribench.report.table import cost_columns
from attribench.report.words import EDITIONS, TUNING, by_rank, decimal, published_what, warning_of

if TYPE_CHECKING:
    from attribench.data import Dataset

REPORT = "report.html"
PICTURE, THUMBNAIL = 320, 116
"""Largest side in pixels of a picture that is embedded."""
BAR = 110
"""Width in pixels of the bar that shows an interval."""


def write_report(
    folder: Path,
    rows: Sequence[Row],
    *,
    dataset: Dataset,
    queries: Sequence[Shown],
    plots: Mapping[str, str],
    preset: Mapping[str, Any],
    environment: Mapping[str, Any],
    failure: str | None = None,
) -> None:
    """Write the page to the run folder, which holds run.toml and the `plots` (file -> what it shows).

    Raises StoreError if it cannot be written.
    """
    environment_ = jinja2.Environment(
        loader=jinja2.PackageLoader("attribench.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment_.get_template("report.html").render(
        version=__version__,
        finished=time.strftime("%d %B %Y, %H:%M UTC", time.gmtime()),
        failure=failure and shown(failure),
        dataset={"citation": dataset.citation, "licence": dataset.licence},
        queries=[_query(item) for item in queries],
        marks=next((item.marks for item in queries if item.marks), ""),
        plots=[
            {"source": _data("png", (folder / file).read_bytes()), "what": what}
            for file, what in plots.items()
            if (folder / file).is_file()
        ],
        command=f"attribench run {folder / 'run.toml'}",
        run_toml=(folder / "run.toml").read_text(),
        preset=[(name, json.dumps(value) if isinstance(value, (dict, list)) else value) for name, value in preset.items()],
        environment=list(environment.items()),
        **_of_rows(rows, dataset),
    )
    with whole_file(folder / REPORT) as path:
        path.write_text(page, encoding="utf-8")


def _of_rows(rows: Sequence[Row], dataset: Dataset) -> dict[str, Any]:
    """All that the template says of the record."""
    if not rows:
        title, sentence, edition = f"{dataset.name}: no method was run", "", EDITIONS[dataset.edition]
        empty = {"variants": [], "reasons": [], "published": None, "methods": [], "tuning": ""}
        return {"title": title, "sentence": sentence, "edition": edition} | empty
    first = rows[0]
    n_studies = max(row.n_studies for row in rows)
    names = list(dict.fromkeys(row.variant for row in rows))
    labels = {row.label: row for row in rows}
    n_controls, n_all = (len({row.method for row in rows if row.control or which}) for which in (False, True))
    return {
        "title": f"{first.dataset}, {first.protocol}",
        "edition": EDITIONS[first.edition],
        "sentence": (
            f"{n_all - n_controls} {'method' if n_all - n_controls == 1 else 'methods'} beside {n_controls} controls, "
            f"{n_studies} {'study' if n_studies == 1 else 'studies'}, {first.split} split, seed {first.seed}, on {first.device}. "
            f"{warning_of(rows)}"
        ),
        "tuning": TUNING if any(row.tuning for row in rows) else "",
        "variants": [_variant(name, [row for row in rows if row.variant == name]) for name in names],
        "reasons": list(dict.fromkeys(f"{row.label}: {row.status}, {row.reason}" for row in rows if row.reason)),
        "published": _published(first),
        "methods": [
            {"label": label, "plugin": row.plugin, "params": sorted(row.params.items())} for label, row in labels.items()
        ],
    }


def _variant(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    metrics = list(dict.fromkeys(row.metric for row in rows))
    cells = {(row.label, row.metric): row for row in rows}
    costs = cost_columns(rows)
    scales = {metric: _scale([row for row in rows if row.metric == metric]) for metric in metrics}
    by_label = {row.label: row for row in rows}
    ordered = sorted(by_rank(rows), key=lambda label: by_label[label].control)  # stable: controls after the methods
    return {
        "name": name,
        "n_queries": max(row.n_queries for row in rows),
        "n_studies": max(row.n_studies for row in rows),
        "metrics": metrics,
        "costs": [" ".join(column.header.split()) for column in costs],
        "lines": [
            {
                "label": label,
                "control": by_label[label].control,
                "cells": [(row := cells.get((label, metric)), row and _bar(row, scales[metric])) for metric in metrics],
                "costs": [column.cells[label].plain for column in costs],
            }
            for label in ordered
        ],
        "known": [line for known in ("chance", "ceiling") if (line := _known(known, metrics, rows))],
    }


def _bar(row: Row, scale: tuple[float, float]) -> dict[str, float | None] | None:
    """Where its parts are, in pixels from the left; None without an interval."""
    if row.low is None:
        return None
    low, high = scale
    numbers = {which: getattr(row, which) for which in ("low", "value", "high", "chance")}
    return {
        which: None if n is None else round(4 + (BAR - 8) * ((n - low) / (high - low) if high > low else 0.5), 1)
        for which, n in numbers.items()
    }


def _scale(rows: Sequence[Row]) -> tuple[float, float]:
    """The smallest and largest number of a column: its bars share them."""
    numbers = [n for row in rows for n in (row.low, row.value, row.high, row.chance) if n is not None]
    return (min(numbers), max(numbers)) if numbers else (0.0, 1.0)


def _known(which: str, metrics: Sequence[str], rows: Sequence[Row]) -> dict[str, Any] | None:
    values = {row.metric: getattr(row, which) for row in rows if getattr(row, which) is not None}
    if not values:
        return None
    name = {"chance": "chance", "ceiling": "best possible"}[which]
    return {"name": name, "numbers": [decimal(values[metric]) if metric in values else "" for metric in metrics]}


def _published(row: Row) -> dict[str, Any] | None:
    numbers = published(row.dataset, row.protocol, n_concepts=row.n_concepts)
    if numbers.empty:
        return None
    return {
        "sources": ", ".join(numbers["source"].unique()),
        "what": published_what(row),
        "tables": by_variant(numbers, lambda n: f"{n.value:g}{' †' if n.flag else ''}"),
        "flags": [flag for flag in numbers["flag"].unique() if flag],
    }


def _query(item: Shown) -> dict[str, Any]:
    methods = [
        {"label": label, "images": [{"source": _embedded(image, THUMBNAIL), "own": own} for image, own in images[:FIVE]]}
        for label, images in item.top.items()
    ]
    return {"picture": _embedded(item.picture, PICTURE), "prompt": shown(item.prompt), "title": item.title, "methods": methods}


def _embedded(picture: Image.Image, side: int) -> str:
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, format="WEBP", quality=85, method=4)
    return _data("webp", stream.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
