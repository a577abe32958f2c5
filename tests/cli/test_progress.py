"""What a run says while it runs."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console
from sample_steps import draw, hold_memory, pipeline, raise_error, single

from attribench.cli.progress import PlainLines, RichDisplay, Tally, clock, listener_for
from attribench.engine.measure import measure
from attribench.engine.plan import make_plan
from attribench.engine.run import execute
from attribench.engine.store import ArtifactStore
from attribench.engine.work import Outcome


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    return ArtifactStore(tmp_path / "store")


def test_plain_lines_tell_what_starts_and_how_it_ends(store):
    said = io.StringIO()
    execute([pipeline(n=1), single(raise_error, name="bad")], store, workers=0, listener=PlainLines(said))
    lines = said.getvalue().splitlines()
    assert lines[0] == "4 steps to run, 0 cached"
    assert lines[1] == "draw seed 0: started" and lines[2].startswith("draw seed 0: done in 0:00 (")
    assert any(line.startswith("bad: failed: step bad raised ValueError: the numbers are bad") for line in lines)

    said = io.StringIO()
    execute([pipeline(n=2)], store, workers=0, listener=PlainLines(said))
    assert said.getvalue().splitlines()[0] == "3 steps to run, 2 cached, about 0:00"


def test_the_live_display_counts_steps_by_kind(store):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    execute([pipeline(n=1)], store, workers=0)
    execute([pipeline(n=2), single(raise_error, name="bad")], store, workers=0, listener=RichDisplay(console))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    last = shown[shown.rindex("step ") :]
    assert last.split()[:6] == ["step", "cached", "done", "running", "waiting", "failed"]
    rows = {words[0]: words[1:] for line in last.splitlines() if (words := line.split())}
    assert rows["draw"] == ["1", "1", "·", "·", "·"] and rows["bad"][:5] == ["·", "·", "·", "·", "1"]
    assert "bad: failed: step bad raised ValueError" in shown


def test_machines_get_progress_on_stderr_only():
    assert isinstance(listener_for(json=True), PlainLines) and listener_for(json=True)._stream is sys.stderr
    assert listener_for(json=False)._stream is sys.stdout


def test_the_time_left_follows_from_what_steps_of_a_kind_took(store):
    plan = make_plan([single(draw, seed=seed) for seed in range(4)], store)
    tally = Tally(plan, lanes=2)
    assert tally.left() is None
    tally.ended(plan.to_run[0], Outcome("done", seconds=10))
    assert tally.left() == 3 * 10 / 2
    assert tally.running(plan.to_run[1], 1, 2) and tally.left() == 2.5 * 10 / 2
    assert not tally.running(plan.to_run[0], 1, 2), "late news of a step that has ended"
    assert [clock(seconds) for seconds in (42, 725, 11400)] == ["0:42", "12:05", "3:10:00"]


def test_memory_that_a_step_held_is_measured(store):
    step = single(hold_memory)
    execute([step], store, workers=0)
    cost = store.manifest(step.keys["numbers"])["cost"]
    assert cost["peak_bytes"] > 50 * 2**20 and cost["seconds"] > 0.1


def test_a_block_that_raises_is_measured_all_the_same():
    try:
        with measure("cpu") as cost:
            raise ValueError
    except ValueError:
        pass
    assert cost.seconds > 0
