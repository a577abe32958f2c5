"""Methods as the picture of a protocol draws them: a colour each, and their bars of one metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from attribench.report.figures.drawing import COLOURS, CONTROL, INK, style_of, wrapped
from attribench.report.record import Row
from attribench.report.words import by_rank


@dataclass(frozen=True)
class Drawn:
    """One method."""

    label: str
    control: bool
    place: int
    """Among the methods, or among the controls."""
    rows: Mapping[str, Row]
    """By metric; those with a value."""

    @property
    def colour(self) -> str:
        return CONTROL if self.control else COLOURS[self.place % len(COLOURS)]


def drawn_methods(rows: Sequence[Row], metrics: str) -> list[Drawn]:
    """Competing methods that have a value in metrics of this prefix, as the table sorts them; controls last."""
    found: list[Drawn] = []
    controls = {row.label: row.control for row in rows}
    for label in sorted(by_rank(rows) if rows else [], key=controls.__getitem__):
        own = {row.metric: row for row in rows if row.label == label and row.competes and row.value is not None}
        if any(name.startswith(metrics) for name in own):
            place = sum(method.control == controls[label] for method in found)
            found.append(Drawn(label, controls[label], place, own))
    return found


def bars(
    axes: Axes,
    methods: Sequence[Drawn],
    metric: str,
    said: Callable[[Drawn], str],
    *,
    thickness: float,
    aside: float,
    labels_width: float | None,
) -> None:
    """A bar per method that has the metric, with its 95 % interval and, `aside` of both, what is said of it.

    Labels are `labels_width` inches wide; None leaves them out.
    """
    for place, method in enumerate(methods):
        row = method.rows.get(metric)
        if row is None:
            continue
        axes.barh(place, row.value, height=thickness, color=method.colour, alpha=0.55 if method.control else 0.9, zorder=2)
        if row.low is not None:
            axes.plot([row.low, row.high], [place, place], color=INK, linewidth=1.2, zorder=3)
        end = max(row.value, row.high or 0.0)
        axes.text(end + aside, place, said(method), size=8, va="center", color=INK, zorder=4)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    labels = ["\n".join(wrapped(method.label, labels_width, 2, size=8)) for method in methods] if labels_width else []
    axes.set_yticks(range(len(labels)), labels, size=8, parse_math=False)
    style_of(axes, "x")
