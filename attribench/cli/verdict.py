"""`attribench verify FILE`: what the verifier says of a submission."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from attribench.errors import SubmissionError

if TYPE_CHECKING:
    from attribench.submissions.verify import Verdict


def show(path: Path, boards: Path, data_root: Path | None, *, as_json: bool) -> None:
    """Print the verdict, and of an accepted file the table with recomputed numbers. SubmissionError if it is refused."""
    from rich.console import Console

    from attribench.boards.adding import verdict_of
    from attribench.boards.board import Leaderboards
    from attribench.files.text import shown
    from attribench.report.table import show as show_table

    verdict, board = verdict_of(path, Leaderboards(boards), data_root)
    nowhere = "" if (boards / "boards").is_dir() else f": there are none in {shown(str(boards))}, --boards says where they are"
    if as_json:
        print(json.dumps(_as_json(verdict, board.name if board else None)))
    elif not verdict.accepted:
        for reason in verdict.reasons:
            print(f"{shown(str(path))}: refused: {reason}")
    else:
        console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
        show_table(verdict.rows, console)
        fits = f"fits the board {board.name}" if board else f"fits no board{nowhere}"
        print(f"{shown(str(path))}: {_summary(verdict)}; {fits}")
    if not verdict.accepted:
        raise SubmissionError(f"{shown(str(path))} is refused ({len(verdict.reasons)} reasons)")


def _summary(verdict: Verdict) -> str:
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
