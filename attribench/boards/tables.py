"""A board's tables as Markdown, CSV and LaTeX: the same numbers as its page, every text escaped for the format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from attribench.boards.standings import Line, Number, Standings
from attribench.report.words import NOTHING, decimal, duration, size

_LATEX = str.maketrans({character: f"\\{character}" for character in "{}$&#%_"} | {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
})  # fmt: skip
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|`*_[]"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def markdown_text(text: str) -> str:
    """As a cell of a table shows it, whatever it holds."""
    return " ".join(text.split()).translate(_MARKDOWN)


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """Of cells as Markdown; the first row is the header."""
    header, *rest = rows
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rest))


def latex_text(text: str) -> str:
    """As LaTeX prints it, whatever it holds."""
    return " ".join(text.split()).translate(_LATEX)


def csv_text(cell: Any) -> Any:
    """A text that no spreadsheet takes for a formula; what is no text as it is."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in tuple("=+-@\t\r") else cell


def budget(line: Line) -> str:
    """What it takes beside fitting and scoring: models of each study, and seconds to train further ones."""
    row = line.row
    models = f"{row.n_models} models" if row.n_models > 1 else "1 model"
    further = row.extra_training_seconds
    return f"{models}, {duration(further)} to train" if further else models


def costs(line: Line) -> list[tuple[str, str]]:
    """To fit, of a query, of a training image, and the budget: the number to sort by, and what is shown."""
    row = line.row
    known = ((row.fit_seconds, duration), (row.query_seconds, duration), (row.bytes_per_train_image, size))
    models = f"{row.n_models + (row.extra_training_seconds or 0) / 1e6:.8g}"
    return [*(("" if cost is None else f"{cost:.6g}", stated(cost, write)) for cost, write in known), (models, budget(line))]


def stated(number: float | None, write: Callable[[float], str] = decimal) -> str:
    """A number, or a dash."""
    return NOTHING if number is None else write(number)


def value(number: Number | None) -> str:
    """0.747 [0.701, 0.781], with a dagger if it is self-reported."""
    if number is None or number.row.value is None:
        return NOTHING
    row = number.row
    interval = "" if row.low is None else f" [{decimal(row.low)}, {decimal(row.high)}]"
    return f"{decimal(row.value)}{interval}{'' if number.standing == 'verified' else ' †'}"


SELF_REPORTED = "† self-reported: the number rests on a truth that nobody but the submitter has seen."
SEEDS_ALIKE = "‡ its seeds rank alike: what it draws and learns changes nothing, and the number is that of its start."
HEADER = ("fit", "per query", "stored per image", "budget", "checked", "date")


def markdown(standings: Standings) -> str:
    """Every variant as a table, with its chance and ceiling."""
    definition = standings.board.definition
    parts = [f"# {markdown_text(definition.title)}\n\n{markdown_text(definition.question)}\n"]
    for variant in standings.variants:
        header = ["rank", "method", "needs", *variant.metrics, *HEADER]
        rows = []
        for line in (*variant.lines, *variant.controls):
            first = line.numbers[variant.headline]
            label = line.label + (" (control)" if line.method.control else "") + (" ‡" if line.doubt else "")
            cells = [value(line.numbers.get((variant.name, metric))) for metric in variant.metrics]
            cells += [*(text for _, text in costs(line)), first.standing, line.statement.finished[:10]]
            rows.append([str(first.rank or NOTHING), label, ", ".join(line.needs), *cells])
        for which in ("chance", "ceiling"):
            known = [getattr(variant, which)[metric] for metric in variant.metrics]
            rows.append(["", which, "", *map(stated, known), *[""] * len(HEADER)])
        table = markdown_table([markdown_text(cell) for cell in cells] for cells in (header, *rows))
        parts.append(f"## {markdown_text(variant.name)}: {variant.n_queries} queries of {variant.n_studies} studies\n\n{table}\n")
    doubts = [f"‡ {line.label}: {line.doubt}.\n" for line in standings.lines if line.doubt]
    parts += [*map(markdown_text, doubts), f"{SELF_REPORTED} Costs are as submitters state them.\n"]
    return "\n".join(parts)


def latex(standings: Standings) -> str:
    """A booktabs table for each variant: methods and metrics, no costs."""
    parts = []
    for variant in standings.variants:
        rows = []
        for line in (*variant.lines, *variant.controls):
            rows.append([str(line.numbers[variant.headline].rank or "--"), latex_text(line.label)])
            for metric in variant.metrics:
                number = line.numbers.get((variant.name, metric))
                text = latex_text(value(number)).replace("†", r"$^\dagger$").replace(NOTHING, "--")
                rows[-1].append(rf"\textbf{{{text}}}" if number and number.rank == 1 else text)
        table = pd.DataFrame(rows, columns=["", "method", *map(latex_text, variant.metrics)])
        parts.append(
            f"% {latex_text(standings.board.name)}, {latex_text(variant.name)}: {variant.n_queries} queries, "
            f"{variant.n_studies} studies; bold: rank 1\n"
            + table.to_latex(index=False, escape=False, column_format=f"rl{'r' * len(variant.metrics)}")
        )
    return "\n".join(parts)


def table_csv(standings: Standings) -> str:
    """One line for each method, variant and metric, costs in seconds and bytes."""
    columns = [
        "board", "variant", "metric", "method", "control", "needs", "rank", "value", "low", "high", "chance", "ceiling",
        "n_queries", "n_studies", "standing", "fit_seconds", "query_seconds", "peak_bytes", "bytes_per_train_image", "n_models",
        "extra_training_seconds", "device", "finished", "plugin", "params", "submitter", "submission",
    ]  # fmt: skip
    rows = [
        number.row.model_dump() | {
            "board": standings.board.name, "needs": ", ".join(line.needs), "rank": number.rank, "standing": number.standing,
            "finished": line.statement.finished, "submitter": line.statement.submitter, "submission": line.entry.digest[:16],
            "params": "; ".join(f"{name}={content}" for name, content in line.method.params.items()),
        }
        for variant in standings.variants for line in (*variant.lines, *variant.controls)
        for number in (line.numbers[variant.name, m] for m in variant.metrics if (variant.name, m) in line.numbers)
    ]  # fmt: skip
    table = pd.DataFrame(
        [{name: csv_text(cell) for name, cell in cells.items()} for cells in rows], columns=columns,
        dtype=object,  # as they are: integers, though some lack
    )  # fmt: skip
    return table.to_csv(index=False, lineterminator="\n")
