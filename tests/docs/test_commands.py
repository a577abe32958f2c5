"""Every command that a page shows can be read, and names methods, data sets, metrics, protocols and fields that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from attribench import plugins
from attribench.cli import app
from attribench.cli.list import _row

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "leaderboards" / "README.md"]
COMMAND = re.compile(r"^(?: {4})?(?:pip install .* && )?attribench (?P<rest>(?:[^\n#]|\\\n)+)", re.MULTILINE)
PLACEHOLDER = re.compile(r"…|\.\.\.|[A-Z]{3}")
STRANGERS = {"mean-colour", "phash", "sign-agreement", "reciprocal_rank", "my-method", "my-metric", "my-data", "colour-histogram"}
"""What the pages teach how to make."""
KINDS = ("method", "dataset", "metric", "protocol")


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of the page's code, as lists of arguments; none that holds a placeholder."""
    code = re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL)
    code += ["\n".join(block.splitlines()) for block in re.findall(r"((?:^ {4}.+\n)+)", page.read_text(), re.MULTILINE)]
    for match in COMMAND.finditer("\n".join(code)):
        if not PLACEHOLDER.search(match["rest"]):
            yield shlex.split(match["rest"].replace("\\\n", " "))


SHOWN = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{page.stem}: {' '.join(c)}" for page, c in SHOWN])
def test_it_can_be_read_and_names_what_there_is(page, command):
    verb = typer.main.get_command(app)
    while hasattr(verb, "commands"):
        verb = verb.commands[command.pop(0)]
    given = verb.make_context("attribench", command).params
    for kind in KINDS:
        values = given.get(kind) or []
        for name in [values] if isinstance(values, str) else values:
            assert name in STRANGERS or plugins.find(kind, name)
    for setting in given.get("param") or ():
        owner, _, field = setting.partition("=")[0].partition(".")
        if owner not in STRANGERS:
            assert field.split(".")[0] in fields(owner), f"{owner} has no {field}"


def fields(owner: str) -> set[str]:
    found = [plugins.all_plugins(kind).get(owner) for kind in ("method", "metric", "protocol")]
    return set().union(*(_row(plugin)["params"] for plugin in found if plugin))
