"""The picture of the leave-K-out protocol: Figure 3 of the unlearning paper.

left      the rise of the queries' loss against the number of images removed: each method's at every K with its 95 %
          interval, over the curve of random removal with its band
right     for each K how many images removed at random are worth as much: a bar per method with its interval; an arrow
          and ≥ where some study's number is beyond the end of its curve
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from attribench.files.text import shown
from attribench.measurement import Retrained
from attribench.measurement.random_curve import RandomCurve
from attribench.report.figures.drawing import COLOURS, CONTROL, INK, NULL, missing_glyphs_as_boxes, save, wrapped
from attribench.report.figures.share_plot import MARGIN
from attribench.report.record import Row
from attribench.report.words import by_rank
from attribench.statistics.intervals import Estimate, estimate

RISE, EQUIVALENT, BEYOND = "delta_loss@", "equivalent_random@", "beyond_curve@"
# All lengths are inches.
LEFT, CURVE_WIDTH, CURVE_HEIGHT, PANEL, LABELS, BAR, HEAD, FOOT, GAP = 0.85, 5.6, 3.6, 2.3, 1.75, 0.3, 1.15, 0.65, 0.3


@dataclass(frozen=True)
class _Method:
    label: str
    colour: str
    control: bool
    rows: Mapping[str, Row]
    """By metric."""


@missing_glyphs_as_boxes()
def removal_plot(path: Path, rows: Sequence[Row], studies: Sequence[Retrained]) -> None:
    """Write the PNG from a run's rows and what was retrained in each study. Raises StoreError if it cannot be written."""
    methods = _methods(rows)
    ks = sorted({int(row.metric.removeprefix(RISE)) for row in rows if row.metric.startswith(RISE)})
    height = HEAD + max(CURVE_HEIGHT, BAR * len(methods) + 0.2) + FOOT
    width = LEFT + CURVE_WIDTH + LABELS + len(ks) * (PANEL + GAP) + MARGIN
    figure = Figure(figsize=(width, height), facecolor="white")
    for number, (text, weight) in enumerate(((_title(rows), "bold"), (_explained(), "normal"))):
        figure.add_artist(Text(MARGIN / width, 1 - (0.28 + 0.28 * number) / height, text, size=11.5 if number == 0 else 9.5,
                               weight=weight, va="center", color=INK, parse_math=False))  # fmt: skip
    inner = height - HEAD - FOOT
    axes = figure.add_axes((LEFT / width, FOOT / height, CURVE_WIDTH / width, inner / height))
    _curve(axes, methods, ks, random_band(studies))
    for column, k in enumerate(ks):
        left = LEFT + CURVE_WIDTH + LABELS + column * (PANEL + GAP)
        axes = figure.add_axes((left / width, FOOT / height, PANEL / width, inner / height))
        _bars(axes, methods, k, studies, with_labels=column == 0)
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


def _methods(rows: Sequence[Row]) -> list[_Method]:
    """Methods with a value, as the table sorts them; controls last."""
    found: list[_Method] = []
    labels = by_rank(rows) if rows else []
    for label in sorted(labels, key=lambda label: next(row.control for row in rows if row.label == label)):
        own = {row.metric: row for row in rows if row.label == label and row.competes and row.value is not None}
        if any(name.startswith(RISE) for name in own):
            control = next(iter(own.values())).control
            place = sum(not method.control for method in found)
            found.append(_Method(label, CONTROL if control else COLOURS[place % len(COLOURS)], control, own))
    return found


def _title(rows: Sequence[Row]) -> str:
    if not rows:
        return "no method has a value"
    row = rows[0]
    edition = "mini edition, not comparable with the papers" if row.edition == "mini" else "paper edition"
    n_studies, n_queries = (max(getattr(row, name) for row in rows) for name in ("n_studies", "n_queries"))
    return f"{shown(row.dataset)} ({edition}), {shown(row.protocol)}: {n_queries} queries of {n_studies} models"


def _explained() -> str:
    return (
        "Left: rise of a query's loss when a model is retrained without K images. "
        "Right: how many images removed at random raise it as much."
    )


def _curve(axes: Axes, methods: Sequence[_Method], ks: Sequence[int], band: Sequence[tuple[int, Estimate]]) -> None:
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
    _style(axes, "y")


def _bars(axes: Axes, methods: Sequence[_Method], k: int, studies: Sequence[Retrained], *, with_labels: bool) -> None:
    reach = max((int((~known.masks).sum(axis=1)[known.drawn].max()) for known in studies if known.drawn is not None), default=k)
    axes.axvline(k, color=CONTROL, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    for place, method in enumerate(methods):
        row, beyond = (method.rows.get(f"{name}{k}") for name in (EQUIVALENT, BEYOND))
        if row is None:
            continue
        censored = beyond is not None and beyond.value > 0
        axes.barh(place, row.value, height=0.6, color=method.colour, alpha=0.55 if method.control else 0.9, zorder=2)
        if row.low is not None:
            axes.plot([row.low, row.high], [place, place], color=INK, linewidth=1.2, zorder=3)
        end = max(row.value, row.high or 0.0)
        said = f"{'≥ ' if censored else ''}{row.value:,.0f}"
        axes.text(end + 0.03 * reach, place, said, size=8, va="center", color=INK, zorder=4)
    axes.set_title(f"worth as many at random, K = {k:,}", size=9.5)
    axes.set(xlim=(0, 1.35 * reach), ylim=(len(methods) - 0.5, -0.5))
    labels = ["\n".join(wrapped(method.label, LABELS - 0.35, 2, size=8)) for method in methods]
    axes.set_yticks(range(len(methods)) if with_labels else [], labels if with_labels else [], size=8, parse_math=False)
    _style(axes, "x")


def _style(axes: Axes, numbers: str) -> None:
    axes.tick_params(axis="both", labelsize=8)
    axes.grid(axis=numbers, color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
