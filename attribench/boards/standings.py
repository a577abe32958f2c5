"""From the entries of a board to what its page shows: one line for each method, ranked against all others.

A line is a method with its hyper-parameters and origin. Submitted twice it is shown once: verified before self-reported,
then the first. Ranks are among numbers that were verified, all against one truth; a self-reported number has none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from attribench.boards.board import Board
from attribench.boards.entry import Entry
from attribench.report.record import Row, metric_class
from attribench.statistics.agreement import SAME_RANKS
from attribench.statistics.ranking import shared_ranks, shared_ranks_redrawn
from attribench.submissions.statement import Method, Statement
from attribench.submissions.verify import Standing

GROUPS = ("features", "gradients", "checkpoints", "training", "trajectory")


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
    def needs(self) -> tuple[str, ...]:
        """What it may touch."""
        return self.method.needs or ("features",)

    @property
    def group(self) -> str:
        """What decides its colour: the most that it needs."""
        dearest_first = ("training", "checkpoints", "trajectory", "gradients")
        return next((need for need in dearest_first if need in self.needs), "features")

    @property
    def doubt(self) -> str:
        """Why its numbers are not what they are called, where the scores show it; or nothing."""
        alike = self.entry.alike.get(self.method.name, 0.0)
        if alike < SAME_RANKS:
            return ""
        return f"its seeds rank alike (Spearman {alike:.4f}): what it draws and learns changes nothing, and this is its start"

    def verified(self, variant: str, metric: str) -> bool:
        """Whether it has a value of this metric, and a verified one."""
        number = self.numbers.get((variant, metric))
        return number is not None and number.row.value is not None and number.standing == "verified"


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

    @property
    def headline(self) -> tuple[str, str]:
        """Its key in `Line.numbers`."""
        return self.name, self.metrics[0]


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
    for entry in sorted(entries, key=lambda e: ("verified" not in e.standing.values(), e.statement.finished, e.digest)):
        for method in entry.statement.methods:
            identity = json.dumps([method.name, method.tuned, method.params, method.plugin], sort_keys=True)
            if method.control:  # every submission brings them, and they are the same
                identity = method.name
            chosen.setdefault(identity, Line(method, entry))
    return list(chosen.values())


def _rank(lines: Sequence[Line], variant: str, metric: str, seed: int) -> None:
    """Put the numbers of one metric into the lines, with ranks among the verified ones."""
    column = (variant, metric)
    for line in lines:
        row = line.entry.row(line.method.name, *column)
        if row is not None:
            line.numbers[column] = Number(row, line.entry.standing[column], None)
    ranked = [
        line for line in lines if line.verified(*column) and np.isfinite(line.entry.values[line.method.name, *column]).any()
    ]
    if not ranked:
        return
    first, higher = ranked[0].entry, metric_class(metric).higher_is_better
    if (ranked[0].method.name, *column) in first.means:
        values = np.array([line.numbers[column].row.value for line in ranked])
        means = np.stack([line.entry.means[line.method.name, *column] for line in ranked])
        ranks = shared_ranks_redrawn(values, means, len(set(first.studies[variant])), higher_is_better=higher)
    else:
        values = np.stack([line.entry.values[line.method.name, *column] for line in ranked])
        ranks = shared_ranks(values, np.array(first.studies[variant]), higher_is_better=higher, seed=seed)
    for line, rank in zip(ranked, ranks, strict=True):
        line.numbers[column] = replace(line.numbers[column], rank=rank)


def _variant(name: str, names: Sequence[tuple[str, str]], lines: Sequence[Line]) -> Variant:
    metrics = tuple(metric for variant, metric in names if variant == name)
    headline = (name, metrics[0])
    sign = 1 if metric_class(metrics[0]).higher_is_better else -1

    def place(line: Line) -> tuple[float, float, str]:
        number = line.numbers[headline]
        return number.rank or math.inf, math.inf if number.row.value is None else -sign * number.row.value, line.label

    present = sorted((line for line in lines if headline in line.numbers), key=place)
    rows = [line.numbers[headline].row for line in present]
    return Variant(
        name=name,
        metrics=metrics,
        lines=tuple(line for line in present if not line.method.control),
        controls=tuple(line for line in present if line.method.control),
        chance={metric: _known(present, name, metric, "chance") for metric in metrics},
        ceiling={metric: _known(present, name, metric, "ceiling") for metric in metrics},
        n_queries=max(row.n_queries for row in rows),
        n_studies=max(row.n_studies for row in rows),
    )


def _known(lines: Sequence[Line], variant: str, metric: str, which: str) -> float | None:
    numbers = [line.numbers[variant, metric] for line in lines if (variant, metric) in line.numbers]
    numbers.sort(key=lambda number: number.standing != "verified")
    return next((getattr(n.row, which) for n in numbers if getattr(n.row, which) is not None), None)
