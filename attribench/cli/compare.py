"""`attribench compare`: paired differences between runs of the same studies, or between the methods of one."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from attribench.report.comparison import Compared
    from attribench.statistics.intervals import Difference


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN …", help="Run folders of the same studies.")],
    method: Annotated[list[str], typer.Option("--method", "-m", help="Only this method. Repeatable.")] = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="One difference a line, as a JSON object.")] = False,
) -> None:
    """Compare runs: the same method in two runs, query by query; or, where they share none, each with each.

    Of one run alone its methods are compared with each other.

    Example: attribench compare runs/before runs/after
    """
    from attribench.report.comparison import compare_runs

    found, notes = compare_runs(runs, method)
    for note in notes:
        print(note, file=sys.stderr)
    if json:
        for one in found:
            for difference in one.differences:
                print(jsonlib.dumps(_as_json(one, difference)))
    else:
        _show(found)


def _as_json(one: Compared, difference: Difference) -> dict:
    told = {name: value if value == value else None for name, value in asdict(difference).items()}  # JSON knows no NaN
    counts = {"n_queries": one.n_queries, "n_studies": one.n_studies}
    return {"variant": one.variant, "metric": one.metric, **told, **counts}


def _show(found: list[Compared]) -> None:
    from rich.console import Console
    from rich.text import Text

    from attribench.files.text import shown
    from attribench.report.table import plain_table

    console = Console(width=None if sys.stdout.isatty() else 160)
    for one in found:
        direction = "higher is better" if one.higher_is_better else "lower is better"
        title = f"\n{shown(one.variant)}, {shown(one.metric)} ({direction}): {one.n_queries} queries of {one.n_studies} studies"
        console.print(Text(title, style="bold"))
        table = plain_table(["first", "second"], [])
        for header in ("first − second [95 %]", "p (Holm)"):
            table.add_column(header, justify="right")
        for difference in one.differences:
            known = difference.low == difference.low
            interval = f" [{difference.low:+.3f}, {difference.high:+.3f}]" if known else ""
            apart = known and (difference.low > 0 or difference.high < 0) and difference.p_holm < 0.05
            table.add_row(
                shown(str(difference.first)),
                shown(str(difference.second)),
                f"{difference.value:+.3f}{interval}",
                f"{difference.p_holm:.3f}" if difference.p_holm == difference.p_holm else "–",
                style="bold" if apart else "",
            )
        console.print(table)
