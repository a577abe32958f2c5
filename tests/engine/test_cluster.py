"""Steps run on any Dask cluster that fits, and one that does not is refused with what to do."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sample_steps import accumulate, draw, import_transformers, noted, pipeline, single, wait

import attribench
from attribench.engine import cluster
from attribench.engine.listener import Listener
from attribench.engine.run import execute
from attribench.engine.steps import Step
from attribench.errors import UsageError

ROOT = Path(attribench.__file__).parent.parent

CLUSTER = """
import sys
from distributed import LocalCluster
with LocalCluster(processes=False, n_workers=int(sys.argv[1]), threads_per_worker=1, host="127.0.0.1",
                  scheduler_port=0, protocol="tcp://", dashboard_address="127.0.0.1:0") as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read() if len(sys.argv) > 2 else __import__("time").sleep(120)
"""


@pytest.fixture
def scheduler(python, tmp_path) -> str:
    """The address of a cluster of one worker in another process."""
    return python(CLUSTER, 1, cwd=tmp_path).stdout.readline().strip()


class Heard(Listener):
    """Notes what it hears, and how many lines of the steps' log were there by then."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.events: list[tuple] = []

    def progress(self, step, done, total, note):
        self.events.append((str(step), done, total, note, len(noted(self.log))))

    def finished(self, step, outcome):
        self.events.append((str(step), outcome.status))


def chain() -> Step:
    drawn = single(draw, name="draw", seed=1)
    return Step("accumulate", accumulate, {}, {"numbers": drawn["numbers"]}, {"sums": None})


def assert_live(heard: Heard) -> None:
    blocks = [event for event in heard.events if event[0] == "accumulate" and len(event) == 5]
    assert [event[:4] for event in blocks] == [
        ("accumulate", 0, 0, ""),
        *(("accumulate", i + 1, 5, f"block {i}") for i in range(5)),
    ]
    assert blocks[1][4] < 4, "the first block is heard of while later ones are still to come"
    assert heard.events[-1] == ("accumulate", "done")


def test_progress_arrives_live_from_the_workers_of_an_existing_cluster(store, tmp_path, scheduler):
    (tmp_path / "pause").write_text("0.15")
    heard = Heard(tmp_path / "log")
    outcomes = execute([chain()], store, scheduler=scheduler, listener=heard)
    assert all(outcome.status == "done" for outcome in outcomes.values())
    assert_live(heard)
    assert not list(store.root.glob("marker-*"))


@pytest.mark.parametrize("workers", [0, 1])
def test_progress_arrives_live_from_this_process(store, tmp_path, workers):
    (tmp_path / "pause").write_text("0.15")
    heard = Heard(tmp_path / "log")
    execute([chain()], store, workers=workers, listener=heard)
    assert_live(heard)


