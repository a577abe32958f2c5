"""What the command line shows: the announcement, the progress, the table, the files."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from attribench.cli.progress import listener_for
from attribench.engine.listener import Listener
from attribench.engine.plan import dry_run as dry_run_rows
from attribench.report import record as records
from attribench.report import table

if TYPE_CHECKING:
    from attribench.run.execute import Result
    from attribench.run.prepared import Prepared

MINI_NOTICE = (
    "mini edition: openly licensed artwork and rendered objects at 64×64 and a tiny model, shipped with attribench. "
    "Its numbers compare methods with each other, not with the papers. --data-root takes the real data."
)


def listener(*, as_json: bool) -> Listener:
    """Where the progress of a run goes."""
    return listener_for(as_json)


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
    shared = _shared_concepts(prepared)
    if shared:
        console.print(
            f"{len(shared)} concepts are part of more than one study, since the {prepared.config.split} split has too few: "
            "these studies are not independent, and intervals are a little too short",
            highlight=False,
        )
    for entry in prepared.methods:
        if entry.skipped is not None:
            console.print(f"{entry.plugin.name} cannot run here: {entry.skipped}", markup=False, highlight=False)


def _shared_concepts(prepared: Prepared) -> list[str]:
    counts = Counter(concept for plan in prepared.plans for concept in plan.concepts)
    return [concept for concept, count in counts.items() if count > 1]


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
    kinds = dict.fromkeys(row.step.name for row in rows)
    for kind in kinds:
        of = [row for row in rows if row.step.name == kind]
        cached = sum(row.cached for row in of)
        shown.add_row(
            kind,
            str(len(of)),
            str(cached),
            _total(of, "seconds", table.duration),
            _largest(of, "peak_bytes"),
            _total(of, "bytes", table.size),
        )
    console.print(shown)
    console.print(
        f"{sum(not row.cached for row in rows)} steps to run, {sum(row.cached for row in rows)} cached; "
        f"about {_total(rows, 'seconds', table.duration)} of work (on one worker), {_largest(rows, 'peak_bytes')} of memory "
        f"a worker, {_total(rows, 'bytes', table.size)} of disk in {prepared.store.root}",
        highlight=False,
    )
    if prepared.further_at_most:
        console.print(
            f"not counted: models that are retrained once the scores are known, and depend on them; at most "
            f"{prepared.further_at_most} in all, whatever is already in the store",
            highlight=False,
        )


def _total(rows: list, name: str, write) -> str:
    values = [getattr(row.estimate, name) for row in rows]
    return "unknown" if None in values else write(sum(values))


def _largest(rows: list, name: str) -> str:
    values = [getattr(row.estimate, name) for row in rows]
    return "unknown" if None in values else table.size(max(values))


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
        console.print(f"took {table.duration(finished.seconds)}", highlight=False)


def record(folder: Path, *, as_json: bool) -> None:
    """The table of a run folder."""
    show_rows(records.read(folder), as_json=as_json)


def show_rows(rows: Sequence[records.Row], *, as_json: bool) -> None:
    """The rows as a table, or one JSON object a line."""
    if as_json:
        for line in records.to_json_lines(rows):
            print(line)
    else:
        table.show(rows, Console(width=None if sys.stdout.isatty() else 160))
