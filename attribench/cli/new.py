"""`attribench new`: an installable package of a plugin that already works, from the templates beside the code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer


def new(
    kind: Annotated[Literal["method", "dataset", "metric"], typer.Argument(metavar="KIND", help="method, dataset or metric.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called, e.g. my-method.")],
    folder: Annotated[Optional[Path], typer.Option(help="Where to write the package; default: ./NAME.")] = None,
) -> None:
    """Write a package with a plugin that works, a test and a README that says how it goes on.

    Example: attribench new method my-method
    """
    from attribench import scaffold

    written = scaffold.write(kind, name, folder)
    for path in sorted(path for path in written.rglob("*.*") if path.suffix in (".md", ".py", ".toml")):
        print(path)
    print(f"next: see {written / 'README.md'}")
