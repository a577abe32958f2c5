"""A run that dies at any moment goes on where it was, and ends as if it had not died."""

from __future__ import annotations

import random
import signal
import time

import pytest
from sample_steps import ancestry, contents, noted, pipeline, single, wait, wait_unheard

from attribench.engine.run import execute
from attribench.engine.store import ArtifactStore

RUN = """
import sys
from pathlib import Path
from attribench.engine.run import execute
from attribench.engine.store import ArtifactStore
import sample_steps
if int(sys.argv[2]): import distributed
step = eval("sample_steps." + sys.argv[3])
store = ArtifactStore(Path(sys.argv[1]))
print("ready", flush=True)
try:
    execute([step], store, workers=int(sys.argv[2]))
    print("finished", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


KILL_AT_EACH_CALL = """
import itertools, os, signal, sys
from pathlib import Path
from attribench.engine.run import execute
from attribench.engine.store import ArtifactStore
from sample_steps import pipeline

def die_at(moment):
    calls = itertools.count(1)
    for name in ("fsync", "rename", "replace", "unlink"):
        def counted(*args, real=getattr(os, name), **kwargs):
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        setattr(os, name, counted)

for moment in itertools.count(1):
    store = ArtifactStore(Path(sys.argv[1]) / str(moment) / "store")
    child = os.fork()
    if child == 0:
        die_at(moment)
        execute([pipeline(n=1)], store, workers=0)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
print(moment)
"""


def test_a_run_killed_at_any_file_operation_ends_with_the_same_bytes(tmp_path, python):
    """Each fsync, rename and unlink of a run is the moment of one kill."""
    out, err = python(KILL_AT_EACH_CALL, tmp_path).communicate(timeout=120)
    moments = int(out)
    assert moments > 20, err
    step, found = pipeline(n=1), []
    for moment in range(1, moments + 1):
        store = ArtifactStore(tmp_path / str(moment) / "store")
        for one in ancestry(step):
            for key in one.keys.values():
                if store.has(key):
                    store.verify(key)
        execute([step], store, workers=0)
        found.append(contents(store, ancestry(step)))
        assert not any((store.root / "partial").iterdir()) and not any((store.root / "scratch").iterdir()), moment
    assert all(one == found[-1] for one in found)


def log_lines(steps) -> set[str]:
    """What the function of each of these steps writes when it ends."""
    return {f"draw {step.params['seed']}" for step in steps if step.name == "draw"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_at_random_moments_recomputes_no_finished_step(store, tmp_path, python, workers):
    seed = time.time_ns()
    print("seed of the moments:", seed)
    moments = random.Random(seed)
    (tmp_path / "pause").write_text("0.04")
    step, log = pipeline(), tmp_path / "log"
    for attempt in range(4):
        last = attempt == 3
        finished_before = [one for one in ancestry(step) if store.has(one.keys[next(iter(one.keys))])]
        lines_before = noted(log)
        run = python(RUN, store.root, workers, "pipeline()")
        assert run.stdout.readline() == "ready\n", run.stderr.read()
        if last:
            assert run.communicate(timeout=60)[0] == "finished\n"
        else:
            time.sleep(moments.uniform(0, 0.3))
            run.send_signal(signal.SIGKILL)
            run.wait()
        new = noted(log)[len(lines_before) :]
        assert not log_lines(finished_before) & set(new)
        for one in ancestry(step):
            for key in one.keys.values():
                if store.has(key):
                    store.verify(key)

    undisturbed = ArtifactStore(tmp_path / "undisturbed" / "store")
    execute([step], undisturbed, workers=0)
    assert contents(store, ancestry(step)) == contents(undisturbed, ancestry(step))
    ArtifactStore(store.root)
    assert not any((store.root / "partial").iterdir()) and not any((store.root / "scratch").iterdir())


def test_a_killed_step_goes_on_at_its_first_unfinished_block(store, tmp_path, python):
    (tmp_path / "pause").write_text("0.2")
    step, log = pipeline(n=1), tmp_path / "log"
    run = python(RUN, store.root, 0, "pipeline(n=1)")
    while "block 1" not in noted(log):
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    (tmp_path / "pause").write_text("0")
    execute([step], store, workers=0)
    assert noted(log) == ["draw 0", *(f"block {i}" for i in range(5)), "accumulate", "collect"]
    manifest = store.manifest(step.inputs["sums-0"].key)
    assert manifest["resumed"] and list(manifest["files"]) == [f"{i}.npy" for i in range(5)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("function", ["wait", "wait_unheard"])
def test_control_c_ends_a_run_soon_and_leaves_the_store_whole(store, tmp_path, python, workers, function):
    run = python(RUN, store.root, workers, f"single(sample_steps.{function})")
    while noted(tmp_path / "log") != ["waiting"]:
        time.sleep(0.02)
    start = time.monotonic()
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=60)[0].endswith("interrupted\n")
    assert time.monotonic() - start < 20, "waiting for the step takes 30 s or more"
    key = single({"wait": wait, "wait_unheard": wait_unheard}[function]).keys["numbers"]
    assert not store.has(key) and not store.failure_path(key).exists()
    claim = ArtifactStore(store.root).claim(key)
    assert claim.folder == store.scratch(key)
    claim.release()
