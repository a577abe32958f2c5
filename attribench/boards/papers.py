"""What papers print of the same experiment, beside a board's own numbers; and which methods the two put in another order.

Values are not comparable: other pictures, other models, for captions another number of images left out. Orders are. Of
two methods that a paper orders and that are both on the board, verified, the board agrees, disagrees or does neither:

    metrics of one name        each is looked at alone
    cuts that differ (@K)      a paper orders two methods if it does so at every K that it prints, a board at every K of its own

A difference here is beyond doubt if its paired interval lies on one side of 0 and it holds after Holm's adjustment over the
pairs of the same metric and variant, since this is a claim about all of them. Nothing of this is typed in: `published.csv`
holds what is printed, the entries of the board all else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from attribench.boards.standings import Line, Standings, Variant
from attribench.boards.tables import markdown_table, markdown_text, value
from attribench.report.published import published
from attribench.report.record import metric_class
from attribench.report.words import NOTHING, decimal, published_what
from attribench.statistics.intervals import LEVEL, Difference, compare, holm
from attribench.statistics.two_way import compare_redrawn

FLAGGED = "†"


@dataclass(frozen=True)
class Pair:
    """Two methods in the order of a paper, the better one first."""

    variant: str
    printed_metrics: tuple[str, ...]
    metrics: tuple[str, ...]
    """On the board."""
    printed: tuple[str, str]
    """Their names in the paper."""
    names: tuple[str, str]
    """On the board."""
    printed_values: tuple[tuple[float, float], ...]
    values: tuple[tuple[float, float], ...]
    """Of each metric."""
    difference: Difference
    """First less second, by the first of the metrics on the board."""
    agrees: bool | None
    """None: the board does not order them the same way at all of its cuts, or not at all."""
    flag: str

    @property
    def beyond_doubt(self) -> bool:
        """Whether the difference holds among all that are looked at."""
        found = self.difference
        return (found.low > 0 or found.high < 0) and found.p_holm < 1 - LEVEL

    @property
    def text(self) -> str:
        """A sentence: who is above whom in print, and what is found here."""
        order = {True: "the same", False: "the other way round", None: "undecided"}[self.agrees]
        found = self.difference
        interval = "" if np.isnan(found.low) else f" [{decimal(found.low)}, {decimal(found.high)}]"
        doubt = "beyond doubt" if self.beyond_doubt else "not beyond doubt"
        own = "" if self.metrics == self.printed_metrics else f" by {_cuts(self.metrics)}"
        flag = f" The paper's row {self.flag}." if self.flag else ""
        return (
            f"{_cuts(self.printed_metrics)}, {self.variant}: {self.printed[0]} before {self.printed[1]} in print "
            f"({_values(self.printed_values, 'g')}); {order} here{own}: {self.names[0]} and {self.names[1]} "
            f"({_values(self.values, '.3f')}; difference {decimal(found.value)}{interval}, {doubt}).{flag}"
        )


@dataclass(frozen=True)
class Beside:
    """The published numbers of one variant of a board."""

    variant: str
    columns: tuple[tuple[str, str], ...]
    """(metric, "published" or "here")."""
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(name in the paper, name on the board or a dash, a cell for each column)."""
    pairs: tuple[Pair, ...]
    sources: str
    flags: tuple[str, ...]


def beside_papers(standings: Standings) -> tuple[Beside, ...]:
    """A table for each variant of which something is published; empty where no paper has the experiment."""
    experiment = standings.board.experiment
    found = []
    for variant in standings.variants:
        lines = [*variant.lines, *variant.controls]
        n_concepts = next((line.row.n_concepts for line in lines), None) or 0
        rows = published(experiment.dataset, experiment.protocol, variant.name, n_concepts)
        if not rows.empty:
            found.append(_beside(variant, rows, _own_lines(lines, variant), experiment.seed))
    return tuple(found)


def origin(standings: Standings, found: Sequence[Beside]) -> tuple[str, str]:
    """Why published values are not those of the board, and where they are printed."""
    return published_what(standings.lines[0].row), "; ".join(dict.fromkeys(beside.sources for beside in found))


