"""A board of the small studies that the tests' run is of, and submissions to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from attribench.boards.adding import add
from attribench.boards.board import Leaderboards
from attribench.submissions.pack import submission_of


@pytest.fixture(scope="session")
def files(packed: bytes, other_run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two submissions: the pixel baseline at its own size, and at another."""
    folder = tmp_path_factory.mktemp("files")
    first, second = folder / "first.submission.zip", folder / "second.submission.zip"
    first.write_bytes(packed)
    second.write_bytes(submission_of(other_run_folder, methods=["pixel"], submitter="B. Tester"))
    return first, second


@pytest.fixture
def leaderboards(tmp_path: Path, experiment) -> Leaderboards:
    """With one board, still empty."""
    found = Leaderboards(tmp_path / "leaderboards")
    found.define(experiment, "A small board")
    return found


@pytest.fixture(scope="session")
def filled(files: tuple[Path, Path], experiment, tmp_path_factory: pytest.TempPathFactory) -> Leaderboards:
    """With both submissions; the first one's truth is the board's."""
    found = Leaderboards(tmp_path_factory.mktemp("filled") / "leaderboards")
    found.define(experiment, "A small board")
    add(files[0], found, keep_truth=True)
    add(files[1], found)
    return found
