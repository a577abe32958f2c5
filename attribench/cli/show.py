"""`attribench show`: the table of a finished run, from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="A run folder (it holds record.parquet).")],
    json: Annotated[bool, typer.Option("--json", help="The rows, one JSON object a line.")] = False,
) -> None:
    """Show the table of a finished run, after checking the record's invariants."""
    from attribench.cli.screen import show_rows
    from attribench.report.record import read

    show_rows(read(run), as_json=json)