def papers_markdown(standings: Standings, level: int = 2) -> str:
    """The tables and the disagreements, or a line that nothing is published. `level`: of the heading."""
    parts = [f"{'#' * level} Beside the papers\n"]
    found = beside_papers(standings)
    if not found:
        return "\n".join([*parts, "No paper prints numbers of this experiment.\n"])
    what, sources = origin(standings, found)
    parts.append(f"Published: {what}, so that orders can be compared and values cannot. From {sources}.\n")
    for beside in found:
        header = [beside.variant, "here", *(f"{metric} {side}" for metric, side in beside.columns)]
        lines = [header, *([printed, own, *cells] for printed, own, cells in beside.rows)]
        parts.append(markdown_table([markdown_text(cell) for cell in cells] for cells in lines) + "\n")
        parts += [f"{FLAGGED} {markdown_text(flag)}\n" for flag in beside.flags]
    parts.append(f"{'#' * (level + 1)} Where this board and the papers disagree\n")
    parts.append(f"{summary(found)}\n")
    if disagreeing := disagreements(found):
        parts.append("\n".join(f"- {markdown_text(pair.text)}" for pair in disagreeing) + "\n")
    return "\n".join(parts)


def disagreements(found: Sequence[Beside]) -> list[Pair]:
    """The pairs that the board puts in the other order, those beyond doubt first."""
    pairs = [pair for beside in found for pair in beside.pairs if pair.agrees is False]
    return sorted(pairs, key=lambda pair: not pair.beyond_doubt)


def summary(found: Sequence[Beside]) -> str:
    """How many pairs agree and how many do not, in a sentence."""
    pairs = [pair for beside in found for pair in beside.pairs]
    if not pairs:
        return "No two methods that a paper orders are both verified here."
    counts = {answer: [p for p in pairs if p.agrees is answer] for answer in (True, False, None)}
    certain = {answer: sum(pair.beyond_doubt for pair in of) for answer, of in counts.items()}
    return (
        f"Orders of two methods in print: {len(pairs)}. The same here: {len(counts[True])} ({certain[True]} beyond doubt). "
        f"The other way round: {len(counts[False])} ({certain[False]} beyond doubt). Undecided: {len(counts[None])}."
    )


# ---------------------------------------------------------------------------------------- parts


def _own_lines(lines: Sequence[Line], variant: Variant) -> dict[str, Line]:
    """The line of each method: of several with other hyper-parameters, the one that was run first."""
    first: dict[str, Line] = {}
    verified = [line for line in lines if line.numbers[variant.headline].standing == "verified"]
    for line in sorted(verified, key=lambda line: (line.statement.finished, line.entry.digest)):
        first.setdefault(line.method.name, line)
    return first


def _beside(variant: Variant, rows: pd.DataFrame, own: dict[str, Line], seed: int) -> Beside:
    groups = _groups(rows, variant)
    columns = tuple(
        column for printed, here in groups
        for column in (*((metric, "published") for metric in printed), *((metric, "here") for metric in here))
    )  # fmt: skip
    table = []
    for name, of_method in rows.groupby("method", sort=False):
        line = own.get(of_method["plugin"].iloc[0])
        said = {n.metric: f"{n.value:g}{f' {FLAGGED}' if n.flag else ''}" for n in of_method.itertuples()}
        cells = tuple(
            said.get(metric, NOTHING) if side == "published" else
            NOTHING if line is None else value(line.numbers.get((variant.name, metric)))
            for metric, side in columns
        )  # fmt: skip
        table.append((name, NOTHING if line is None else line.method.name, cells))
    pairs = [pair for printed, here in groups if here for pair in _pairs(variant, rows, printed, here, own, seed)]
    flags = tuple(flag for flag in rows["flag"].unique() if flag)
    return Beside(variant.name, columns, tuple(table), tuple(pairs), ", ".join(rows["source"].unique()), flags)


