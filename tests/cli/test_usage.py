"""A command line that cannot be read is one line, and `attribench list` says what could have been written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from attribench import plugins
from attribench.__main__ import main

UNREADABLE = {
    "no number": (["run", "--limit", "x"], "'--limit' should be a valid integer, not 'x' (`attribench run --help`"),
    "too small": (["run", "--limit", "0"], "'--limit' should be greater than or equal to 1, not '0'"),
    "no value": (["run", "--limit"], "option '--limit' requires an argument (`attribench run --help`"),
    "unknown option": (["run", "--methd", "x"], "there is no option --methd; did you mean --method? (`attribench run --help`"),
    "far option": (["--frobnicate"], "there is no option --frobnicate (`attribench --help` shows what it takes)"),
    "unknown verb": (["lst"], "no verb is called 'lst'; did you mean 'list'? (there are: check,"),
    "missing argument": (["show"], "missing argument 'RUN_FOLDER' (`attribench show --help`"),
    "verb of a verb": (["truth", "import", "x"], "missing argument 'RUN.TOML' (`attribench truth import --help`"),
    "no model": (["run", "-m", "pixel", "-d", "artchive", "--model", "/none", "--dry-run"], "there is no folder /none; give"),
    "workers": (["run", "-m", "pixel", "-d", "artchive", "--workers", "lots"], "--workers lots: give auto, or a whole number"),
    "no edition": (["run", "-m", "pixel", "-d", "laion", "--dry-run"], "laion has no mini edition at "),
    "extra argument": (["list", "everything"], "got unexpected extra argument(s) (everything)"),
    "escape": (["run", "--\x1b[31m"], "there is no option --\\x1b[31m"),
}
CODES = {"no model": 4, "no edition": 3}
"""Of what is not a fault of the command line alone."""


@pytest.fixture
def say(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs `attribench …` in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["attribench", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.mark.parametrize("case", UNREADABLE)
def test_an_unreadable_command_line_is_one_line_with_the_way_to_help(say, case):
    arguments, hint = UNREADABLE[case]
    code, out, err = say(*arguments)
    assert (code, out) == (CODES.get(case, 2), "")
    (line,) = err.splitlines()
    assert line.startswith("attribench: ") and hint in line and line.isprintable()


def test_without_arguments_the_help_is_shown(say):
    code, out, err = say()
    assert code == 2 and "verify" in out + err and "attribench: " not in err


@pytest.mark.parametrize("width", [80, 120])
def test_list_names_everything_and_cuts_nothing(say, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = say("list")
    assert max(map(len, out.splitlines())) <= width
    assert "…" not in out
    words = out.split()
    for kind in plugins.KINDS:
        for name, plugin in plugins.all_plugins(kind).items():
            assert name in words
            assert set(plugin.summary.split()) <= set(words), name


def test_list_says_what_a_method_needs_and_what_can_be_set(say):
    rows = {(row["kind"], row["name"]): row for row in map(json.loads, say("list", "--json")[1].splitlines())}
    assert rows["method", "montrage"]["needs"] == ["training"]
    assert rows["method", "pixel"]["needs"] == ["features"]
    assert [row["name"] for row in rows.values() if row.get("control")] == [
        "clip-z", "constant", "prompt-match", "random", "shuffled-queries", "training-loss",
    ]  # fmt: skip
    assert rows["metric", "recall"]["params"] == {"k": "5"}
    assert rows["protocol", "between-concepts"]["params"]["n_concepts"] == "by preset"
    assert len(rows) == sum(len(plugins.all_plugins(kind)) for kind in plugins.KINDS)


def test_list_shows_a_plugin_that_cannot_be_loaded_with_the_reason(say, monkeypatch):
    class Broken:
        def load(self):
            raise ImportError("no such thing")

    broken = plugins.Plugin("method", "broken", "somebody 1.0", Broken())
    monkeypatch.setitem(plugins._from_files["method"], "broken", broken)
    row = next(row for row in map(json.loads, say("list", "--json")[1].splitlines()) if row["name"] == "broken")
    assert "cannot be imported: ImportError: no such thing" in row["error"]
    assert "ImportError" in say("list")[1]
