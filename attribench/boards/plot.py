"""Quality against cost as SVG, made when the page is built: a point for each method, its interval, and the front.

Nothing in it is styled by attribute but position: colours come from the page's style sheet, so that it follows dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from attribench.boards.standings import Line, Variant
from attribench.report.words import duration

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 20, 48
NAMED = 40
"""Methods whose name stands beside its point; of more, only those of the front have one."""
LETTER, LINE = 6.4, 14
GROUPS = ("features", "gradients", "checkpoints", "training", "trajectory")


@dataclass(frozen=True)
class Point:
    """A method: seconds for a query with its share of the fit, and the headline metric."""

    line: Line
    cost: float
    value: float
    low: float | None
    high: float | None


def group_of(line: Line) -> str:
    """What decides a method's colour: the most that it needs."""
    dearest_first = ("training", "checkpoints", "trajectory", "gradients")
    return next((need for need in dearest_first if need in line.method.needs), "features")


def points_of(variant: Variant) -> list[Point]:
    """The methods of a variant whose costs are known."""
    found = []
    per_study = max(variant.n_queries / max(variant.n_studies, 1), 1)
    for line in variant.lines:
        row = line.numbers[variant.name, variant.metrics[0]].row
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


def plot(variant: Variant, key: str) -> Markup:
    """The SVG, or nothing where fewer than two methods have costs. `key` makes ids unique on the page."""
    points = points_of(variant)
    if len(points) < 2:
        return Markup("")
    exponents = [math.log10(point.cost) for point in points]
    first, last = math.floor(min(exponents)), math.ceil(max(exponents))
    last = max(last, first + 1)
    known = [n for p in points for n in (p.value, p.low, p.high) if n is not None]
    known += [n for n in (variant.chance[variant.metrics[0]],) if n is not None]
    ticks = _ticks(min(known), max(known))

    def x(cost: float) -> float:
        return LEFT + (math.log10(cost) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (HEIGHT - TOP - BOTTOM)

    parts = [_axes(variant, range(first, last + 1), ticks, x, y)]
    best = front(points)
    if len(best) > 1:
        path = f"M{x(best[0].cost):.1f},{y(best[0].value):.1f}"
        path += "".join(f"H{x(p.cost):.1f}V{y(p.value):.1f}" for p in best[1:])
        parts.append(Markup('<path class="front" d="{}"/>').format(path))
    labels = _labels([(x(p.cost), y(p.value), p.line.label) for p in points], [p in best for p in points])
    for point, label in zip(points, labels, strict=True):
        parts.append(_drawn(point, label, x, y))
    title = f"{variant.metrics[0]} against seconds per query, {variant.name}"
    described = ", ".join(f"{p.line.label} {p.value:.3f} in {duration(p.cost)}" for p in best)
    return Markup(
        '<svg class="plot" viewBox="0 0 {w} {h}" role="img" aria-labelledby="{k}-t {k}-d"><title id="{k}-t">{title}</title>'
        '<desc id="{k}-d">The front, from cheap to dear: {described}</desc>{parts}</svg>'
    ).format(w=WIDTH, h=HEIGHT, k=key, title=title, described=described, parts=Markup("").join(parts))


def interval_bar(
    low: float | None, high: float | None, value: float | None, chance: float | None, ends: tuple[float, float]
) -> Markup:
    """A small picture of one number: its interval, itself, and where chance lies, on the scale of its column."""
    if value is None or ends[1] <= ends[0]:
        return Markup("")

    def x(number: float) -> str:
        return f"{2 + 76 * (min(max(number, ends[0]), ends[1]) - ends[0]) / (ends[1] - ends[0]):.1f}"

    parts = []
    if chance is not None:
        parts.append(Markup('<path class="chance" d="M{},1V11"/>').format(x(chance)))
    if low is not None and high is not None:
        parts.append(Markup('<path class="interval" d="M{},6H{}"/>').format(x(low), x(high)))
    parts.append(Markup('<circle cx="{}" cy="6" r="3"/>').format(x(value)))
    return Markup('<svg class="bar" viewBox="0 0 80 12" aria-hidden="true">{}</svg>').format(Markup("").join(parts))


# ------------------------------------------------------------------------------------------ parts


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that hold all values: four to eight of them."""
    span = max(high - low, 1e-3)
    step = next(s for s in sorted(m * 10.0**e for e in range(-4, 9) for m in (1, 2, 5)) if span / s <= 6)
    return [step * i for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _axes(variant: Variant, exponents: range, ticks: Sequence[float], x, y) -> Markup:
    parts = []
    for tick in ticks:
        parts.append(Markup('<path class="grid" d="M{},{y:.1f}H{}"/>').format(LEFT, WIDTH - RIGHT, y=y(tick)))
        parts.append(Markup('<text class="tick end" x="{}" y="{:.1f}">{:g}</text>').format(LEFT - 8, y(tick) + 4, round(tick, 6)))
    for exponent in exponents:
        seconds = 10.0**exponent
        parts.append(Markup('<path class="grid" d="M{x:.1f},{}V{}"/>').format(TOP, HEIGHT - BOTTOM, x=x(seconds)))
        text = duration(seconds) if seconds >= 1e-3 else f"{seconds * 1e6:g} µs"
        label = Markup('<text class="tick middle" x="{:.1f}" y="{}">{}</text>')
        parts.append(label.format(x(seconds), HEIGHT - BOTTOM + 18, text))
    chance = variant.chance[variant.metrics[0]]
    if chance is not None:
        parts.append(Markup('<path class="chance" d="M{},{y:.1f}H{}"/>').format(LEFT, WIDTH - RIGHT, y=y(chance)))
        parts.append(Markup('<text class="tick end" x="{}" y="{:.1f}">chance</text>').format(WIDTH - RIGHT, y(chance) - 5))
    parts.append(
        Markup('<text class="axis middle" x="{}" y="{}">time per query with its share of the fit, as stated</text>').format(
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8
        )
    )
    parts.append(Markup('<text class="axis" x="{}" y="{}">{}</text>').format(4, 12, variant.metrics[0]))
    return Markup("").join(parts)


def _drawn(point: Point, label: tuple[float, float, str] | None, x, y) -> Markup:
    parts = []
    if point.low is not None and point.high is not None:
        interval = Markup('<path class="interval" d="M{x:.1f},{:.1f}V{:.1f}"/>')
        parts.append(interval.format(y(point.low), y(point.high), x=x(point.cost)))
    parts.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5"/>').format(x(point.cost), y(point.value)))
    if label is not None:
        name = Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>')
        parts.append(name.format(label[2], label[0], label[1], point.line.label))
    said = f"{point.line.label}: {point.value:.3f}, {duration(point.cost)} per query"
    return Markup('<a class="n-{}" href="../methods/{}.html"><title>{}</title>{}</a>').format(
        group_of(point.line), point.line.method.name, said, Markup("").join(parts)
    )


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
            inside = box[0] >= LEFT and box[2] <= WIDTH - 2 and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM
            if inside and not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
                taken.append(box)
                found[i] = (text_x, text_y, anchor)
                break
    return found
