"""The command line: one thin file per verb. Loads no torch until a verb needs it."""

from __future__ import annotations

import typer

from attribench import __version__
from attribench.cli.check import check
from attribench.cli.compare import compare
from attribench.cli.leaderboard import leaderboard
from attribench.cli.list import list_plugins
from attribench.cli.new import new
from attribench.cli.plugins import show_plugins
from attribench.cli.run import run
from attribench.cli.show import show
from attribench.cli.submit import submit
from attribench.cli.truth import truth
from attribench.cli.usage import Verbs
from attribench.cli.verify import verify

app = typer.Typer(
    name="attribench",
    cls=Verbs,
    help="Benchmark of training-data attribution methods for text-to-image diffusion models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"attribench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Which training images made this picture, and which method can be trusted to say?"""


for name, verb in {
    "run": run, "show": show, "compare": compare, "list": list_plugins, "submit": submit, "verify": verify,
    "plugins": show_plugins, "check": check, "new": new,
}.items():  # fmt: skip
    app.command(name)(verb)
app.add_typer(truth, name="truth")
app.add_typer(leaderboard, name="leaderboard")
