"""A command line that cannot be read is one line like every other error of ours: what is wrong, and where help is."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from attribench.errors import UnknownName, UsageError

# typer brings its own copy of click and names this class in no public place; BadParameter is its public child.
Unreadable: type[Exception] = typer.BadParameter.__base__  # type: ignore[assignment]


class Verbs(TyperGroup):
    """The verbs of the command line. Raises UsageError where typer would print a box."""

    def make_context(self, *arguments: Any, **options: Any) -> typer.Context:
        with _in_our_words():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: typer.Context) -> Any:
        with _in_our_words(ctx):
            return super().invoke(ctx)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:
        if args[0] not in self.commands:
            raise UnknownName("verb", args[0], self.commands)
        return super().resolve_command(ctx, args)


@contextmanager
def _in_our_words(ctx: typer.Context | None = None) -> Iterator[None]:
    try:
        yield
    except Unreadable as error:
        if not error.format_message():  # without any argument the help was printed, and that is the answer
            raise
        raise UsageError(f"{_fault(error)} (`{_command(error, ctx)} --help` shows what it takes)") from error


def _command(error: Any, ctx: typer.Context | None) -> str:
    """What was called, with its verbs: "attribench truth import"."""
    at, verbs = getattr(error, "ctx", None), []
    while at is not None and at.parent is not None:
        verbs.insert(0, at.info_name)
        at = at.parent
    return " ".join(["attribench", *(verbs or [(ctx and ctx.invoked_subcommand) or ""])]).strip()


def _fault(error: Any) -> str:
    from attribench.files.text import shown

    if hasattr(error, "possibilities"):
        options = [name for parameter in error.ctx.command.params for name in parameter.opts if name.startswith("--")]
        near = difflib.get_close_matches(error.option_name, options, n=1, cutoff=0.5)
        return f"there is no option {shown(error.option_name)}" + (f"; did you mean {near[0]}?" if near else "")
    message = error.format_message().rstrip(".")
    for noise in ("Invalid value for ", "Input ", "Value error, ", ", unable to parse string as an integer"):
        message = message.replace(noise, "")
    message = message.replace("': should", "' should")
    causes = error.__cause__.errors() if hasattr(error.__cause__, "errors") else []
    values = [repr(cause["input"]) for cause in causes if repr(cause["input"]) not in message]
    return ", not ".join([shown(message[:1].lower() + message[1:]), *values[:1]])
