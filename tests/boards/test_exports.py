"""Truths that are published for import belong to boards that are there, and to what this version would retrain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

BOARDS = Path(__file__).resolve().parents[2] / "leaderboards"
EXPORTS = sorted((BOARDS / "exports").glob("*.truth.safetensors"))


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.name)
def test_every_artifact_of_a_published_truth_is_one_that_the_boards_run_asks_for(path, attribench):
    name = path.name.removesuffix(".truth.safetensors")
    assert (BOARDS / "boards" / f"{name}.toml").is_file()
    done = attribench("truth", "import", str(path), str(BOARDS / "exports" / f"{name}.toml"), "--store", "empty")
    assert done.returncode == 0, done.stderr
    stored, held = map(int, re.search(r"(\d+) of its (\d+) artifacts stored", done.stdout).groups())
    assert stored == held > 0


def test_the_lds_board_has_one():
    assert [path.name.split(".")[1] for path in EXPORTS] == ["lds"]
