"""recipes/boards: every built-in method and every experiment of a mini edition is run, or left out with a reason."""

from __future__ import annotations

import runpy
import sys
import tomllib
from pathlib import Path

import pytest

from attribench import editions, plugins
from attribench.boards.adding import add, entries_of
from attribench.boards.board import Leaderboards
from attribench.interface import AttributionMethod

FOLDER = Path(__file__).resolve().parent.parent.parent / "recipes" / "boards"


@pytest.fixture(scope="module")
def recipe() -> dict:
    """The names of build.py."""
    return runpy.run_path(str(FOLDER / "build.py"))


def built_in() -> dict[str, type[AttributionMethod]]:
    found = {name: plugin for name, plugin in plugins.all_plugins("method").items() if plugin.origin.startswith(plugins.OURS)}
    return {name: plugin.load() for name, plugin in found.items()}


def test_every_built_in_method_is_run_on_every_board_or_left_out_there_with_a_reason(recipe):
    wanted = {name for name, cls in built_in().items() if not cls.control}
    for board in recipe["recipe"]():
        assert set(board.methods) | set(board.left_out) == wanted, board.name
        assert all(board.left_out.values())


def test_every_method_whose_weights_ship_is_on_some_board(recipe):
    run = {method for board in recipe["recipe"]() for method in board.methods}
    excused = tomllib.loads((FOLDER / "boards.toml").read_text())["left_out"]
    groups = tomllib.loads((FOLDER / "boards.toml").read_text())["methods"]
    never = {name for name, cls in built_in().items() if not cls.control} - run
    assert never == {method for name in excused for method in groups[name]} - run
    for name in groups["without-weights"]:
        assert built_in()[name]().skip("mini") is not None, f"{name} could run"


def test_every_experiment_of_a_mini_edition_has_a_board_or_a_reason(recipe):
    content = tomllib.loads((FOLDER / "boards.toml").read_text())
    boards = [(board.dataset, board.protocol) for board in recipe["recipe"]()]
    without = [(entry["dataset"], entry["protocol"]) for entry in content["no_board"]]
    assert all(entry["reason"] for entry in content["no_board"])
    fitting = {
        (dataset, protocol)
        for protocol, plugin in plugins.all_plugins("protocol").items() if plugin.origin.startswith(plugins.OURS)
        for dataset, adapter in plugins.all_plugins("dataset").items()
        if adapter.origin.startswith(plugins.OURS) and issubclass(adapter.load(), plugin.load().data) and has_mini(dataset)
    }  # fmt: skip
    assert set(boards) | set(without) == fitting and not set(boards) & set(without)
    assert len(set(boards)) == len(boards)


def has_mini(dataset: str) -> bool:
    try:
        return editions.open_dataset(dataset, "mini", None) is not None
    except Exception:  # it ships no mini edition
        return False


def test_a_dry_run_shows_every_command_and_does_none(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["build.py", "--work", str(tmp_path), "--folder", str(tmp_path / "lb"), "--dry-run",
                                      "--board", "lds"])  # fmt: skip
    recipe["main"]()
    said = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith("#")]
    assert [line.split()[1:3] for line in said] == [
        ["run", "--protocol"], ["submit", str(tmp_path / "lds-customconcept101")], ["leaderboard", "new"],
        ["leaderboard", "add"], ["leaderboard", "build"],
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_only_the_repositorys_own_boards_are_quoted_in_its_files(recipe, tmp_path, capsys):
    for folder, quotes in ((tmp_path, False), (FOLDER.parent.parent / "leaderboards", True)):
        recipe["Builder"](tmp_path, folder, None, dry_run=True).pages()
        assert ("leaderboard quote" in capsys.readouterr().out) == quotes


def test_a_run_is_done_when_its_record_has_all_methods(recipe, run_folder, tmp_path):
    finished = recipe["finished"]
    assert finished(run_folder, ["pixel"]) and not finished(run_folder, ["pixel", "montrage"])
    assert not finished(tmp_path, ["pixel"])


def test_a_new_submission_takes_the_place_of_the_recipes_own_and_of_no_other(recipe, files, leaderboards, tmp_path, monkeypatch):
    add(files[0], leaderboards, keep_truth=True)
    add(files[1], leaderboards)
    (board,) = leaderboards.boards
    builder = recipe["Builder"](tmp_path, leaderboards.root, None, dry_run=False)
    builder.take_off.__globals__["BY"] = "A. Tester"
    builder.take_off(board)
    (left,) = entries_of(board, leaderboards)
    assert left.statement.submitter == "B. Tester" and list(board.truth_folder.iterdir())
    builder.take_off.__globals__["BY"] = "B. Tester"
    builder.take_off(board)
    assert entries_of(board, leaderboards) == [] and not list(board.truth_folder.iterdir())
    assert Leaderboards(leaderboards.root).boards[0].name == board.name
