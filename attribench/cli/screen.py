"""What the command line shows of a run: the announcement, the steps, the table, the files."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from attribench.engine.plan import dry_run as dry_run_rows
from attribench.report import table
from attribench.report.record import Row
from attribench.report.words import duration, size

if TYPE_CHECKING:
    from attribench.run.execute import Result
    from attribench.run.prepared import Prepared

MINI_NOTICE = (
    "mini edition: openly licensed artwork and rendered objects at 64×64 and a tiny model, shipped with attribench. "
    "Its numbers compare methods with each other, not with the papers. --data-root takes the real data."
)


def announce(prepared: Prepared, *, quiet: bool) -> None:
    """What is about to be run; the first line names the edition."""
    console = Console(stderr=quiet)
    plan = prepared.plans[0]
    if prepared.dataset.edition == "mini":
        console.print(f"[bold]{prepared.dataset.name}[/bold], {MINI_NOTICE}")
    else:
        console.print(f"[bold]{prepared.dataset.name}[/bold], paper edition from {prepared.dataset.root}", highlight=False)
    for notice in (*prepared.dataset.notices, *prepared.protocol.notices(prepared.dataset, prepared.config.split)):
        console.print(notice, markup=False, highlight=False, soft_wrap=True)
    methods = ", ".join(e.plugin.name for e in prepared.methods if not e.method.control)
    taught = f"{len(plan.concepts)} concepts" if plan.concepts else f"{len(plan.training.images):,} images"
    console.print(
        f"{prepared.protocol.name}: {len(prepared.plans)} studies of {taught}, "
        f"{sum(len(p.roles('query')) for p in prepared.plans)} queries · methods: {methods} · {prepared.device}",
        highlight=False,
    )
    taught_by = Counter(concept for plan in prepared.plans for concept in plan.concepts)
    if n_shared := sum(count > 1 for count in taught_by.values()):
        console.print(
            f"{n_shared} concepts are part of more than one study, since the {prepared.config.split} split has too few: "
            "these studies are not independent, and intervals are a little too short",
            highlight=False,
        )
    for entry in prepared.methods:
        if entry.skipped is not None:
            console.print(f"{entry.plugin.name} cannot run here: {entry.skipped}", markup=False, highlight=False)


def dry_run(prepared: Prepared, *, as_json: bool) -> None:
    """The steps of a run, what is cached, and what the rest may cost."""
    rows = dry_run_rows(prepared.targets, prepared.store)
    if as_json:
        for row in rows:
            print(json.dumps({"step": str(row.step), "cached": row.cached, **asdict(row.estimate)}))
        return
    console = Console()
    announce(prepared, quiet=False)
    shown = Table("step", "number", "cached", "time", "memory", "disk", box=None)
    for kind in dict.fromkeys(row.step.name for row in rows):
        of = [row for row in rows if row.step.name == kind]
        shown.add_row(kind, str(len(of)), str(sum(row.cached for row in of)), *_costs(of))
    console.print(shown)
    time, memory, disk = _costs(rows)
    console.print(
        f"{sum(not row.cached for row in rows)} steps to run, {sum(row.cached for row in rows)} cached; about {time} of work "
        f"(on one worker), {memory} of memory a worker, {disk} of disk in {prepared.store.root}",
        highlight=False,
    )
    if prepared.further_at_most:
        console.print(
            f"not counted: models that are retrained once the scores are known, and depend on them; at most "
            f"{prepared.further_at_most} in all, whatever is already in the store",
            highlight=False,
        )


def _costs(rows: list) -> Iterator[str]:
    """Time in all, the largest memory, and disk in all."""
    for name, combine, write in (("seconds", sum, duration), ("peak_bytes", max, size), ("bytes", sum, size)):
        values = [getattr(row.estimate, name) for row in rows]
        yield "unknown" if None in values else write(combine(values))


def result(finished: Result, *, as_json: bool) -> None:
    """The table of a run that has just ended, and where its files are."""
    show_rows(finished.rows, as_json=as_json)
    for name, reason in finished.unserved.items():
        told = Console(stderr=as_json)
        told.print(f"the metric {name} has no numbers: {reason}", markup=False, highlight=False, soft_wrap=True)
    if not as_json:
        console = Console()
        console.print()
        for file, what in (
            ("report.html", "all of it on one page: open it in a browser"),
            ("top-five.png", "what each method found for some queries"),
            ("intervals.png", "every number with its interval"),
            *finished.prepared.protocol.pictures.items(),
            ("record.parquet", "the rows above; per_query.parquet: the values behind them"),
            ("scores", "scores with ids, one safetensors file per method, study and seed"),
            ("truth", "what scores are held against: labels, or retrained subsets and the losses under them; a file per study"),
            ("run.toml", f"attribench run {finished.folder / 'run.toml'} does the same again"),
        ):
            if (finished.folder / file).exists():
                console.print(f"{finished.folder / file}: {what}", markup=False, highlight=False, soft_wrap=True)
        if (models := finished.prepared.retrainings)["asked"]:
            asked, distinct, found = (f"{models[which]:,}" for which in ("asked", "distinct", "found"))
            console.print(
                f"retrained models: {asked} asked for, {distinct} distinct, {found} of these found in the store", highlight=False
            )
        console.print(f"took {duration(finished.seconds)}", highlight=False)


def show_rows(rows: Sequence[Row], *, as_json: bool) -> None:
    """The rows as a table, or one JSON object a line."""
    if as_json:
        for row in rows:
            print(row.model_dump_json())
    else:
        table.show(rows, Console(width=None if sys.stdout.isatty() else 160))
