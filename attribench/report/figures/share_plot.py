"""The picture of the within-concept protocol: MONTRAGE's Figure 5, both rows, and supplement Figure 1 over several concepts.

    top       for each η the share of studies whose accuracy is above it: a bar per method with its 95 % interval
    bottom    the same share for every η from ½ to 1, and the area below it

Grey behind both: where a method lies that guesses once a prompt (`share_curve.null_of_prompts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from attribench.measurement.share_curve import ETAS, Null, share_above
from attribench.report.figures.bars import Drawn, bars, drawn_methods
from attribench.report.figures.drawing import (
    COLOURS,
    CONTROL,
    NULL,
    axes_at,
    missing_glyphs_as_boxes,
    save,
    style_of,
    wrapped,
    write_at,
)
from attribench.report.record import Row
from attribench.report.words import NO_VALUE, what_was_run

DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
"""Told apart by colour first; by dashes from the eleventh method on, and among the controls."""

# All lengths are inches.
LABELS, PANEL, GAP, BAR, HEAD, BETWEEN, CURVE, FOOT, MARGIN = 1.9, 2.05, 0.2, 0.31, 1.4, 0.85, 3.3, 0.65, 0.2
CURVE_WIDTH, LEGEND_WIDTH, LINE = 5.9, 2.3, 0.175


@missing_glyphs_as_boxes()
def share_plot(path: Path, rows: Sequence[Row], per_query: pd.DataFrame, null: Null) -> None:
    """Write the PNG from a run's rows, its values per query and the null over the same studies.

    Tuned methods are drawn as tuned; methods without a value are left out. Raises StoreError if it cannot be written.
    """
    methods = drawn_methods(rows, "")
    metrics = [name for name in dict.fromkeys(row.metric for row in rows) if name.startswith("share_above@")]
    bars_height = max(len(methods), 1) * BAR + 0.2
    entries = [wrapped(method.label, LEGEND_WIDTH, 2, size=8.5) for method in methods]
    curve = max(CURVE, LINE * (3 + sum(map(len, entries))))
    width = max(LABELS + len(metrics) * (PANEL + GAP), 0.75 + CURVE_WIDTH + 4.1) + MARGIN
    figure = Figure(figsize=(width, HEAD + bars_height + BETWEEN + curve + FOOT), facecolor="white")
    for number, line in enumerate(wrapped(_title(rows), width - 2 * MARGIN, 2, size=11.5, weight="bold")):
        write_at(figure, MARGIN, 0.26 + 0.22 * number, line, size=11.5, weight="bold")
    explained = "Share of studies in which more than η of the queries have a lower loss under the half with the higher scores"
    write_at(figure, MARGIN, 0.76, explained, size=9.5)
    for column, metric in enumerate(metrics):
        axes = axes_at(figure, LABELS + column * (PANEL + GAP), BETWEEN + curve + FOOT, PANEL, bars_height)
        _bars(axes, metric, methods, null, labels_width=LABELS - 0.35 if column == 0 else None)
    axes = axes_at(figure, 0.75, FOOT, CURVE_WIDTH, curve)
    _curves(axes, methods, per_query, null)
    _legend(figure, axes, methods, ["\n".join(lines) for lines in entries], null)
    save(figure, path)


def _title(rows: Sequence[Row]) -> str:
    if not rows:
        return NO_VALUE
    of = "concepts, a model each" if rows[0].n_concepts in (None, 1) else f"models of {rows[0].n_concepts} concepts each"
    return f"{what_was_run(rows[0])}: {max(row.n_studies for row in rows)} {of}"


def _line(method: Drawn) -> dict[str, object]:
    """How the curve of a method and its entry in the legend are drawn."""
    dashes = DASHES[(method.place if method.control else method.place // len(COLOURS)) % len(DASHES)]
    return {"color": method.colour, "linestyle": dashes, "linewidth": 1.3 if method.control else 2.0}


def _share_of_studies(per_query: pd.DataFrame, row: Row) -> np.ndarray:
    """[n_eta]: the share of studies above each η, for each seed of the method by itself, then averaged."""
    own = per_query[(per_query["method"] == row.method) & (per_query["tuning"] == (row.tuning or ""))]
    own = own[(own["metric"] == "accuracy") & (own["variant"] == row.variant)]
    accuracies = own.pivot_table(index="method_seed", columns="study", values="value", aggfunc="mean").to_numpy()
    return share_above(accuracies, ETAS).mean(axis=0)


def _bars(axes: Axes, metric: str, methods: Sequence[Drawn], null: Null, *, labels_width: float | None) -> None:
    eta = float(metric.partition("@")[2])
    at = int(np.argmin(np.abs(null.etas - eta)))
    axes.axvspan(null.low[at], null.high[at], color=NULL, zorder=0, linewidth=0)
    axes.axvline(null.mean[at], color=CONTROL, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axes.set_title(f"η = {eta:g}", size=10.5)
    axes.set(xlim=(0, 1.22), xticks=(0, 0.5, 1))

    def said(method: Drawn) -> str:
        return f"{100 * method.rows[metric].value:.0f} %"

    bars(axes, methods, metric, said, thickness=0.62, aside=0.02, labels_width=labels_width)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _curves(axes: Axes, methods: Sequence[Drawn], per_query: pd.DataFrame, null: Null) -> None:
    axes.fill_between(null.etas, null.low, null.high, color=NULL, step="post", zorder=0, linewidth=0)
    axes.step(null.etas, null.mean, where="post", color=CONTROL, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    for method in reversed(methods):
        share = _share_of_studies(per_query, next(iter(method.rows.values())))
        axes.step(ETAS, share, where="post", zorder=2 if method.control else 3, **_line(method))
    axes.set(xlim=(0.5, 1.0), ylim=(0, 1.02), yticks=(0, 0.25, 0.5, 0.75, 1))
    axes.set_xlabel("η, from the accuracy of chance to that of a perfect method", size=9)
    axes.set_title("share of studies with accuracy above η", size=10.5, loc="left")
    style_of(axes, "y")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _legend(figure: Figure, axes: Axes, methods: Sequence[Drawn], entries: Sequence[str], null: Null) -> None:
    handles = []
    for method, text in zip(methods, entries, strict=True):
        area = method.rows.get("area_above")
        label = text if area is None else f"{text}: {_with_interval(area.value, area.low, area.high)}"
        handles.append(Line2D([], [], label=label, **_line(method)))
    guess = f"one guess a prompt, 95 %: {_with_interval(*null.area)}"
    handles.append(Patch(facecolor=NULL, edgecolor=CONTROL, linestyle=(0, (3, 3)), label=guess))
    legend = figure.legend(handles=handles, loc="upper left", frameon=False, fontsize=8.5, borderaxespad=0,
                           title="area above chance (1: every study perfect)", title_fontsize=9, alignment="left",
                           bbox_to_anchor=(axes.get_position().x1 + 0.03, axes.get_position().y1 + 0.01))  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _with_interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.2f}" if low is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"
