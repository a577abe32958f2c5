"""`attribench check`: does a method do what every method is held to?"""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from attribench.interface import AttributionMethod
    from attribench.plugins import Plugin

Opt = typer.Option
COLOURS = {"passed": "green", "failed": "red", "exempt": "yellow", "not judged": "yellow"}


def check(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method's name.")],
    plugin: Annotated[list[Path], Opt(help="A Python file that defines it. It runs with your rights.")] = [],  # noqa: B006
    param: Annotated[list[str], Opt("--param", "-p", help="method.name=value. Repeatable.")] = [],  # noqa: B006
    store: Annotated[Optional[Path], Opt(help="Where the study that it is checked on is kept.")] = None,
    json: Annotated[bool, Opt("--json", help="One verdict a line, as a JSON object.")] = False,
) -> None:
    """Hold a method to what every method must do, on a small study with the tiny model; one line for each check.

    Example: attribench check my-method --plugin mine.py
    """
    from rich.console import Console
    from rich.text import Text

    from attribench import plugins
    from attribench.files.text import shown

    for path in plugin:
        plugins.add_file(path)
    found = plugins.find("method", method)
    configured = _configured(found, param)

    from attribench import conformance  # loads torch, which takes seconds: after what can be wrong with the command line

    subject = conformance.Subject(configured, conformance.World.open(store), found.name)
    console = Console(stderr=json, markup=False, highlight=False)
    console.print(f"{found.name}, by {found.origin}")
    if reduced := _reduced(configured):
        console.print(f"checked with {reduced}, as the method asks, in place of its own counts", soft_wrap=True)
    failed = 0
    for check in conformance.CHECKS:
        if sys.stderr.isatty():
            print(f"{check.name} …", end="\r", file=sys.stderr, flush=True)
        verdict = check(subject)
        failed += not verdict.ok
        if json:
            print(jsonlib.dumps(asdict(verdict) | {"about": check.about}), flush=True)
        else:
            status = (f"{verdict.status:<10}", COLOURS[verdict.status])
            line = Text.assemble(status, f"  {verdict.check:<16}  {shown(verdict.what)}")
            console.print(line, soft_wrap=True)
    n = len(conformance.CHECKS)
    summary = f"{failed} of {n} checks did not pass; attribench/conformance says what each asks" if failed else "conforms"
    console.print(f"{subject.method.name}: {summary}")
    raise typer.Exit(1 if failed else 0)


def _configured(found: Plugin, param: list[str]) -> AttributionMethod:
    from attribench import plugins
    from attribench.errors import UsageError
    from attribench.run.config import parameters

    values = parameters(param, {})
    for owner in values:
        if plugins.canonical(owner) != plugins.canonical(found.name):
            raise UsageError(f"--param {owner}.…: {found.name} is what is checked; write {found.name}.name=value")
    given = {field: value for of_owner in values.values() for field, value in of_owner.items()}
    cls = found.load()
    return plugins.configure(cls, {**cls.checked_with, **given}, found.name)


def _reduced(method: AttributionMethod) -> str:
    """The counts that are those of `checked_with` and not the method's own or the user's."""
    return ", ".join(f"{name}={count}" for name, count in method.checked_with.items() if getattr(method, name) == count)
