"""The boards of attribench's own runs, from training to the built site: `boards.toml` says which methods run where, and why not.

    python recipes/boards/build.py --work ~/boards --dry-run                  # the commands, and what is there already
    python recipes/boards/build.py --work ~/boards                            # all of them, into leaderboards/ and README.md
    python recipes/boards/build.py --work ~/boards --board lds --board gendata

run ─► submit ─► leaderboard new ─► leaderboard add --keep-truth   of each board, then leaderboard build and quote

Nothing is done twice: a run whose record has all its methods, a submission newer than its record, a board of the same
studies and a submission that is on its board are left as they are; a run that was killed goes on from its store. A board that
fails is told at the end, and the others go on. What an earlier run of this recipe put on a board is taken off when the new
one is added: methods are shown once, and of two submissions the first would stay.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attribench.boards.board import Board, Leaderboards, default_experiment
from attribench.boards.entry import digest_of, read_entry
from attribench.errors import AttribenchError, SubmissionError
from attribench.report import record
from attribench.run.folder import RESULTS

ROOT = Path(__file__).resolve().parent.parent.parent
BOARDS = ROOT / "leaderboards"
RECIPE = Path(__file__).with_name("boards.toml")
BY = "attribench"
QUOTING = ("README.md", "docs/findings.md")
"""Files that show what the repository's boards say, where they are there."""


@dataclass(frozen=True)
class Planned:
    """One board of the recipe."""

    dataset: str
    protocol: str
    title: str
    methods: tuple[str, ...]
    left_out: Mapping[str, str]
    """Reasons by method."""

    @property
    def name(self) -> str:
        return f"{self.protocol}-{self.dataset}"


def recipe(path: Path = RECIPE) -> list[Planned]:
    """The boards, with the groups of methods written out."""
    content = tomllib.loads(path.read_text())
    groups: dict[str, list[str]] = content["methods"]

    def of(name: str) -> list[str]:
        return groups.get(name, [name])

    found = []
    for board in content["board"]:
        methods = tuple(dict.fromkeys(method for name in board["methods"] for method in of(name)))
        said = content["left_out"] | board.get("left_out", {})
        reasons = {method: reason for name, reason in said.items() for method in of(name)}
        left_out = {method: reason for method, reason in reasons.items() if method not in methods}
        found.append(Planned(board["dataset"], board["protocol"], board["title"], methods, left_out))
    return found


# ----------------------------------------------------------------------------------------- stages


@dataclass
class Builder:
    """Where things are, and whether commands are run or only shown."""

    work: Path
    folder: Path
    store: Path | None
    dry_run: bool

    def do(self, done: bool, *arguments: object) -> None:
        """Run `attribench …`, unless its result is there."""
        words = [str(argument) for argument in arguments]
        print(f"{'# there: ' if done else ''}attribench {shlex.join(words)}", flush=True)
        if not (done or self.dry_run):
            subprocess.run([sys.executable, "-m", "attribench", *words], check=True)

    def board(self, planned: Planned) -> None:
        """All stages of one board."""
        run, file = self.work / planned.name, self.work / f"{planned.name}.submission.zip"
        methods = [word for name in planned.methods for word in ("-m", name)]
        store = [] if self.store is None else ["--store", self.store]
        running = ("run", "--protocol", planned.protocol, "-d", planned.dataset, *methods, *store, "--out", run)
        submitting = ("submit", run, "--by", BY, "--out", file)
        self.do(finished(run, planned.methods), *running)
        try:
            self.do(newer(file, run / RESULTS[0]), *submitting)
        except subprocess.CalledProcessError:
            print("# perhaps the record is of an earlier version: evaluated anew, from the store", flush=True)
            self.do(False, *running)
            self.do(False, *submitting)
        there = defined(Leaderboards(self.folder), planned)
        self.do(
            there is not None,
            "leaderboard", "new", planned.dataset, "--protocol", planned.protocol, "--title", planned.title,
            "--folder", self.folder,
        )  # fmt: skip
        on_board = there is not None and file.is_file() and there.entry_path(digest_of(file)).is_file()
        if there is not None and not on_board:
            self.take_off(there)
        self.do(on_board, "leaderboard", "add", file, "--keep-truth", "--folder", self.folder)

    def take_off(self, board: Board) -> None:
        """Remove what this recipe put on a board before, and the truth that came with it if nothing else is there."""
        mine = [path for path in board.submissions if _submitter(board, path) == BY]
        truths = [] if set(board.submissions) - set(mine) else sorted(board.truth_folder.glob("*.safetensors"))
        for path in (*mine, *(board.entry_path(path.name.partition(".")[0]) for path in mine), *truths):
            print(f"rm {shlex.quote(str(path))}", flush=True)
            if not self.dry_run:
                path.unlink(missing_ok=True)

    def pages(self) -> None:
        """The site; of the repository's own boards, the files that quote them too."""
        self.do(False, "leaderboard", "build", "--folder", self.folder)
        if self.folder.resolve() == BOARDS:
            quoting = [ROOT / name for name in QUOTING if (ROOT / name).is_file()]
            self.do(False, "leaderboard", "quote", *quoting, "--folder", self.folder)


def finished(run: Path, methods: Sequence[str]) -> bool:
    """Whether the record of a run has numbers of all these methods."""
    if not all((run / name).is_file() for name in ("record.parquet", "manifest.json")):
        return False
    try:
        rows = record.read(run)
    except AttribenchError:  # of another version
        return False
    return set(methods) <= {row.method for row in rows if row.status == "ok"}


def newer(path: Path, than: Path) -> bool:
    """Whether a file is there, and as new as another."""
    return path.is_file() and than.is_file() and path.stat().st_mtime >= than.stat().st_mtime


def defined(leaderboards: Leaderboards, planned: Planned) -> Board | None:
    """The board of the studies as they are now."""
    board = leaderboards.of(default_experiment(planned.dataset, planned.protocol, None))
    try:
        return board if board is None or board.planned() else None
    except SubmissionError:  # of studies as they were: a new version is needed
        return None


def _submitter(board: Board, path: Path) -> str | None:
    try:
        return read_entry(board.entry_path(path.name.partition(".")[0]), path).statement.submitter
    except AttribenchError:
        return None


def chosen(boards: Sequence[Planned], words: Sequence[str]) -> Iterator[Planned]:
    """The boards whose name holds one of the words; all without any."""
    return (board for board in boards if not words or any(word in board.name for word in words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of runs and submissions")
    parser.add_argument("--folder", type=Path, default=BOARDS, help="the boards")
    parser.add_argument("--store", type=Path, help="the store; default: that of attribench run")
    parser.add_argument("--board", action="append", default=[], help="only boards whose name (protocol-dataset) holds this")
    parser.add_argument("--dry-run", action="store_true", help="show the commands")
    options = parser.parse_args()
    builder = Builder(options.work, options.folder, options.store, options.dry_run)
    failed = []
    for planned in chosen(recipe(), options.board):
        print(f"\n# {planned.title}", flush=True)
        try:
            builder.board(planned)
        except (subprocess.CalledProcessError, AttribenchError) as error:
            failed.append(f"{planned.name}: {error}")
    print(flush=True)
    builder.pages()
    if failed:
        sys.exit("\n".join(["not built:", *failed]))


if __name__ == "__main__":
    main()
