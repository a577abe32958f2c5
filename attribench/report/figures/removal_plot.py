"""The picture of the leave-K-out protocol: Figure 3 of the unlearning paper.

left      the rise of the queries' loss against the number of images removed: each method's at every K with its 95 %
          interval, over the curve of random removal with its band
right     for each K how many images removed at random are worth as much: a bar per method with its interval; an arrow
          and ≥ where some study's number is beyond the end of its curve
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attribench.measurement import Retrained
from attribench.measurement.random_curve import RandomCurve
from attribench.report.figures.bars import Drawn, bars, drawn_methods
from attribench.report.figures.drawing import CONTROL, NULL, axes_at, missing_glyphs_as_boxes, save, style_of, wrapped, write_at
from attribench.report.record import Row
from attribench.report.words import NO_VALUE, what_was_run
from attribench.statistics.intervals import Estimate, estimate

RISE, EQUIVALENT, BEYOND = "delta_loss@", "equivalent_random@", "beyond_curve@"
# All lengths are inches.
LEFT, CURVE_WIDTH, CURVE_HEIGHT, PANEL, LABELS = 0.85, 5.6, 3.6, 2.3, 1.75
BAR, HEAD, FOOT, GAP, MARGIN = 0.3, 1.15, 0.65, 0.3, 0.2
EXPLAINED = (
    "Left: rise of a query's loss when a model is retrained without K images. "
    "Right: how many images removed at random raise it as much."
)


@missing_glyphs_as_boxes()
def removal_plot(path: Path, rows: Sequence[Row], studies: Sequence[Retrained]) -> None:
    """Write the PNG from a run's rows and what was retrained in each study. Raises StoreError if it cannot be written."""
    methods = drawn_methods(rows, RISE)
    ks = sorted({int(row.metric.removeprefix(RISE)) for row in rows if row.metric.startswith(RISE)})
    inner = max(CURVE_HEIGHT, BAR * len(methods) + 0.2)
    width = LEFT + CURVE_WIDTH + LABELS + len(ks) * (PANEL + GAP) + MARGIN
    figure = Figure(figsize=(width, HEAD + inner + FOOT), facecolor="white")
    write_at(figure, MARGIN, 0.28, _title(rows), size=11.5, weight="bold")
    write_at(figure, MARGIN, 0.56, EXPLAINED, size=9.5)
    _curve(axes_at(figure, LEFT, FOOT, CURVE_WIDTH, inner), methods, ks, random_band(studies))
    for column, k in enumerate(ks):
        axes = axes_at(figure, LEFT + CURVE_WIDTH + LABELS + column * (PANEL + GAP), FOOT, PANEL, inner)
        _bars(axes, methods, k, studies, labels_width=LABELS - 0.35 if column == 0 else None)
    save(figure, path)


def random_band(studies: Sequence[Retrained]) -> list[tuple[int, Estimate]]:
    """(images removed, rise × 10³ over all queries with its interval clustered by study) at each point of the curves."""
    curves = [RandomCurve.of(known) for known in studies]
    points = sorted(set.intersection(*({int(k) for k in curve.removed} for curve in curves))) if curves else []
    found = []
    for k in points:
        values = [1000 * curve.at(k) for curve in curves]
        names = [str(number) for number, of in enumerate(values) for _ in of]
        found.append((k, estimate(np.concatenate(values), names)))
    return found


def _title(rows: Sequence[Row]) -> str:
    if not rows:
        return NO_VALUE
    n_studies, n_queries = (max(getattr(row, name) for row in rows) for name in ("n_studies", "n_queries"))
    return f"{what_was_run(rows[0])}: {n_queries} queries of {n_studies} models"


def _curve(axes: Axes, methods: Sequence[Drawn], ks: Sequence[int], band: Sequence[tuple[int, Estimate]]) -> None:
    removed = [k for k, _ in band]
    axes.plot(removed, [found.value for _, found in band], color="#7a7a7a", linewidth=1.6, label="random", zorder=2)
    if any(found.has_interval for _, found in band):
        axes.fill_between(removed, [f.low for _, f in band], [f.high for _, f in band], color=NULL, linewidth=0, zorder=1)
    reach = max([*removed, *ks], default=1)
    for place, method in enumerate(methods):
        aside = (place - (len(methods) - 1) / 2) * 0.011 * reach  # so that intervals at one K do not cover each other
        own = [(k, method.rows[f"{RISE}{k}"]) for k in ks if f"{RISE}{k}" in method.rows]
        at = [k + aside for k, _ in own]
        axes.plot(at, [row.value for _, row in own], "s--" if method.control else "o-", color=method.colour, markersize=5,
                  linewidth=1, label="\n".join(wrapped(method.label, 2.2, 2, size=8)), zorder=4)  # fmt: skip
        for x, (_, row) in zip(at, own, strict=True):
            if row.low is not None:
                axes.plot([x, x], [row.low, row.high], color=method.colour, linewidth=1.2, zorder=3)
    axes.set_xlabel("images removed", size=9)
    axes.set_title("rise of the loss, × 10⁻³", size=10.5, loc="left")
    legend = axes.legend(fontsize=8, frameon=False, loc="best")
    for text in legend.get_texts():
        text.set_parse_math(False)
    style_of(axes, "y")


def _bars(axes: Axes, methods: Sequence[Drawn], k: int, studies: Sequence[Retrained], *, labels_width: float | None) -> None:
    reach = max((int((~known.masks).sum(axis=1)[known.drawn].max()) for known in studies if known.drawn is not None), default=k)
    axes.axvline(k, color=CONTROL, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axes.set_title(f"worth as many at random, K = {k:,}", size=9.5)
    axes.set_xlim(0, 1.35 * reach)
    worth = f"{EQUIVALENT}{k}"

    def said(method: Drawn) -> str:
        beyond = method.rows.get(f"{BEYOND}{k}")
        return f"{'≥ ' if beyond is not None and beyond.value > 0 else ''}{method.rows[worth].value:,.0f}"

    bars(axes, methods, worth, said, thickness=0.6, aside=0.03 * reach, labels_width=labels_width)
