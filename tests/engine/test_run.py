"""A run makes what is missing, once, and a failure takes only its descendants along."""

from __future__ import annotations

import shutil

import pytest
from sample_steps import (
    Watcher,
    accumulate,
    ancestry,
    be_unavailable,
    collect,
    contents,
    copy_bound,
    draw,
    exit_python,
    matmul_bits,
    noted,
    pipeline,
    raise_error,
    read,
    resume_counting,
    single,
    training,
    unknown_name,
)  # fmt: skip

from attribench.engine.plan import dry_run
from attribench.engine.run import execute
from attribench.engine.steps import Step
from attribench.engine.store import ArtifactStore
from attribench.errors import MethodError, StoreError, Unavailable, UsageError


@pytest.fixture(params=[0, 2], ids=["no scheduler", "two workers"])
def workers(request) -> int:
    return request.param


def test_finished_steps_are_not_run_again(store, tmp_path, workers):
    step = pipeline()
    first = execute([step], store, workers=workers)
    assert {outcome.status for outcome in first.values()} == {"done"} and len(first) == 7
    log = noted(tmp_path / "log")
    again = execute([pipeline()], store, workers=workers)
    assert {outcome.status for outcome in again.values()} == {"cached"} and len(again) == 7
    assert noted(tmp_path / "log") == log


def test_the_number_of_workers_does_not_change_a_byte(tmp_path):
    found = []
    for workers in (0, 1, 2):
        store = ArtifactStore(tmp_path / str(workers) / "store")
        steps = [*ancestry(pipeline()), single(matmul_bits)]
        execute(steps, store, workers=workers)
        assert (store.path(steps[-1].keys["numbers"]) / "threads.txt").read_text() == "1"
        found.append(contents(store, steps))
    assert found[0] == found[1] == found[2]


def test_an_ancestor_that_nobody_needs_is_not_run(store, tmp_path):
    drawn = single(draw, seed=1)
    summed = Step("accumulate", accumulate, {}, {"numbers": drawn["numbers"]}, {"sums": None})
    execute([summed], store, workers=0)
    shutil.rmtree(store.path(drawn.keys["numbers"]))
    outcomes = execute([summed], store, workers=0)
    assert outcomes[summed].status == "cached" and drawn not in outcomes
    total = Step("collect", collect, {"n": 1}, {"sums-0": summed["sums"]}, {"total": None})
    outcomes = execute([total], store, workers=0)
    assert outcomes[total].status == "done" and drawn not in outcomes


def test_of_several_outputs_only_the_missing_are_made(store, tmp_path, workers):
    execute([training()], store, workers=workers)
    watched = training(seen=Watcher("l1"))
    execute([watched], store, workers=workers)
    assert noted(tmp_path / "log") == ["train weights", "train seen"]
    text = (store.path(watched.keys["seen"]) / "result.txt").read_text()
    assert text == "l1, weights present: True"


def test_a_failing_branch_leaves_the_others(store, workers):
    bad = Step("draw", raise_error, {}, {}, {"numbers": None}, label="bad")
    below = Step("accumulate", accumulate, {}, {"numbers": bad["numbers"]}, {"sums": None}, label="bad")
    further = Step("collect", collect, {"n": 1}, {"sums-0": below["sums"]}, {"total": None}, label="bad")
    good = pipeline()
    outcomes = execute([further, good], store, workers=workers)
    assert outcomes[good].status == "done"
    assert outcomes[bad].status == "failed" and isinstance(outcomes[bad].error, MethodError)
    assert "step draw bad raised ValueError: the numbers are bad" in outcomes[bad].reason
    for step in (below, further):
        assert outcomes[step].status == "skipped" and outcomes[step].reason == outcomes[bad].reason


def test_what_is_unavailable_is_not_a_failure(store, workers):
    missing = single(be_unavailable)
    below = Step("accumulate", accumulate, {}, {"numbers": missing["numbers"]}, {"sums": None})
    outcomes = execute([below], store, workers=workers)
    assert outcomes[missing].status == "unavailable" and "clip" in outcomes[missing].reason
    assert outcomes[below].status == "skipped" and isinstance(outcomes[below].error, Unavailable)
    assert not store.failure_path(missing.keys["numbers"]).exists()


def test_a_step_that_exits_python_only_fails(store, workers):
    rude, good = single(exit_python), single(draw, seed=1)
    outcomes = execute([rude, good], store, workers=workers)
    assert outcomes[rude].status == "failed" and "SystemExit" in outcomes[rude].reason
    assert outcomes[good].status == "done"


def test_a_damaged_input_fails_its_reader_and_says_which_folder_to_delete(store, workers):
    source = training()
    execute([source], store, workers=0)
    (store.path(source.keys["weights"]) / "result.txt").write_text("longer than before")
    reader = Step("read", read, {}, {"source": source["weights"]}, {"copy": None})
    outcome = execute([reader], store, workers=workers)[reader]
    assert outcome.status == "failed" and isinstance(outcome.error, StoreError)
    assert "delete that folder" in outcome.reason


def test_an_error_with_its_own_constructor_keeps_its_kind(store, workers):
    step = single(unknown_name)
    outcome = execute([step], store, workers=workers)[step]
    assert type(outcome.error) is UsageError and "did you mean 'montrage'?" in str(outcome.error)


def test_a_step_that_fails_on_what_it_resumed_starts_afresh(store):
    step = single(resume_counting, needed=2)
    assert execute([step], store, workers=0)[step].reason.count("attempt 1")
    assert execute([step], store, workers=0)[step].status == "done"
    manifest = store.manifest(step.keys["numbers"])
    assert manifest["resumed"] and list(manifest["files"]) == ["attempts"]

    stubborn = single(resume_counting, needed=9)
    reasons = [execute([stubborn], store, workers=0)[stubborn].reason for _ in range(3)]
    assert ["attempt 1" in reasons[0], "attempt 2" in reasons[1], "attempt 1" in reasons[2]] == [True] * 3


def test_a_binding_reaches_the_step_and_not_the_key(store, tmp_path, workers):
    (tmp_path / "source").write_text("content")
    params, outputs = {"content": "fingerprint"}, {"numbers": None}
    bound = Step("bound", copy_bound, params, {}, outputs, bindings={"source": tmp_path / "source"})
    assert bound == Step("bound", copy_bound, params, {}, outputs, bindings={"source": tmp_path / "elsewhere"})
    execute([bound], store, workers=workers)
    assert (store.path(bound.keys["numbers"]) / "copy.txt").read_text() == "content"


def test_equal_steps_run_once(store, tmp_path, workers):
    outcomes = execute([single(draw, seed=1), single(draw, name="same", seed=1)], store, workers=workers)
    assert len(outcomes) == 1 and noted(tmp_path / "log") == ["draw 1"]


def test_a_dry_run_runs_nothing_and_estimates_from_earlier_runs(store, tmp_path):
    step = pipeline(n=1)
    rows = dry_run([step], store)
    assert [(row.step.name, row.cached) for row in rows] == [("draw", False), ("accumulate", False), ("collect", False)]
    assert all(row.estimate.seconds is None for row in rows) and not (tmp_path / "log").exists()

    execute([step], store, workers=0)
    more = dry_run([pipeline(n=2)], store)
    assert [row.cached for row in more] == [True, True, False, False, False]
    assert more[2].estimate.bytes == 50 * 8 * 8 + 128 and more[2].estimate.seconds > 0

    stated = Step("slow", draw, {}, {}, {"numbers": None}, estimate={"seconds": 60})
    assert dry_run([stated], store)[0].estimate.seconds == 60
