"""Numbers in Markdown files are what the boards' records say, put there by a command and held there by a check."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attribench.__main__ import main
from attribench.boards.adding import entries_of
from attribench.boards.board import Leaderboards
from attribench.boards.quote import NONE, quoted
from attribench.boards.standings import Standings
from attribench.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent.parent
PLACES = "# Mine\n\nbefore\n\n<!-- boards -->\nold\n<!-- /boards -->\n\nbetween\n\n<!-- papers -->\n<!-- /papers -->\n\nafter\n"


@pytest.fixture
def page(tmp_path) -> Path:
    path = tmp_path / "PAGE.md"
    path.write_text(PLACES)
    return path


def table(text: str) -> dict[str, list[str]]:
    """The cells of each row of the first table, by the row's first cell."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in rows}


def test_the_table_holds_the_numbers_intervals_and_ranks_of_the_board(filled, page):
    (found,) = quoted([page], filled)
    rows = table(found.after)
    (board,) = filled.boards
    variant = Standings.of(board, entries_of(board, filled)).variants[0]
    headline = (variant.name, variant.metrics[0])
    for lines, label in ((variant.lines, "{}"), (variant.controls, "*{}*")):
        for name in {line.method.name for line in lines}:
            number = next(line for line in lines if line.method.name == name).numbers[headline]
            cell = rows[label.format(name)][-1].replace("*", "").replace("\\", "")
            assert cell == f"{number.row.value:.3f} [{number.row.low:.3f}, {number.row.high:.3f}] ({number.rank})"
    assert rows["*chance*"][-1] == f"{variant.chance[variant.metrics[0]]:.3f}"
    assert rows["*best that can be expected*"][-1] == f"{variant.ceiling[variant.metrics[0]]:.3f}"
    assert rows["*queries, studies*"][-1] == "30, 2" and rows["*checked*"][-1].startswith("verified, 20")
    assert "A small board" in rows["method"][-1] and "recall@5, un-mixed" in rows["method"][-1]


def test_only_what_stands_between_the_markers_is_written(filled, page):
    (found,) = quoted([page], filled)
    found.write()
    text = page.read_text()
    assert text.startswith("# Mine\n\nbefore\n\n<!-- boards -->\n") and text.endswith("<!-- /papers -->\n\nafter\n")
    assert "\nold\n" not in text and "\nbetween\n" in text and "Where this board and the papers disagree" in text
    assert not quoted([page], filled)[0].changed


def test_the_check_fails_where_a_number_was_changed_by_hand(filled, page, monkeypatch, capsys):
    def say(*arguments: object) -> int:
        command = ["attribench", "leaderboard", "quote", str(page), "--folder", str(filled.root), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0

    assert say("--check") == 2 and "not what the boards say" in capsys.readouterr().err
    assert page.read_text() == PLACES
    assert say() == 0 and say("--check") == 0
    page.write_text(page.read_text().replace("(1)", "(2)", 1))
    assert say("--check") == 2


def test_a_file_without_a_place_is_one_line(filled, tmp_path):
    (tmp_path / "plain.md").write_text("# Mine\n")
    with pytest.raises(UsageError, match="has no place for the boards; put <!-- boards -->"):
        quoted([tmp_path / "plain.md"], filled)


def test_a_page_of_no_board_says_so(tmp_path, page):
    (found,) = quoted([page], Leaderboards(tmp_path / "none"))
    assert found.after.count(NONE) == 2


def test_what_the_repository_shows_is_what_its_records_say():
    """README.md has a place for the boards; it and every page of docs/ that has one hold what `leaderboards/` gives."""
    pages = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if has_place(path)]
    assert ROOT / "README.md" in pages
    leaderboards = Leaderboards(ROOT / "leaderboards")
    stale = [found.path.name for found in quoted(pages, leaderboards) if found.changed]
    assert stale == [], f"attribench leaderboard quote {' '.join(stale)}"
    shown = (ROOT / "README.md").read_text()
    assert (NONE in shown) == (not any(board.submissions for board in leaderboards.boards))
    assert all(f"site/tables/{board.name}.md" in shown for board in leaderboards.boards if board.submissions)


def has_place(path: Path) -> bool:
    lines = path.read_text().splitlines()
    return "<!-- boards -->" in lines or "<!-- papers -->" in lines
