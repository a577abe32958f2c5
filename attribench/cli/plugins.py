"""`attribench plugins`: where each plugin came from, and whether it loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show_plugins(
    plugin: Annotated[list[Path], typer.Option(help="Also look at this plugin file.")] = [],  # noqa: B006
) -> None:
    """Show every plugin with its origin, and the reason if it cannot be loaded."""
    from rich.console import Console
    from rich.table import Table

    from attribench import plugins
    from attribench.errors import AttribenchError

    for path in plugin:
        plugins.add_file(path)
    table = Table("kind", "name", "from", "state", box=None)
    broken = False
    for kind in plugins.KINDS:
        for name, found in sorted(plugins.all_plugins(kind).items()):
            try:
                found.load()
                state = "ok"
            except AttribenchError as error:
                state, broken = str(error), True
            table.add_row(kind, name, found.origin, state)
    Console().print(table, markup=False)
    raise typer.Exit(5 if broken else 0)
