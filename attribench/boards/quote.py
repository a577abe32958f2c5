"""What the boards say, quoted in Markdown files between markers, and checked there: no number of a table is typed.

<!-- boards -->  …  <!-- /boards -->      methods × boards: the first metric of each board's first variant
<!-- papers -->  …  <!-- /papers -->      of each board: published numbers beside ours, and where the two disagree
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attribench.boards.adding import entries_of
from attribench.boards.board import Leaderboards
from attribench.boards.papers import beside_papers, papers_markdown
from attribench.boards.standings import GROUPS, Line, Standings, Variant
from attribench.boards.tables import SEEDS_ALIKE, SELF_REPORTED, markdown_table, markdown_text, stated
from attribench.errors import UsageError
from attribench.files.whole import whole_file
from attribench.report.words import NOTHING, decimal, warning_of

NONE = "No board is published yet."
_PLACE = re.compile(r"(<!-- (?P<name>boards|papers) -->\n).*?(<!-- /(?P=name) -->)", re.DOTALL)


@dataclass(frozen=True)
class Quoted:
    """A file, and what it would say."""

    path: Path
    before: str
    after: str

    @property
    def changed(self) -> bool:
        return self.before != self.after

    def write(self) -> None:
        """Put it there, whole or not at all."""
        with whole_file(self.path) as aside:
            aside.write_text(self.after)


def quoted(paths: Sequence[Path], leaderboards: Leaderboards) -> list[Quoted]:
    """The files with what stands between their markers made anew. Raises UsageError for a file without markers."""
    all_standings = [Standings.of(board, entries_of(board, leaderboards)) for board in leaderboards.boards]
    return [_quoted(Path(path), all_standings, leaderboards.root) for path in paths]


def _quoted(path: Path, all_standings: Sequence[Standings], root: Path) -> Quoted:
    try:
        before = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); give a Markdown file") from error
    if not _PLACE.search(before):
        raise UsageError(f"{path} has no place for the boards; put <!-- boards --> and <!-- /boards --> on lines of their own")
    site = Path(os.path.relpath(root / "site", path.resolve().parent)).as_posix()

    def made(found: re.Match[str]) -> str:
        text = boards_markdown(all_standings, site) if found["name"] == "boards" else all_papers_markdown(all_standings)
        return f"{found[1]}\n{text}\n{found[3]}"

    return Quoted(path, before, _PLACE.sub(made, before))


def boards_markdown(all_standings: Sequence[Standings], site: str) -> str:
    """Methods × boards, with controls, chance and ceiling below. `site`: the built pages, as seen from the file."""
    shown = [standings for standings in all_standings if standings.variants]
    if not shown:
        return f"{NONE}\n"
    firsts = [standings.variants[0] for standings in shown]
    header = ["method", "needs", *(_heading(standings, site) for standings in shown)]
    rows = [header]
    methods, controls = ({line.method.name: line for of in firsts for line in reversed(getattr(of, kind))} for kind in
                         ("lines", "controls"))  # fmt: skip
    for name, line in sorted(methods.items(), key=lambda item: (GROUPS.index(item[1].group), item[0])):
        rows.append([markdown_text(name), line.group, *(_cell(name, of.lines, of) for of in firsts)])
    for name in sorted(controls):
        rows.append([f"*{markdown_text(name)}*", "control", *(_cell(name, of.controls, of) for of in firsts)])
    for which, said in (("chance", "chance"), ("ceiling", "best that can be expected")):
        known = [getattr(of, which)[of.metrics[0]] for of in firsts]
        rows.append([f"*{said}*", "", *map(stated, known)])
    rows.append(["*queries, studies*", "", *(f"{of.n_queries}, {of.n_studies}" for of in firsts)])
    rows.append(["*checked*", "", *(_checked(standings) for standings in shown)])
    table = markdown_table(rows)
    note = f" {SELF_REPORTED}" if "†" in table else ""
    note += f" {SEEDS_ALIKE}" if "‡" in table else ""
    warnings = {warning_of([line.numbers[of.headline].row for line in of.lines]) for of in firsts if of.lines}
    note += "".join(f" {warning}" for warning in sorted(warnings) if warning)
    return (
        f"{table}\n\nThe first metric of each board with its 95 % interval over studies, and in brackets the rank: one more than "
        f"the number of methods that are better by more than chance explains, pair by pair; bold where it is 1.{note}\n"
    )


def all_papers_markdown(all_standings: Sequence[Standings]) -> str:
    """Published numbers beside ours for each board of which a paper prints any, and the others by name."""
    if not all_standings:
        return f"{NONE}\n"
    having = [standings for standings in all_standings if beside_papers(standings)]
    parts = []
    for standings in having:
        parts += [f"## {markdown_text(standings.board.definition.title)}\n", papers_markdown(standings, level=3)]
    without = [markdown_text(s.board.definition.title) for s in all_standings if s not in having]
    if without:
        parts.append(f"No paper prints numbers of the experiments of these boards: {'; '.join(without)}.\n")
    return "\n".join(parts)


# ------------------------------------------------------------------------------------------ cells


def _heading(standings: Standings, site: str) -> str:
    variant = standings.variants[0]
    title = markdown_text(standings.board.definition.title)
    return f"[{title}]({site}/tables/{standings.board.name}.md): {markdown_text(f'{variant.metrics[0]}, {variant.name}')}"


def _cell(name: str, lines: Sequence[Line], variant: Variant) -> str:
    """Of a method with several hyper-parameters the line that stands first."""
    line = next((line for line in lines if line.method.name == name), None)
    number = line and line.numbers[variant.headline]
    if number is None or number.row.value is None:
        return NOTHING
    row = number.row
    shown = f"**{decimal(row.value)}**" if number.rank == 1 else decimal(row.value)
    interval = "" if row.low is None else rf" \[{decimal(row.low)}, {decimal(row.high)}\]"
    marks = ("" if number.standing == "verified" else " †") + (" ‡" if line.doubt else "")
    return f"{shown}{interval}{f' ({number.rank})' if number.rank else ''}{marks}"


def _checked(standings: Standings) -> str:
    variant = standings.variants[0]
    found = {line.numbers[variant.headline].standing for line in (*variant.lines, *variant.controls)}
    dates = sorted({entry.statement.finished[:10] for entry in standings.entries})
    return f"{' and '.join(sorted(found, reverse=True))}, {dates[0]}{f' to {dates[-1]}' if len(dates) > 1 else ''}"
