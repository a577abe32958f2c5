"""The picture of the within-concept protocol: MONTRAGE's Figure 5, both rows, and supplement Figure 1 over several concepts.

    top       for each η the share of studies whose accuracy is above it: a bar per method with its 95 % interval
    bottom    the same share for every η from ½ to 1, and the area below it

Grey behind both: where a method lies that guesses once a prompt (`share_curve.null_of_prompts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from attribench.files.text import shown
from attribench.measurement.share_curve import ETAS, Null, share_above
from attribench.report.figures.drawing import (
    COLOURS,
    CONTROL,
    INK,
    NULL,
    missing_glyphs_as_boxes,
    save,
    style_of,
    wrapped,
    write_at,
)
from attribench.report.record import Row
from attribench.report.words import by_rank

DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
"""Told apart by colour first; by dashes from the eleventh method on, and among the controls."""

# All lengths are inches.
LABELS, PANEL, GAP, BAR, HEAD, BETWEEN, CURVE, FOOT, MARGIN = 1.9, 2.05, 0.2, 0.31, 1.4, 0.85, 3.3, 0.65, 0.2
CURVE_WIDTH, LEGEND_WIDTH, LINE = 5.9, 2.3, 0.175


@dataclass(frozen=True)
class _Method:
    """What is drawn of one method."""

    label: str
    colour: str
    dashes: object
    control: bool
    bars: Mapping[str, Row]
    """By metric."""
    curve: np.ndarray
    """[n_eta] share above η, the mean over the method's seeds."""


@missing_glyphs_as_boxes()
def share_plot(path: Path, rows: Sequence[Row], per_query: pd.DataFrame, null: Null) -> None:
    """Write the PNG from a run's rows, its values per query and the null over the same studies.

    Tuned methods are drawn as tuned; methods without a value are left out. Raises StoreError if it cannot be written.
    """
    methods = _methods(rows, per_query)
    metrics = [name for name in dict.fromkeys(row.metric for row in rows) if name.startswith("share_above@")]
    bars = max(len(methods), 1) * BAR + 0.2
    entries = [wrapped(method.label, LEGEND_WIDTH, 2, size=8.5) for method in methods]
    curve = max(CURVE, LINE * (3 + sum(map(len, entries))))
    width = max(LABELS + len(metrics) * (PANEL + GAP), 0.75 + CURVE_WIDTH + 4.1) + MARGIN
    height = HEAD + bars + BETWEEN + curve + FOOT
    figure = Figure(figsize=(width, height), facecolor="white")
    for number, line in enumerate(wrapped(_title(rows), width - 2 * MARGIN, 2, size=11.5, weight="bold")):
        write_at(figure, MARGIN, 0.26 + 0.22 * number, line, size=11.5, weight="bold")
    explained = "Share of studies in which more than η of the queries have a lower loss under the half with the higher scores"
    write_at(figure, MARGIN, 0.76, explained, size=9.5)
    for column, metric in enumerate(metrics):
        box = (LABELS + column * (PANEL + GAP), BETWEEN + curve + FOOT, PANEL, bars)
        axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        _bars(axes, metric, methods, null, with_labels=column == 0)
    axes = figure.add_axes((0.75 / width, FOOT / height, CURVE_WIDTH / width, curve / height))
    _curves(axes, methods, null)
    _legend(figure, axes, methods, ["\n".join(lines) for lines in entries], null)
    save(figure, path)


