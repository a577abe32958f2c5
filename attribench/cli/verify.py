"""`attribench verify`: is a copy of a data set whole? Is a submission what it says?"""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from attribench.data import Dataset
    from attribench.files.confined import Problem


def verify(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A data set's name, or the file of a submission.")],
    data_root: Annotated[Optional[Path], typer.Option(help="Folder of the real data, in the authors' layout.")] = None,
    edition: Annotated[
        Optional[Literal["mini", "paper"]], typer.Option(help="mini (shipped) or paper (needs --data-root).")
    ] = None,
    plugin: Annotated[list[Path], typer.Option(help="A Python file that defines the data set.")] = [],  # noqa: B006
    boards: Annotated[Path, typer.Option(help="Of a submission: the folder of the boards.")] = Path("leaderboards"),
    json: Annotated[bool, typer.Option("--json", help="One problem a line, as a JSON object; or the verdict as one.")] = False,
) -> None:
    """Look at every file of a data set, and list each that is missing, damaged or doubled, with its remedy.

    Of a submission, recompute every number from its scores: verified, or refused with one line for each reason.

    Example: attribench verify customconcept101 --data-root ~/data/customconcept101
    """
    if Path(dataset).is_file():
        from attribench.cli import verdict

        verdict.show(Path(dataset), boards, data_root, as_json=json)
        return
    from attribench import editions, plugins

    for path in plugin:
        plugins.add_file(path)
    refusal = None
    try:
        opened = editions.open_dataset(dataset, edition, data_root)
    except editions.Unusable as error:
        refusal, opened = error, error.dataset
    problems = _problems(opened)
    if json:
        for problem in problems:
            print(jsonlib.dumps(asdict(problem)))
    else:
        _show(problems)
    print(_summary(opened, problems), file=sys.stderr if json else sys.stdout)
    if refusal is not None:
        raise refusal
    raise typer.Exit(editions.DatasetError.exit_code if problems else 0)


def _problems(dataset: Dataset) -> list[Problem]:
    from attribench.cli.looking import looking
    from attribench.data import pictures

    with looking(dataset.n_images) as look, pictures.watched(look):
        return dataset.verify()


def _show(problems: Sequence[Problem]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from attribench.files.text import shown

    if not problems:
        return
    table = Table(box=SIMPLE_HEAD)
    for column in ("file", "fault", "remedy"):
        table.add_column(column, overflow="fold")
    for problem in problems:
        table.add_row(shown(problem.file), shown(problem.fault), shown(problem.remedy))
    Console(width=None if sys.stdout.isatty() else 160).print(table, markup=False, highlight=False)


def _summary(dataset: Dataset, problems: Sequence[Problem]) -> str:
    from attribench.files.text import shown

    number = {0: "no problem", 1: "1 problem"}.get(len(problems), f"{len(problems)} problems")
    return f"{dataset.name}, {dataset.edition} edition in {shown(str(dataset.root))}: looked at {dataset.contents}, {number}"