def test_a_local_cluster_leaves_nothing_in_the_working_directory(store, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    execute([pipeline()], store, workers=2)
    assert list((tmp_path / "here").iterdir()) == []


def test_worker_processes_keep_the_memory_that_they_free(store):
    """Dask would have them give it back, and every tensor be faulted in anew: 2,000 pages each time here."""

    def environment_and_faults() -> tuple[dict[str, str], int]:
        """Of a worker: its environment, and the page faults of making and dropping a block of 8 MB a hundred times."""
        import os
        import resource

        import numpy as np

        np.ones(1_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(100):
            np.ones(1_000_000)
        return dict(os.environ), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with cluster.connect("auto", None, "cpu", store) as client:
        for environment, faults in client.run(environment_and_faults).values():
            assert environment["MALLOC_TRIM_THRESHOLD_"] == str(2**32)
            assert environment["OMP_NUM_THREADS"] == "1"
            assert faults < 20_000


def test_workers_of_another_version_are_refused(store, scheduler, monkeypatch):
    monkeypatch.setattr(attribench, "__version__", "9.9")
    with pytest.raises(UsageError, match="has attribench .*, this is 9.9; install the same"):
        execute([pipeline()], store, scheduler=scheduler)


def test_workers_that_see_another_store_are_refused(store, python, tmp_path):
    """A worker in a mount namespace of its own, where another file system covers the store."""
    command = f'mount -t tmpfs tmpfs "{store.root}" && exec "$@"'
    start = ["unshare", "-m", "sh", "-c", command, "sh"]
    if subprocess.run([*start, "true"], capture_output=True).returncode:
        pytest.skip("a mount namespace needs root")
    process = subprocess.Popen(
        [*start, sys.executable, "-c", CLUSTER, "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        with pytest.raises(UsageError, match="does not see the store .*mounts at the same path"):
            execute([pipeline()], store, scheduler=process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def test_a_gpu_run_on_a_cluster_without_gpus_is_refused(store, scheduler):
    with pytest.raises(UsageError, match="no worker offers a GPU.*--resources GPU=1"):
        execute([pipeline()], store, scheduler=scheduler, device="cuda")


def test_an_address_where_nothing_answers_is_refused(store, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(UsageError, match="--scheduler tcp://127.0.0.1:9: no Dask scheduler answers"):
        execute([pipeline()], store, scheduler="tcp://127.0.0.1:9")


def test_a_cluster_without_workers_is_refused(store, python, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    empty = python(CLUSTER, 0).stdout.readline().strip()
    with pytest.raises(UsageError, match="no worker; start one with `dask worker"):
        execute([pipeline()], store, scheduler=empty)


def test_cuda_workers_need_dask_cuda(store):
    if importlib.util.find_spec("dask_cuda"):
        pytest.skip("dask-cuda is installed here")
    with pytest.raises(UsageError, match="install the extra.*--workers 1"):
        execute([pipeline()], store, workers=2, device="cuda")


CANCELLED = """
import sys
from pathlib import Path
from attribench.engine.run import execute
from attribench.engine.store import ArtifactStore
from sample_steps import single, wait
execute([single(wait)], ArtifactStore(Path(sys.argv[1])), scheduler=sys.argv[2])
"""


def test_control_c_stops_the_step_on_a_distant_worker(store, tmp_path, python, scheduler):
    run = python(CANCELLED, store.root, scheduler)
    while noted(tmp_path / "log") != ["waiting"]:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    run.wait(timeout=20)
    lock = store.scratch(single(wait).keys["numbers"] + ".lock")
    deadline = time.monotonic() + 5
    while lock.exists():
        assert time.monotonic() < deadline, "the worker still holds the scratch folder"
        time.sleep(0.05)


PROCESSES = """
import importlib.util, sys
from pathlib import Path
from distributed import Client, LocalCluster
from attribench.engine.run import execute
from attribench.engine.steps import Step
from attribench.engine.store import ArtifactStore
from sample_steps import draw, die, import_transformers, single, accumulate

def origin():
    return importlib.util.find_spec("datasets").origin

if __name__ == "__main__":
    with LocalCluster(processes=True, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        with Client(cluster) as client:
            print(*client.run(origin).values())
        dead = single(die)
        below = Step("accumulate", accumulate, {}, {"numbers": dead["numbers"]}, {"sums": None})
        steps = [single(import_transformers), below]
        outcomes = execute(steps, ArtifactStore(Path(sys.argv[1])), scheduler=cluster.scheduler_address)
        print(outcomes[steps[0]].status, outcomes[dead].status, outcomes[below].status)
        print(outcomes[dead].reason)
"""


def test_a_worker_process_started_in_the_checkout_takes_no_package_from_it(store, python):
    """... and a worker that dies under a step fails that step, and takes its descendants along."""
    run = python(PROCESSES, store.root, cwd=ROOT, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    out, err = run.communicate(timeout=120)
    before, statuses, reason = out.splitlines()
    assert before == str(ROOT / "datasets" / "__init__.py"), "without care, ours would be found"
    # The result that the dying worker held may be lost, and then found in the store.
    assert statuses in ("done failed skipped", "cached failed skipped"), err
    assert "lost with its worker: KilledWorker" in reason
    seen = (store.path(single(import_transformers).keys["numbers"]) / "seen.txt").read_text()
    assert str(ROOT) not in seen and seen.endswith("False")
