"""Quality against cost: where a point for each method, its interval and the front stand. `drawings.html` draws them.

Nothing in it is styled by attribute but position: colours come from the page's style sheet, so that it follows dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from attribench.boards.standings import Line, Variant
from attribench.report.record import Row
from attribench.report.words import duration

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 736, 20, 352
"""Edges of the ground that points stand on."""
NAMED = 40
"""Methods whose name stands beside its point; of more, only those of the front have one."""
LETTER, LINE = 6.4, 14


@dataclass(frozen=True)
class Point:
    """A method: seconds for a query with its share of the fit, and the headline metric."""

    line: Line
    cost: float
    value: float
    low: float | None
    high: float | None


def points_of(variant: Variant) -> list[Point]:
    """The methods of a variant whose costs are known."""
    found = []
    per_study = max(variant.n_queries / max(variant.n_studies, 1), 1)
    for line in variant.lines:
        row = line.numbers[variant.headline].row
        if None not in (row.value, row.fit_seconds, row.query_seconds):
            cost = row.fit_seconds / per_study + row.query_seconds
            found.append(Point(line, max(cost, 1e-5), row.value, row.low, row.high))
    return found


def front(points: Sequence[Point]) -> list[Point]:
    """The points than which none is both cheaper and better, from cheap to dear."""
    best, found = -math.inf, []
    for point in sorted(points, key=lambda p: (p.cost, -p.value)):
        if point.value > best:
            best = point.value
            found.append(point)
    return found


class Plot:
    """At least two methods of a variant, with the places of all that is drawn."""

    width, height, left, right, top, bottom = WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM

    def __init__(self, variant: Variant, points: Sequence[Point]) -> None:
        self.variant, self.metric = variant.headline
        self.chance = variant.chance[self.metric]
        exponents = [math.log10(point.cost) for point in points]
        self.first = math.floor(min(exponents))
        self.last = max(math.ceil(max(exponents)), self.first + 1)
        decades = [10.0**exponent for exponent in range(self.first, self.last + 1)]
        self.decades = [(cost, duration(cost) if cost >= 1e-3 else f"{cost * 1e6:g} µs") for cost in decades]
        known = [n for n in (self.chance, *(n for p in points for n in (p.value, p.low, p.high))) if n is not None]
        self.ticks = _ticks(min(known), max(known))
        self.front = front(points)
        places = [(self.x(p.cost), self.y(p.value), p.line.label) for p in points]
        self.points = list(zip(points, _labels(places, [p in self.front for p in points]), strict=True))

    def x(self, cost: float) -> float:
        """Of seconds a query, on a logarithmic scale."""
        return LEFT + (math.log10(cost) - self.first) / (self.last - self.first) * (RIGHT - LEFT)

    def y(self, value: float) -> float:
        """Of the metric."""
        return BOTTOM - (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0]) * (BOTTOM - TOP)


def plot_of(variant: Variant) -> Plot | None:
    """Nothing where fewer than two methods have costs."""
    points = points_of(variant)
    return Plot(variant, points) if len(points) > 1 else None


def bar_of(row: Row, chance: float | None, ends: tuple[float, float]) -> dict[str, float] | None:
    """Where one number, its interval and chance lie in a small picture, from 2 to 78, on the scale of its column."""
    low, high = ends
    if row.value is None or high <= low:
        return None
    known = {"value": row.value, "low": row.low, "high": row.high, "chance": chance}
    return {name: 2 + 76 * (min(max(n, low), high) - low) / (high - low) for name, n in known.items() if n is not None}


# ------------------------------------------------------------------------------------------ parts


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that hold all values: four to eight of them."""
    span = max(high - low, 1e-3)
    step = next(s for s in sorted(m * 10.0**e for e in range(-4, 9) for m in (1, 2, 5)) if span / s <= 6)
    return [step * i for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _labels(places: Sequence[tuple[float, float, str]], on_front: Sequence[bool]) -> list[tuple[float, float, str] | None]:
    """Where each name stands: right, left, above or below its point, wherever it covers no other; or nowhere."""
    taken = [(px - 6, py - 6, px + 6, py + 6) for px, py, _ in places]
    found: list[tuple[float, float, str] | None] = [None] * len(places)
    for i in sorted(range(len(places)), key=lambda i: not on_front[i]):
        px, py, name = places[i]
        if len(places) > NAMED and not on_front[i]:
            continue
        width = LETTER * len(name)
        beside = [(px + 9, py + 4, "start"), (px - 9, py + 4, "end"), (px, py - 10, "middle"), (px, py + 18, "middle")]
        for text_x, text_y, anchor in beside:
            left = text_x - {"start": 0, "end": width, "middle": width / 2}[anchor]
            box = (left, text_y - LINE + 3, left + width, text_y + 3)
            inside = box[0] >= LEFT and box[2] <= WIDTH - 2 and box[1] >= 0 and box[3] <= BOTTOM
            if inside and not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
                taken.append(box)
                found[i] = (text_x, text_y, anchor)
                break
    return found
