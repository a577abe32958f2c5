"""`attribench leaderboard`: boards of verified submissions, and their pages."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from attribench.cli.usage import Verbs

leaderboard = typer.Typer(cls=Verbs, help="Boards of verified submissions, and their pages.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option("--folder", help="Where boards, submissions and pages are.")]
Root = Annotated[Optional[Path], typer.Option("--data-root", help="Folder of the real data, for boards of a paper edition.")]


@leaderboard.command("new")
def new(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A data set with a mini edition.")],
    protocol: Annotated[Optional[str], typer.Option(help="The experiment; default: the data set's own.")] = None,
    preset: Annotated[Optional[str], typer.Option(help="Default: mini.")] = None,
    title: Annotated[Optional[str], typer.Option(help="As the page shows it.")] = None,
    folder: Folder = Path("leaderboards"),
) -> None:
    """Define a board for the mini edition of a data set, or the next version of one whose studies have changed.

    Example: attribench leaderboard new artchive --protocol lds
    """
    from attribench.boards.board import Leaderboards, default_experiment

    board = Leaderboards(folder).define(default_experiment(dataset, protocol, preset), title)
    print(f"{folder}/boards/{board.name}.toml: {board.definition.title}")


@leaderboard.command("add")
def add(
    files: Annotated[list[Path], typer.Argument(metavar="FILE …", help="What `attribench submit` wrote.")],
    keep_truth: Annotated[
        bool, typer.Option("--keep-truth", help="Its truth becomes the board's own: for runs that you made yourself.")
    ] = False,
    folder: Folder = Path("leaderboards"),
    data_root: Root = None,
) -> None:
    """Verify submissions and put them on their boards. Stops at the first that is refused.

    Example: attribench leaderboard add run.submission.zip
    """
    from attribench.boards import adding
    from attribench.boards.board import Leaderboards

    for path in files:
        entry = adding.add(path, Leaderboards(folder), keep_truth=keep_truth, data_root=data_root)
        methods = ", ".join(method.name for method in entry.statement.methods if not method.control)
        print(f"{path}: added ({methods})")


@leaderboard.command("build")
def build(
    again: Annotated[bool, typer.Option("--again", help="Verify every submission anew first.")] = False,
    folder: Folder = Path("leaderboards"),
    out: Annotated[Optional[Path], typer.Option(help="Where the pages go; default: FOLDER/site.")] = None,
    data_root: Root = None,
) -> None:
    """Make the pages and tables of all boards.

    Example: attribench leaderboard build
    """
    from attribench.boards.board import Leaderboards
    from attribench.boards.site import build_site

    started = time.perf_counter()
    target = out or folder / "site"
    built = build_site(Leaderboards(folder), target, again=again, data_root=data_root)
    seconds = time.perf_counter() - started
    counts = f"{built.n_boards} boards, {built.n_submissions} submissions, {built.n_files} files"
    print(f"{target / 'index.html'}: {counts} in {seconds:.1f} s")


@leaderboard.command("quote")
def quote(
    files: Annotated[list[Path], typer.Argument(metavar="FILE …", help="Markdown files that have such markers.")],
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail if a file is not what the boards say.")] = False,
    folder: Folder = Path("leaderboards"),
) -> None:
    """Write the boards' numbers into Markdown files, between their markers.

    Between <!-- boards --> and <!-- /boards --> comes a table of methods and boards, between <!-- papers --> and
    <!-- /papers --> the published numbers beside ours, and where the two disagree.

    Example: attribench leaderboard quote README.md
    """
    from attribench.boards.board import Leaderboards
    from attribench.boards.quote import quoted
    from attribench.errors import UsageError

    found = quoted(files, Leaderboards(folder))
    stale = [str(one.path) for one in found if one.changed]
    if check and stale:
        raise UsageError(f"not what the boards say: {', '.join(stale)}; run `attribench leaderboard quote {' '.join(stale)}`")
    for one in found:
        if one.changed:
            one.write()
        print(f"{one.path}: {'written' if one.changed else 'as the boards say'}")
