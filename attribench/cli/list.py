"""`attribench list`: what there is to run."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from attribench.plugins import Plugin

BY_PRESET = "by preset"


def list_plugins(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List methods, data sets, metrics and protocols: what each is, what a method needs, what can be set."""
    from rich.console import Console

    from attribench import plugins

    rows = [_row(plugin) for kind in plugins.KINDS for _, plugin in sorted(plugins.all_plugins(kind).items())]
    rows.sort(key=lambda row: (plugins.KINDS.index(row["kind"]), row.get("control", False)))
    for clash in plugins.clashes():
        print(f"attribench: warning: {clash}", file=sys.stderr)
    if json:
        for row in rows:
            print(jsonlib.dumps(row))
        return
    console = Console()
    for title, alike in groupby(rows, _title):
        console.print(_table(title, list(alike)), markup=False, highlight=False)
        console.print()


def _row(plugin: Plugin) -> dict[str, Any]:
    """What there is to say of a plugin; of one that cannot be loaded, only why."""
    from attribench.errors import MethodError

    row: dict[str, Any] = {"kind": plugin.kind, "name": plugin.name, "origin": plugin.origin}
    try:
        cls = plugin.load()
    except MethodError as error:
        return row | {"error": str(error)}
    row |= {"summary": plugin.summary, "params": _params(cls)}
    if plugin.kind == "method":
        # Pictures, prompts and captions are granted to every method, so they are named where nothing else is.
        row |= {"needs": [access.name.lower() for access in cls.needs] or ["features"], "control": cls.control}
    return row


def _params(cls: type) -> dict[str, str]:
    """What can be set, with its default; a protocol's presets hold all of its own."""
    if hasattr(cls, "preset_type"):
        return dict.fromkeys(cls.preset_type.model_fields, BY_PRESET)
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return {field.name: _default(field) for field in fields}


def _default(field: dataclasses.Field) -> str:
    missing = type(dataclasses.MISSING)  # a plugin's class that travelled to a worker and back holds a copy of the value
    if not isinstance(field.default_factory, missing):
        return str(field.default_factory())
    return "required" if isinstance(field.default, missing) else str(field.default)


def _title(row: dict[str, Any]) -> str:
    if row.get("control"):
        return "controls: methods that every run holds beside the others"
    return "data sets" if row["kind"] == "dataset" else f"{row['kind']}s"


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    with_needs = any("needs" in row for row in rows)
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    table.add_column("name", no_wrap=True)
    if with_needs:
        table.add_column("needs", min_width=max(len(need) for row in rows for need in row.get("needs", ("",))))
    table.add_column("what it is, and its parameters", overflow="fold")
    for row in rows:
        params = ", ".join(key if value == BY_PRESET else f"{key}={value}" for key, value in row.get("params", {}).items())
        about = Text(row.get("error") or row["summary"])
        if params:
            given = " (given by its presets)" if BY_PRESET in row["params"].values() else ""
            about.append(f"\n{params}{given}", style="dim")
        table.add_row(row["name"], *([" ".join(row.get("needs", ()))] if with_needs else []), about)
    return table
