"""`attribench plugins`: what each plugin is, where it came from, under which licence, and whether it loads."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from attribench.plugins import Plugin

NOT_STATED = "not stated"


def show_plugins(
    plugin: Annotated[list[Path], typer.Option(help="Also look at this plugin file.")] = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show every plugin with its package, version, licence and place, and why one cannot be used."""
    from attribench import plugins
    from attribench.files.text import shown

    for path in plugin:
        plugins.add_file(path)
    rows = []
    for kind in plugins.KINDS:
        rows += [_row(found) for _, found in sorted(plugins.all_plugins(kind).items())]
        rows += [_row(clash.plugin) | {"state": "not used", "reason": str(clash)} for clash in plugins.clashes(kind)]
    if json:
        for row in rows:
            print(jsonlib.dumps(row))
    else:
        _show(rows)
        for row in rows:
            if row["reason"] is not None:
                print(shown(f"{row['kind']} {row['name']} {row['state']}: {row['reason']}"))
    for clash in plugins.clashes():
        print(f"attribench: warning: {clash}", file=sys.stderr)
    raise typer.Exit(5 if any(row["state"] == "broken" for row in rows) else 0)


def _row(plugin: Plugin) -> dict[str, str | None]:
    """What there is to say of a plugin. `reason` says why it cannot be used, if it cannot."""
    from attribench.errors import MethodError

    row = {
        "kind": plugin.kind,
        "name": plugin.name,
        "version": plugin.distribution.version if plugin.distribution else None,
        "distribution": plugin.distribution.name if plugin.distribution else None,
        "licence": plugin.licence,
        "origin": plugin.origin,
        "place": plugin.place,
        "state": "ok",
        "reason": None,
    }
    try:
        plugin.load()
    except MethodError as error:
        row |= {"state": "broken", "reason": " ".join(str(error).split())}
    return row


def _show(rows: list[dict[str, str | None]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from attribench.files.text import shown

    table = Table(box=None)
    for column in ("kind", "name", "version", "distribution", "licence", "from", "state"):
        table.add_column(column, overflow="fold")
    for row in rows:
        from_file = row["distribution"] is None
        cells = (
            row["kind"], row["name"], row["version"] or "–", row["distribution"] or "–", row["licence"] or NOT_STATED,
            row["origin"] if from_file else row["place"], row["state"],
        )  # fmt: skip
        table.add_row(*(Text(shown(cell)) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