def _groups(rows: pd.DataFrame, variant: Variant) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Metrics in print, and those of the board that they are held against."""
    printed = list(dict.fromkeys(rows["metric"]))
    groups = [((metric,), (metric,)) for metric in printed if metric in variant.metrics]
    cut = [metric for metric in printed if metric not in variant.metrics]
    for kind in dict.fromkeys(_kind(metric) for metric in cut):
        of_kind = tuple(metric for metric in cut if _kind(metric) == kind)
        groups.append((of_kind, tuple(metric for metric in variant.metrics if _kind(metric) == kind)))
    return groups


def _kind(metric: str) -> str:
    return metric.partition("@")[0]


def _pairs(
    variant: Variant, rows: pd.DataFrame, printed: tuple[str, ...], here: tuple[str, ...], own: dict[str, Line], seed: int
) -> list[Pair]:
    sign = 1 if metric_class(here[0]).higher_is_better else -1
    rows = rows[rows["metric"].isin(printed)]
    said = rows.pivot(index="method", columns="metric", values="value")[list(printed)]
    plugin = dict(zip(rows["method"], rows["plugin"], strict=True))
    lines = {name: own[plugin[name]] for name in plugin if plugin[name] in own}
    lines = {name: line for name, line in lines.items() if all(line.verified(variant.name, metric) for metric in here)}
    ordered = []
    for a, b in combinations(lines, 2):
        ahead = (sign * (said.loc[a] - said.loc[b])).dropna()
        order = set(np.sign(ahead))
        if order in ({1.0}, {-1.0}):
            ordered.append(((a, b) if order == {1.0} else (b, a), tuple(ahead.index)))
    differences = _differences(variant, here[0], lines, [names for names, _ in ordered], seed)
    found = []
    for (names, metrics), difference in zip(ordered, differences, strict=True):
        first, second = (lines[name] for name in names)
        values = tuple(tuple(line.numbers[variant.name, metric].row.value for line in (first, second)) for metric in here)
        order = {np.sign(sign * (a - b)) for a, b in values}
        flagged = rows[rows["method"].isin(names) & rows["metric"].isin(metrics) & (rows["flag"] != "")]
        found.append(
            Pair(
                variant=variant.name, printed_metrics=metrics, metrics=here, printed=names,
                names=(first.method.name, second.method.name), values=values, difference=difference,
                printed_values=tuple((said.loc[names[0], metric], said.loc[names[1], metric]) for metric in metrics),
                agrees={1.0: True, -1.0: False}.get(order.pop()) if len(order) == 1 else None,
                flag=flagged["flag"].iloc[0] if len(flagged) else "",
            )
        )  # fmt: skip
    return found


def _differences(
    variant: Variant, metric: str, lines: dict[str, Line], pairs: list[tuple[str, str]], seed: int
) -> list[Difference]:
    """Of each pair, on the same resamples; where subsets were drawn, on those of the entries."""
    keys = {name: (line.method.name, variant.name, metric) for name, line in lines.items()}
    if pairs and all(keys[name] in lines[name].entry.means for name in lines):
        values = {name: lines[name].numbers[variant.name, metric].row.value for name in lines}
        means = {name: lines[name].entry.means[keys[name]] for name in lines}
        alone = [
            compare_redrawn({n: values[n] for n in pair}, {n: means[n] for n in pair}, variant.n_studies)[0] for pair in pairs
        ]
        adjusted = holm(np.array([found.p for found in alone]))
        return [replace(found, p_holm=float(p)) for found, p in zip(alone, adjusted, strict=True)]
    values = {name: line.entry.values[keys[name]] for name, line in lines.items()}
    studies = next((line.entry.studies[variant.name] for line in lines.values()), ())
    return compare(values, studies, pairs=pairs, seed=seed)


def _cuts(metrics: tuple[str, ...]) -> str:
    """delta_loss@500, @1000."""
    return ", ".join([metrics[0], *(metric.removeprefix(_kind(metric)) for metric in metrics[1:])])


def _values(values: Sequence[tuple[float, float]], form: str) -> str:
    return ", ".join(f"{a:{form}} and {b:{form}}" for a, b in values)