def _methods(rows: Sequence[Row], per_query: pd.DataFrame) -> list[_Method]:
    """Competing methods as the table sorts them, controls last."""
    labels = by_rank(rows) if rows else []
    ordered = sorted((label for label in labels), key=lambda label: next(r.control for r in rows if r.label == label))
    methods: list[_Method] = []
    for label in ordered:
        own = {row.metric: row for row in rows if row.label == label and row.competes and row.value is not None}
        if not own:
            continue
        row = next(iter(own.values()))
        place = sum(method.control == row.control for method in methods)
        methods.append(
            _Method(
                label=label,
                colour=CONTROL if row.control else COLOURS[place % len(COLOURS)],
                dashes=DASHES[(place if row.control else place // len(COLOURS)) % len(DASHES)],
                control=row.control,
                bars=own,
                curve=_curve(per_query, row),
            )
        )
    return methods


def _curve(per_query: pd.DataFrame, row: Row) -> np.ndarray:
    """[n_eta]: the share of studies above each η, for each seed of the method by itself, then averaged."""
    own = per_query[(per_query["method"] == row.method) & (per_query["tuning"] == (row.tuning or ""))]
    own = own[(own["metric"] == "accuracy") & (own["variant"] == row.variant)]
    accuracies = own.pivot_table(index="method_seed", columns="study", values="value", aggfunc="mean").to_numpy()
    return share_above(accuracies, ETAS).mean(axis=0)


def _title(rows: Sequence[Row]) -> str:
    if not rows:
        return "no method has a value"
    row, n_studies = rows[0], max(row.n_studies for row in rows)
    edition = "mini edition, not comparable with the papers" if row.edition == "mini" else "paper edition"
    of = "concepts, a model each" if row.n_concepts in (None, 1) else f"models of {row.n_concepts} concepts each"
    return f"{shown(row.dataset)} ({edition}), {shown(row.protocol)}: {n_studies} {of}"


def _bars(axes: Axes, metric: str, methods: Sequence[_Method], null: Null, *, with_labels: bool) -> None:
    eta = float(metric.partition("@")[2])
    at = int(np.argmin(np.abs(null.etas - eta)))
    axes.axvspan(null.low[at], null.high[at], color=NULL, zorder=0, linewidth=0)
    axes.axvline(null.mean[at], color=CONTROL, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    for place, method in enumerate(methods):
        row = method.bars.get(metric)
        if row is None:
            continue
        axes.barh(place, row.value, height=0.62, color=method.colour, alpha=0.55 if method.control else 0.9, zorder=2)
        if row.low is not None:
            axes.plot([row.low, row.high], [place, place], color=INK, linewidth=1.2, zorder=3)
        end = max(row.value, row.high or 0.0)
        axes.text(min(end, 1.0) + 0.02, place, f"{100 * row.value:.0f} %", size=8, va="center", color=INK, zorder=4)
    axes.set_title(f"η = {eta:g}", size=10.5)
    axes.set(xlim=(0, 1.22), ylim=(len(methods) - 0.5, -0.5), xticks=(0, 0.5, 1))
    labels = ["\n".join(wrapped(method.label, LABELS - 0.35, 2, size=8)) for method in methods]
    axes.set_yticks(range(len(methods)) if with_labels else [], labels if with_labels else [], size=8, parse_math=False)
    style_of(axes, "x")


def _curves(axes: Axes, methods: Sequence[_Method], null: Null) -> None:
    axes.fill_between(null.etas, null.low, null.high, color=NULL, step="post", zorder=0, linewidth=0)
    axes.step(null.etas, null.mean, where="post", color=CONTROL, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    for method in reversed(methods):
        axes.step(ETAS, method.curve, where="post", color=method.colour, linestyle=method.dashes,
                  linewidth=1.3 if method.control else 2.0, zorder=2 if method.control else 3)  # fmt: skip
    axes.set(xlim=(0.5, 1.0), ylim=(0, 1.02), yticks=(0, 0.25, 0.5, 0.75, 1))
    axes.set_xlabel("η, from the accuracy of chance to that of a perfect method", size=9)
    axes.set_title("share of studies with accuracy above η", size=10.5, loc="left")
    axes.tick_params(axis="x", labelsize=8)
    style_of(axes, "y")


def _legend(figure: Figure, axes: Axes, methods: Sequence[_Method], entries: Sequence[str], null: Null) -> None:
    handles = []
    for method, text in zip(methods, entries, strict=True):
        area = method.bars.get("area_above")
        handles.append(
            Line2D([], [], color=method.colour, linestyle=method.dashes, linewidth=1.3 if method.control else 2.0,
                   label=text if area is None else f"{text}: {_with_interval(area.value, area.low, area.high)}")
        )  # fmt: skip
    guess = f"one guess a prompt, 95 %: {_with_interval(*null.area)}"
    handles.append(Patch(facecolor=NULL, edgecolor=CONTROL, linestyle=(0, (3, 3)), label=guess))
    legend = figure.legend(handles=handles, loc="upper left", frameon=False, fontsize=8.5, borderaxespad=0,
                           title="area above chance (1: every study perfect)", title_fontsize=9, alignment="left",
                           bbox_to_anchor=(axes.get_position().x1 + 0.03, axes.get_position().y1 + 0.01))  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _with_interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.2f}" if low is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"
