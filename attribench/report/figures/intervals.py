"""A picture of a run: every number with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attribench.files.text import shown
from attribench.report.figures.drawing import BLUE, GREY, RED, axes_at, missing_glyphs_as_boxes, save, style_of, wrapped, write_at
from attribench.report.record import Row
from attribench.report.words import NO_VALUE, by_rank, what_was_run

PANEL_WIDTH, METHOD_HEIGHT, PANEL_HEAD, LABELS_WIDTH, PLOT_HEAD = 2.7, 0.3, 0.95, 1.9, 0.85


@missing_glyphs_as_boxes()
def interval_plot(path: Path, rows: Sequence[Row]) -> None:
    """Write a PNG: for each variant (down) and metric (across) every method's value, 95 % interval and chance.

    Methods are sorted as in the table, and hollow where they are not ranked. Methods without a value are left out.
    Raises StoreError if it cannot be written.
    """
    with_value = [row for row in rows if row.value is not None]
    names = dict.fromkeys(row.variant for row in with_value)
    variants = {name: [row for row in with_value if row.variant == name] for name in names}
    metrics = {name: list(dict.fromkeys(row.metric for row in of)) for name, of in variants.items()}
    heights = [METHOD_HEIGHT * len(by_rank(of)) + PANEL_HEAD for of in variants.values()]
    columns = max(map(len, metrics.values()), default=1)
    width, height = LABELS_WIDTH + columns * PANEL_WIDTH + 0.2, PLOT_HEAD + sum(heights)
    figure = Figure(figsize=(width, height), facecolor="white")
    title = f"{what_was_run(with_value[0])}, {max(r.n_studies for r in with_value)} studies" if with_value else NO_VALUE
    write_at(figure, 0.2, 0.28, title, size=12, weight="bold", color="black")
    top = PLOT_HEAD
    for (variant, of_variant), panel_height in zip(variants.items(), heights, strict=True):
        for column, metric in enumerate(metrics[variant]):
            left, bottom = LABELS_WIDTH + column * PANEL_WIDTH, height - top - panel_height + 0.5
            axes = axes_at(figure, left, bottom, PANEL_WIDTH - 0.35, panel_height - PANEL_HEAD + 0.1)
            _panel(axes, metric, of_variant, with_labels=column == 0)
        write_at(figure, 0.2, top + 0.2, shown(variant), size=11, weight="bold", color="black")
        top += panel_height
    _legend(figure, with_value)
    save(figure, path)


def _panel(axes: Axes, metric: str, rows: Sequence[Row], *, with_labels: bool) -> None:
    labels = by_rank(rows)
    found = {row.label: row for row in rows if row.metric == metric}
    for place, label in enumerate(labels):
        if label not in found:
            continue
        row = found[label]
        colour = GREY if row.control else BLUE
        if row.low is not None:
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot([row.value], [place], "o", color=colour, markersize=6, markerfacecolor=colour if row.competes else "white")
    chance = next((row.chance for row in found.values() if row.chance is not None), None)
    if chance is not None:
        axes.axvline(chance, color=RED, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
    axes.set_title(shown(metric.replace("_", " ")), size=10, parse_math=False)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    style_of(axes, "x", "#e6e6e6")
    ticks = ["\n".join(wrapped(label, LABELS_WIDTH - 0.3, 2, size=9)) for label in labels] if with_labels else []
    axes.set_yticks(range(len(ticks)), ticks, size=9, parse_math=False)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, 0.0), right)


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    kinds = [(BLUE, "method"), (GREY, "control")] if any(row.control for row in rows) else [(BLUE, "method")]
    interval = any(row.low is not None for row in rows)
    handles = [
        Line2D([], [], color=colour, marker="o", linewidth=2.2 if interval else 0,
               label=f"{kind}: value and 95 % interval" if interval else f"{kind}: value, no interval over one study")
        for colour, kind in kinds
    ]  # fmt: skip
    if not all(row.competes for row in rows):
        handles.append(Line2D([], [], color=BLUE, marker="o", markerfacecolor="white", linewidth=0, label="not ranked"))
    handles.append(Line2D([], [], color=RED, linestyle=(0, (4, 3)), linewidth=1.2, label="chance"))
    y = 1 - 0.45 / figure.get_figheight()
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.2 / figure.get_figwidth(), y), ncols=4,
                  frameon=False, fontsize=9, borderaxespad=0)  # fmt: skip
