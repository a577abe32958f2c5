"""From the entries of a board to what its page shows: one line for each method, ranked against all others.

A line is a method with its hyper-parameters and origin. Submitted twice it is shown once: verified before self-reported,
then the first. Ranks are among numbers that were verified, all against one truth; a self-reported number has none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from attribench import plugins
from attribench.boards.board import Board
from attribench.boards.entry import Entry, ShownQuery
from attribench.errors import MethodError
from attribench.report.record import Row
from attribench.statistics.ranking import shared_ranks, shared_ranks_redrawn
from attribench.submissions.statement import Method, Statement
from attribench.submissions.verify import Standing


@dataclass(frozen=True)
class Number:
    """One metric of one line, in one variant."""

    row: Row
    standing: Standing
    rank: int | None


@dataclass
class Line:
    """One method on a board."""

    method: Method
    entry: Entry
    numbers: dict[tuple[str, str], Number] = field(default_factory=dict)
    """By (variant, metric)."""

    @property
    def row(self) -> Row:
        """Any of its rows: label, costs and device are the same in all."""
        return next(row for row in self.entry.rows if row.method == self.method.name)

    @property
    def label(self) -> str:
        """As tables name it: with its encoder, if it has one."""
        encoder = self.method.params.get("encoder")
        return f"{self.method.name} ({encoder})" if isinstance(encoder, str) and encoder else self.method.name

    @property
    def statement(self) -> Statement:
        """Of the submission that it came in."""
        return self.entry.statement

    @property
    def shown(self) -> tuple[ShownQuery, ...]:
        """What it found for some queries."""
        return self.entry.shown.get(self.method.name, ())


@dataclass(frozen=True)
class Variant:
    """One table of a board."""

    name: str
    metrics: tuple[str, ...]
    """The first is what the table is sorted by."""
    lines: tuple[Line, ...]
    """Methods by the rank of the first metric, then by value."""
    controls: tuple[Line, ...]
    chance: Mapping[str, float | None]
    ceiling: Mapping[str, float | None]
    n_queries: int
    n_studies: int


@dataclass(frozen=True)
class Standings:
    """All that a board shows."""

    board: Board
    entries: tuple[Entry, ...]
    lines: tuple[Line, ...]
    variants: tuple[Variant, ...]

    @classmethod
    def of(cls, board: Board, entries: Sequence[Entry]) -> Standings:
        """Rank the entries of a board against each other."""
        lines = _lines(entries)
        names = list(dict.fromkeys((row.variant, row.metric) for entry in entries for row in entry.rows))
        for variant, metric in names:
            _rank(lines, variant, metric, board.experiment.seed)
        variants = [_variant(name, names, lines) for name in dict.fromkeys(variant for variant, _ in names)]
        return cls(board, tuple(entries), tuple(lines), tuple(variants))


def _lines(entries: Sequence[Entry]) -> list[Line]:
    chosen: dict[str, Line] = {}
    ordered = sorted(entries, key=lambda e: (e.statement.finished, e.digest))
    for entry in sorted(ordered, key=lambda e: "verified" not in e.standing.values()):
        for method in entry.statement.methods:
            identity = json.dumps([method.name, method.tuned, method.params, method.plugin], sort_keys=True)
            if method.control:  # every submission brings them, and they are the same
                identity = method.name
            chosen.setdefault(identity, Line(method, entry))
    return list(chosen.values())


def _rank(lines: Sequence[Line], variant: str, metric: str, seed: int) -> None:
    """Put the numbers of one metric into the lines, with ranks among the verified ones."""
    found = {}
    for number, line in enumerate(lines):
        row = line.entry.row(line.method.name, variant, metric)
        if row is not None:
            found[number] = (row, line.entry.standing[variant, metric])
    key = {number: (lines[number].method.name, variant, metric) for number in found}
    ranked = [
        number for number, (row, standing) in found.items()
        if standing == "verified" and row.value is not None and np.isfinite(lines[number].entry.values[key[number]]).any()
    ]  # fmt: skip
    rank: dict[int, int | None] = {}
    if ranked:
        higher = higher_is_better(metric)
        first = lines[ranked[0]].entry
        if key[ranked[0]] in first.means:
            values = np.array([found[number][0].value for number in ranked])
            means = np.stack([lines[number].entry.means[key[number]] for number in ranked])
            ranks = shared_ranks_redrawn(values, means, len(set(first.studies[variant])), higher_is_better=higher)
        else:
            values = np.stack([lines[number].entry.values[key[number]] for number in ranked])
            ranks = shared_ranks(values, np.array(first.studies[variant]), higher_is_better=higher, seed=seed)
        rank = dict(zip(ranked, ranks, strict=True))
    for number, (row, standing) in found.items():
        lines[number].numbers[variant, metric] = Number(row, standing, rank.get(number))


def higher_is_better(metric: str) -> bool:
    """What the metric of this name says of itself; one that is not installed is taken as a quality."""
    plugin = plugins.all_plugins("metric").get(metric.partition("@")[0])
    try:
        return plugin.load().higher_is_better if plugin else True
    except MethodError:
        return True


def _variant(name: str, names: Sequence[tuple[str, str]], lines: Sequence[Line]) -> Variant:
    metrics = tuple(metric for variant, metric in names if variant == name)
    headline = (name, metrics[0])
    sign = 1 if higher_is_better(metrics[0]) else -1

    def place(line: Line) -> tuple:
        number = line.numbers.get(headline)
        value = None if number is None else number.row.value
        return (number.rank or math.inf if number else math.inf, math.inf if value is None else -sign * value, line.label)

    present = sorted((line for line in lines if headline in line.numbers), key=place)
    rows = [line.numbers[headline].row for line in present]
    known = {which: {metric: _known(present, name, metric, which) for metric in metrics} for which in ("chance", "ceiling")}
    return Variant(
        name=name,
        metrics=metrics,
        lines=tuple(line for line in present if not line.method.control),
        controls=tuple(line for line in present if line.method.control),
        chance=known["chance"],
        ceiling=known["ceiling"],
        n_queries=max(row.n_queries for row in rows),
        n_studies=max(row.n_studies for row in rows),
    )


def _known(lines: Sequence[Line], variant: str, metric: str, which: str) -> float | None:
    numbers = [line.numbers[variant, metric] for line in lines if (variant, metric) in line.numbers]
    numbers.sort(key=lambda number: number.standing != "verified")
    return next((getattr(n.row, which) for n in numbers if getattr(n.row, which) is not None), None)
