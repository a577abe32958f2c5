"""From a stranger's file to an entry of a board, by way of the verifier."""

from __future__ import annotations

from pathlib import Path

from attribench.boards.board import Board, Leaderboards
from attribench.boards.entry import Entry, digest_of, entry_bytes, entry_of, read_entry, write_entry
from attribench.errors import SubmissionError, UsageError
from attribench.files.whole import whole_file
from attribench.measurement.arrays import arrays_of
from attribench.submissions.container import STATEMENT, SUFFIX, Refused, read
from attribench.submissions.parsing import safetensors_bytes
from attribench.submissions.statement import read_statement
from attribench.submissions.truths import merged
from attribench.submissions.verify import Verdict, verify


def verdict_of(path: Path, leaderboards: Leaderboards, data_root: Path | None = None) -> tuple[Verdict, Board | None]:
    """A file verified with all that its board keeps, and the board, if there is one. Raises nothing for a bad file."""
    board = _board_of(path, leaderboards)
    known = [board.experiment for board in leaderboards.boards]
    kept = board.kept(board.planned(data_root)) if board is not None else {}
    return verify(path, known=known, kept=kept, data_root=data_root), board


def add(path: Path, leaderboards: Leaderboards, *, keep_truth: bool = False, data_root: Path | None = None) -> Entry:
    """Verify a file and put it on its board. Raises SubmissionError if it is refused or fits no board.

    `keep_truth`: its truth becomes the board's own, which is for runs that one has made oneself.
    """
    verdict, board = _accepted(path, leaderboards, data_root)
    if board is None:
        raise SubmissionError(f"{path} fits no board in {leaderboards.root}; see `attribench leaderboard new --help`")
    if keep_truth:
        _keep(verdict, board)
        verdict, _ = verdict_of(path, leaderboards, data_root)
    digest = digest_of(path)
    target = board.root / "submissions" / board.name / f"{digest[:16]}{SUFFIX}"
    if target.resolve() != path.resolve():
        with whole_file(target) as aside:
            aside.write_bytes(path.read_bytes())
    entry = entry_of(verdict, digest)
    write_entry(board.entry_path(digest), entry)
    return entry


def entries_of(board: Board, leaderboards: Leaderboards, *, again: bool = False, data_root: Path | None = None) -> list[Entry]:
    """The entries of a board. `again`: verify every submission anew; SubmissionError if that gives another entry."""
    found = []
    for path in board.submissions:
        entry_path = board.entry_path(path.name.partition(".")[0])
        if again:
            entry = entry_of(_accepted(path, leaderboards, data_root)[0], digest_of(path))
            if entry_path.is_file() and _differs(entry, entry_path, path):
                raise SubmissionError(f"{entry_path} is not what verifying {path} gives; delete it and add the submission again")
            write_entry(entry_path, entry)
        found.append(read_entry(entry_path, path))
    return found


def _accepted(path: Path, leaderboards: Leaderboards, data_root: Path | None) -> tuple[Verdict, Board | None]:
    verdict, board = verdict_of(path, leaderboards, data_root)
    if not verdict.accepted:
        raise SubmissionError(f"{path} is refused: {'; '.join(verdict.reasons)}")
    return verdict, board


def _differs(entry: Entry, path: Path, submission: Path) -> bool:
    try:
        return entry_bytes(read_entry(path, submission)) != entry_bytes(entry)
    except UsageError:  # of another version, or damaged: nothing to compare with
        return False


def _board_of(path: Path, leaderboards: Leaderboards) -> Board | None:
    try:
        members = read(path)
        return leaderboards.of(read_statement(members[STATEMENT]).experiment) if STATEMENT in members else None
    except Refused:
        return None  # the verifier says why


def _keep(verdict: Verdict, board: Board) -> None:
    before = board.kept(verdict.planned)
    for study, truth in verdict.truths.items():
        arrays, about = arrays_of(merged(before.get(study), truth))
        with whole_file(board.truth_folder / f"{study}-query.safetensors") as aside:
            aside.write_bytes(safetensors_bytes(arrays, about))
