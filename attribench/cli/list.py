"""`attribench list`: what there is to run."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from typing import Annotated

import typer


def list_plugins(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List methods, data sets, protocols and metrics, each with one line and its hyper-parameters."""
    from rich.console import Console
    from rich.table import Table

    from attribench import plugins
    from attribench.errors import MethodError

    console = Console()
    for kind in plugins.KINDS:
        table = Table("name", "what it is", "parameters (default)", title=f"{kind}s", title_justify="left", box=None)
        for name, plugin in sorted(plugins.all_plugins(kind).items()):
            try:
                cls = plugin.load()
            except MethodError as error:
                table.add_row(name, str(error), "")
                continue
            fields = {f.name: _default(f) for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
            if json:
                row = {"kind": kind, "name": name, "summary": plugin.summary, "origin": plugin.origin, "params": fields}
                print(jsonlib.dumps(row))
            shown = ", ".join(f"{key}={value}" for key, value in fields.items())
            table.add_row(name, plugin.summary, shown)
        if not json:
            console.print(table, markup=False)
            console.print()


def _default(field: dataclasses.Field) -> str:
    return "required" if field.default is dataclasses.MISSING else str(field.default)
