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
    from attribench.submissions.verify import Verdict


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
        return _verify_submission(Path(dataset), boards, data_root, as_json=json)
    from attribench import editions, plugins
    from attribench.cli.looking import looking
    from attribench.data import Unusable, pictures
    from attribench.errors import DatasetError

    for path in plugin:
        plugins.add_file(path)
    refusal = None
    try:
        opened = editions.open_dataset(dataset, edition, data_root)
    except Unusable as error:
        refusal, opened = error, error.dataset
    with looking(opened.n_images) as look, pictures.watched(look):
        problems = opened.verify()
    if json:
        for problem in problems:
            print(jsonlib.dumps(asdict(problem)))
    else:
        _show(problems)
    print(_summary(opened, problems), file=sys.stderr if json else sys.stdout)
    if refusal is not None:
        raise refusal
    raise typer.Exit(DatasetError.exit_code if problems else 0)


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


def _verify_submission(path: Path, boards: Path, data_root: Path | None, *, as_json: bool) -> None:
    """Print the verdict, and of an accepted file the table with recomputed numbers. SubmissionError if it is refused."""
    from rich.console import Console

    from attribench.boards.adding import verdict_of
    from attribench.boards.board import Leaderboards
    from attribench.errors import SubmissionError
    from attribench.files.text import shown
    from attribench.report.table import show as show_table

    verdict, board = verdict_of(path, Leaderboards(boards), data_root)
    nowhere = "" if (boards / "boards").is_dir() else f": there are none in {shown(str(boards))}, --boards says where they are"
    if as_json:
        print(jsonlib.dumps(_as_json(verdict, board.name if board else None)))
    elif not verdict.accepted:
        for reason in verdict.reasons:
            print(f"{shown(str(path))}: refused: {reason}")
    else:
        console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
        show_table(verdict.rows, console)
        fits = f"fits the board {board.name}" if board else f"fits no board{nowhere}"
        print(f"{shown(str(path))}: {_of_submission(verdict)}; {fits}")
    if not verdict.accepted:
        raise SubmissionError(f"{shown(str(path))} is refused ({len(verdict.reasons)} reasons)")


def _of_submission(verdict: Verdict) -> str:
    metrics = {(row.variant, row.metric) for row in verdict.rows}
    own = metrics - verdict.verified
    if not own:
        return "verified: every number was recomputed from its scores, against truth that is known here"
    names = ", ".join(dict.fromkeys(row.metric for row in verdict.rows if (row.variant, row.metric) in own))
    rest = f"verified, but for {names}, which rest" if verdict.verified else f"self-reported: {names} rest"
    return f"every number was recomputed from its scores; {rest} on a truth that nobody but the submitter has seen"


def _as_json(verdict: Verdict, board: str | None) -> dict:
    rows = [row.model_dump(mode="json") | {"standing": verdict.standing(row)} for row in verdict.rows]
    return {
        "verdict": "refused" if not verdict.accepted else "verified" if verdict.verified else "self-reported",
        "reasons": verdict.reasons,
        "board": board,
        "rows": rows,
    }
