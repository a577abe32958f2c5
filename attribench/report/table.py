"""The record as tables for a terminal or a pipe.

One table per variant: methods by the rank of its first metric (the headline: protocols name recall first), controls
apart, the value of chance, and what each method cost. Where a table is wider than the console it is split into
several, each beginning with the methods; no value is ever cut short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from attribench.files.text import shown
from attribench.report.published import by_variant, published
from attribench.report.record import Row
from attribench.report.words import EDITIONS, NOTHING, TUNING, by_rank, decimal, duration, published_what, size, warning_of


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the record: a line on what was run, a table per variant, why methods are missing, published numbers."""
    if not rows:
        console.print("the record holds no rows: no method was run")
        return
    console.print(_headline(rows))
    n_studies = max(row.n_studies for row in rows)
    if n_studies == 1 and any(row.low is not None for row in rows):
        console.print("One study: intervals are of this single model, over its queries and subsets; no rank.")
    elif n_studies == 1:
        console.print("One study: no interval and no rank, since neither means anything over a single model.")
    elif warning := warning_of(rows):
        console.print(warning)
    if any(row.tuning for row in rows):
        console.print(TUNING, soft_wrap=True)
    for variant in dict.fromkeys(row.variant for row in rows):
        _show_variant(variant, [row for row in rows if row.variant == variant], console)
    _show_reasons(rows, console)
    _show_published(rows[0], console)


def _headline(rows: Sequence[Row]) -> Text:
    row = rows[0]
    variants = dict.fromkeys(r.variant for r in rows)
    n_queries = sum(max(r.n_queries for r in rows if r.variant == variant) for variant in variants)
    concepts = f", {row.n_concepts} concepts" if row.n_concepts else ""
    parts = [
        f"{shown(row.dataset)}, {EDITIONS[row.edition]}",
        f"{shown(row.protocol)}{concepts}, {row.split} split",
        f"{max(r.n_studies for r in rows)} studies",
        f"{n_queries} queries",
        *([f"a box of each picture ({row.region})"] if row.region else []),
        row.device,
    ]
    return Text(" · ".join(parts), style="bold")


@dataclass
class Column:
    """A column of the variant's table: header, cell per method label, the value of chance and the best possible."""

    header: str
    cells: dict[str, Text]
    chance: str = ""
    ceiling: str = ""


def _show_variant(variant: str, rows: list[Row], console: Console) -> None:
    labels = by_rank(rows)
    controls = [label for label in labels if any(row.control for row in rows if row.label == label)]
    methods = [label for label in labels if label not in controls]
    n_queries, n_studies = max(row.n_queries for row in rows), max(row.n_studies for row in rows)
    groups = [[_metric_column(metric, rows)] for metric in dict.fromkeys(row.metric for row in rows)] + [cost_columns(rows)]
    console.print(Text(f"\n{shown(variant)}: {n_queries} queries of {n_studies} studies", style="bold"))
    for columns in _packed(groups, methods, controls, console):
        console.print()
        console.print(_table(columns, methods, controls))


def _packed(groups: list[list[Column]], methods: list[str], controls: list[str], console: Console) -> Iterator[list[Column]]:
    """The groups of columns in as few tables as the console's width allows, in order; a group stays together."""
    unlimited = console.options.update_width(10_000)
    current: list[Column] = []
    for group in groups:
        wider = [*current, *group]
        if current and Measurement.get(console, unlimited, _table(wider, methods, controls)).maximum > console.width:
            yield current
            wider = group
        current = wider
    yield current


def plain_table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """A table with these headers of columns of text, and of columns of numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for header in texts:
        table.add_column(header, overflow="fold")
    for header in numbers:
        table.add_column(header, justify="right", overflow="fold")
    return table


def _table(columns: list[Column], methods: list[str], controls: list[str]) -> Table:
    table = plain_table(["method"], [column.header for column in columns])
    for group, style in ((methods, ""), (controls, "dim")):
        for label in group:
            table.add_row(Text(shown(label)), *(column.cells[label] for column in columns), style=style)
        table.add_section()
    if any(column.chance for column in columns):
        table.add_row("chance", *(column.chance for column in columns), style="dim")
        table.add_row("best possible", *(column.ceiling for column in columns), style="dim")
    return table


def _metric_column(metric: str, rows: list[Row]) -> Column:
    of_metric = {row.label: row for row in rows if row.metric == metric}
    headline = metric == rows[0].metric
    cells = {row.label: Text(NOTHING) for row in rows}
    ranked = any(row.rank for row in of_metric.values())
    for label, row in of_metric.items():
        if row.value is not None:
            interval = "" if row.low is None else f" [{decimal(row.low)}, {decimal(row.high)}]"
            rank = f" {row.rank if row.rank else NOTHING:>2}" if ranked else ""
            cells[label] = Text(f"{decimal(row.value)}{interval}{rank}", style="bold" if row.rank == 1 else "")
        elif headline and row.status != "ok":
            cells[label] = Text(row.status, style="yellow" if row.status == "unavailable" else "red")
    chance, ceiling = (
        next((getattr(row, known) for row in of_metric.values() if getattr(row, known) is not None), None)
        for known in ("chance", "ceiling")
    )
    has_interval = any(row.low is not None for row in of_metric.values())
    return Column(
        f"{shown(metric)}\n{'value [95 %]' if has_interval else 'value'}{' rank' if ranked else ''}",
        cells,
        *("" if known is None else decimal(known) for known in (chance, ceiling)),
    )


def cost_columns(rows: list[Row]) -> list[Column]:
    """What each method cost. The numbers are the same for every metric of a method."""
    costs: list[tuple[str, str, Callable[[float], str]]] = [
        ("fit\ntime", "fit_seconds", duration),
        ("time per\nquery", "query_seconds", duration),
        ("peak\nmemory", "peak_bytes", size),
        ("stored per\nimage", "bytes_per_train_image", size),
    ]
    if any(row.extra_training_seconds for row in rows):
        costs.append(("further\ntrainings", "extra_training_seconds", duration))
    by_label = {row.label: row for row in rows}
    return [
        Column(header, {k: Text(NOTHING if (cost := getattr(r, name)) is None else write(cost)) for k, r in by_label.items()})
        for header, name, write in costs
    ]


def _show_reasons(rows: Sequence[Row], console: Console) -> None:
    """Why each method without numbers has none, once."""
    for label, status, reason in dict.fromkeys((row.label, row.status, row.reason) for row in rows if row.reason):
        style = "yellow" if status == "unavailable" else "red"
        line = shown(" ".join(reason.split()))
        console.print(Text.assemble((f"{shown(label)} {status}: ", style), line), soft_wrap=True)


def _show_published(row: Row, console: Console) -> None:
    """The papers' numbers, apart from ours."""
    numbers = published(row.dataset, row.protocol, n_concepts=row.n_concepts or 0)
    if numbers.empty:
        return
    sources = ", ".join(numbers["source"].unique())
    console.print(Text(f"\npublished, {published_what(row)}", style="bold"), Text(f"({sources})"))
    for variant, metrics, lines in by_variant(numbers, lambda n: f"{decimal(n.value)}{' †' if n.flag else '  '}"):
        table = plain_table([variant], metrics)
        for method, cells in lines:
            table.add_row(method, *cells)
        console.print()
        console.print(table)
    for flag in numbers["flag"].unique():
        if flag:
            console.print(f"† {flag}")
