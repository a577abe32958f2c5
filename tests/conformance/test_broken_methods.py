"""A method that breaks one thing fails the check for that thing, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from attribench import conformance, plugins
from attribench.cli.check import check as check_command
from attribench.conformance import CHECKS, Subject
from attribench.interface import AttributionMethod

FILE = Path(__file__).parent / "methods_that_break.py"
NAMES = [line.split('"')[1] for line in FILE.read_text().splitlines() if line.startswith('    name = "')]
BROKEN = [name for name in NAMES if name != "sound" and not name.startswith("passes-")]
CHECK_NAMES = [check.name for check in CHECKS]


@pytest.fixture(scope="module")
def methods() -> dict[str, type[AttributionMethod]]:
    """Those of the file, by name."""
    return {plugin.name: plugin.load() for plugin in plugins.add_file(FILE) if plugin.kind == "method"}


def verdicts(method: AttributionMethod, world) -> dict[str, tuple[str, str]]:
    subject = Subject(method, world)
    return {verdict.check: (verdict.status, verdict.what) for verdict in (check(subject) for check in CHECKS)}


@pytest.mark.parametrize("name", BROKEN)
def test_it_fails_its_check_and_no_other(methods, small_world, name):
    found = verdicts(methods[name](), small_world)
    failed = [check for check, (status, _) in found.items() if status == "failed"]
    assert len(failed) == 1, found
    assert name.startswith(failed[0]), found
    assert "\n" not in found[failed[0]][1]


def test_there_is_a_broken_method_for_every_check():
    assert {check for check in CHECK_NAMES if any(name.startswith(check) for name in BROKEN)} == set(CHECK_NAMES)


def test_what_rests_on_a_failed_check_is_not_judged(methods, small_world):
    nosy = verdicts(methods["needs-unsaid"](), small_world)
    assert {check for check, (status, _) in nosy.items() if status == "passed"} == {"identity"}
    moody = verdicts(methods["determinism-lost"](), small_world)
    assert {check for check, (status, _) in moody.items() if status == "not judged"} == {
        "learning", "batches", "permutation", "hyper-parameters", "resume",
    }  # fmt: skip


def test_a_sound_method_passes(methods, small_world):
    found = verdicts(methods["sound"](), small_world)
    assert {status for status, _ in found.values()} == {"passed"}, found


def test_what_learning_and_luck_change_is_told(methods, small_world):
    found = verdicts(methods["passes-learns"](), small_world)
    assert found["learning"][0] == "passed", found
    assert "with itself untrained" in found["learning"][1] and "with another seed" in found["learning"][1]


def test_what_is_declared_and_not_used_is_told(methods, small_world):
    found = verdicts(methods["passes-idle"](), small_world)
    assert found["needs"] == ("passed", "runs with GRADIENTS; did not use GRADIENTS here")


def test_a_slow_method_is_checked_with_the_counts_that_it_asks_for(methods, small_world):
    assert conformance.subject("passes-with-fewer", small_world).asked.rounds == 2
    assert conformance.subject(methods["passes-with-fewer"](), small_world).asked.rounds == 50


@pytest.mark.parametrize(
    ("param", "told"), [([], "checked with rounds=2, as the method asks"), (["passes-with-fewer.rounds=7"], None)]
)
def test_the_command_line_says_so_and_a_given_count_wins(methods, shipped_world_store, capsys, param, told):
    with pytest.raises(typer.Exit) as end:
        check_command("passes-with-fewer", param=param, store=shipped_world_store)
    out = capsys.readouterr().out
    assert end.value.exit_code == 0, out
    assert (told in out) if told else ("checked with" not in out)


def test_a_control_is_exempt_by_that_word_and_from_nothing_else(methods, small_world):
    found = verdicts(methods["passes-as-control"](), small_world)
    assert {check for check, (status, _) in found.items() if status == "exempt"} == {"sign", "batches"}, found
    assert all("exempt" in found[check][1] for check in ("sign", "batches"))
    assert {status for status, _ in found.values()} == {"passed", "exempt"}, found


def test_a_method_of_prompts_may_tie_the_images_of_a_prompt(methods, small_world):
    found = verdicts(methods["passes-by-prompt"](), small_world)
    assert {status for status, _ in found.values()} == {"passed"}, found
