"""A board's tables as Markdown, CSV and LaTeX: the same numbers as its page, every text escaped for the format."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from attribench.boards.standings import Line, Number, Standings, Variant
from attribench.report.words import duration, size

NOTHING = "–"
_LATEX = {character: f"\\{character}" for character in "{}$&#%_"} | {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip
_MARKDOWN = {character: f"\\{character}" for character in "\\|`*_[]"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def markdown_text(text: str) -> str:
    """As a cell of a table shows it, whatever it holds."""
    return "".join(_MARKDOWN.get(character, character) for character in " ".join(text.split()))


def latex_text(text: str) -> str:
    """As LaTeX prints it, whatever it holds."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def csv_text(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text


def needs(line: Line) -> str:
    """What a method may touch, in words."""
    return ", ".join(line.method.needs) or "features"


def budget(line: Line) -> str:
    """What it takes beside fitting and scoring: models of each study, and seconds to train further ones."""
    row = line.row
    models = f"{row.n_models} models" if row.n_models > 1 else "1 model"
    further = row.extra_training_seconds
    return f"{models}, {duration(further)} to train" if further else models


def stated(number: float | None, write: Callable[[float], str]) -> str:
    """A cost, or a dash."""
    return NOTHING if number is None else write(number)


def value(number: Number | None) -> str:
    """0.747 [0.701, 0.781], with a dagger if it is self-reported."""
    if number is None or number.row.value is None:
        return NOTHING
    row = number.row
    interval = "" if row.low is None else f" [{row.low:.3f}, {row.high:.3f}]"
    return f"{row.value:.3f}{interval}{'' if number.standing == 'verified' else ' †'}"


SELF_REPORTED = "† self-reported: the number rests on a truth that nobody but the submitter has seen."
HEADER = ("fit", "per query", "stored per image", "budget", "checked", "date")


def _costs(line: Line, variant: Variant) -> list[str]:
    row = line.row
    return [
        stated(row.fit_seconds, duration), stated(row.query_seconds, duration), stated(row.bytes_per_train_image, size),
        budget(line), line.numbers[variant.name, variant.metrics[0]].standing, line.statement.finished[:10],
    ]  # fmt: skip


def markdown(standings: Standings) -> str:
    """Every variant as a table, with its chance and ceiling."""
    definition = standings.board.definition
    parts = [f"# {markdown_text(definition.title)}\n\n{markdown_text(definition.question)}\n"]
    for variant in standings.variants:
        header = ["rank", "method", "needs", *variant.metrics, *HEADER]
        rows = []
        for line in (*variant.lines, *variant.controls):
            rank = line.numbers[variant.name, variant.metrics[0]].rank
            label = line.label + (" (control)" if line.method.control else "")
            cells = [value(line.numbers.get((variant.name, metric))) for metric in variant.metrics]
            rows.append([str(rank or NOTHING), label, needs(line), *cells, *_costs(line, variant)])
        for which in ("chance", "ceiling"):
            known = [getattr(variant, which)[metric] for metric in variant.metrics]
            rows.append(["", which, "", *(stated(number, "{:.3f}".format) for number in known), *[""] * len(HEADER)])
        lines = [header, ["---"] * len(header), *rows]
        written = [cells if cells is lines[1] else [markdown_text(cell) for cell in cells] for cells in lines]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in written)
        parts.append(f"## {markdown_text(variant.name)}: {variant.n_queries} queries of {variant.n_studies} studies\n\n{table}\n")
    parts.append(f"{SELF_REPORTED} Costs are as submitters state them.\n")
    return "\n".join(parts)


def latex(standings: Standings) -> str:
    """A booktabs table for each variant: methods and metrics, no costs."""
    parts = []
    for variant in standings.variants:
        lines = [
            rf"% {latex_text(standings.board.name)}, {latex_text(variant.name)}: {variant.n_queries} queries, "
            rf"{variant.n_studies} studies; bold: rank 1",
            rf"\begin{{tabular}}{{rl{'r' * len(variant.metrics)}}}",
            r"\toprule",
            " & ".join(["", "method", *map(latex_text, variant.metrics)]) + r" \\",
            r"\midrule",
        ]
        for line in (*variant.lines, *variant.controls):
            rank = line.numbers[variant.name, variant.metrics[0]].rank
            cells = [str(rank or "--"), latex_text(line.label)]
            for metric in variant.metrics:
                number = line.numbers.get((variant.name, metric))
                text = latex_text(value(number)).replace("†", r"$^\dagger$").replace(NOTHING, "--")
                cells.append(rf"\textbf{{{text}}}" if number and number.rank == 1 else text)
            lines.append(" & ".join(cells) + r" \\")
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""]))
    return "\n".join(parts)


def table_csv(standings: Standings) -> str:
    """One line for each method, variant and metric, costs in seconds and bytes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["board", "variant", "metric", "method", "control", "needs", "rank", "value", "low", "high", "chance", "ceiling",
         "n_queries", "n_studies", "standing", "fit_seconds", "query_seconds", "peak_bytes", "bytes_per_train_image", "n_models",
         "extra_training_seconds", "device", "finished", "plugin", "params", "submitter", "submission"]
    )  # fmt: skip
    for variant in standings.variants:
        for line in (*variant.lines, *variant.controls):
            for metric in variant.metrics:
                number = line.numbers.get((variant.name, metric))
                if number is None:
                    continue
                row = number.row
                cells = [
                    standings.board.name, variant.name, metric, line.method.name, line.method.control, needs(line), number.rank,
                    row.value, row.low, row.high, row.chance, row.ceiling, row.n_queries, row.n_studies, number.standing,
                    row.fit_seconds, row.query_seconds, row.peak_bytes, row.bytes_per_train_image, row.n_models,
                    row.extra_training_seconds, row.device, line.statement.finished, line.method.plugin,
                    "; ".join(f"{name}={content}" for name, content in line.method.params.items()), line.statement.submitter,
                    line.entry.digest[:16],
                ]  # fmt: skip
                writer.writerow([csv_text(cell) if isinstance(cell, str) else cell for cell in cells])
    return buffer.getvalue()
