"""The main run on a small world: one table, the same scores however it is run, nothing done twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from attribench.attribution.scores import read_scores
from attribench.engine.listener import Listener
from attribench.errors import ControlError
from attribench.report import record
from attribench.run.config import RunConfig
from attribench.run.execute import Result, execute
from attribench.run.prepare import prepare

METHODS = ["montrage", "clip-image", "pixel"]
ENCODERS = ["montrage.encoder=clip-tiny", "montrage.steps=20", "clip-image.encoder=clip-tiny"]


class Heard(Listener):
    """Notes how each step ended."""

    def __init__(self) -> None:
        self.statuses: dict[str, str] = {}

    def finished(self, step, outcome) -> None:
        self.statuses[str(step)] = outcome.status


@pytest.fixture(scope="session")
def options(small_options: dict) -> dict:
    """With the encoder that is here, for the methods that need one."""
    return small_options | {"methods": METHODS, "params": [*small_options["params"], *ENCODERS]}


def run(options: dict, tmp_path: Path, name: str = "run", store: str = "store", **more) -> tuple[Result, Heard]:
    heard = Heard()
    config = RunConfig.gather(None, **(options | {"store": tmp_path / store, "out": tmp_path / name} | more))
    return execute(prepare(config), heard), heard


def all_scores(folder: Path) -> dict[str, np.ndarray]:
    files = sorted((folder / "scores").rglob("*.safetensors"))
    return {str(path.relative_to(folder)): read_scores(path).values for path in files}


@pytest.fixture(scope="module")
def first(options, tmp_path_factory) -> tuple[Path, Result, Heard]:
    """One run that several tests look at."""
    folder = tmp_path_factory.mktemp("job")
    return (folder, *run(options, folder, workers="auto"))


def test_a_run_leaves_a_record_scores_and_pictures(first):
    _, result, heard = first
    assert result.failure is None
    assert set(heard.statuses.values()) == {"done"}
    rows = record.read(result.folder)
    assert {row.method for row in rows} >= {*METHODS, "random", "constant", "shuffled-queries", "training-loss"}
    assert {(row.variant, row.metric) for row in rows} == {
        ("un-mixed", "recall@5"), ("un-mixed", "precision@5"), ("un-mixed", "average_precision"),
        ("un-mixed", "spearman_with_table"), ("mixed", "recall@10"), ("mixed", "precision@10"),
        ("mixed", "average_precision"), ("mixed", "spearman_with_table"),
    }  # fmt: skip
    for row in rows:
        assert row.status == "ok"
        assert row.n_studies == 2
        assert row.value is not None
        assert row.edition == "paper"
    for file in ("run.toml", "manifest.json", "record.parquet", "per_query.parquet", "top-five.png", "intervals.png"):
        assert (result.folder / file).stat().st_size > 0
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["plugins"]["montrage"] == "attribench-diffusion 0.1.0"


def test_each_control_has_its_known_value(first):
    _, result, _ = first
    for row in record.read(result.folder):
        if row.method == "constant":
            assert row.value == pytest.approx(row.chance, abs=1e-9)
        if row.method == "random":
            assert abs(row.value - row.chance) < 0.25


def test_scores_carry_the_ids_of_both_axes(first):
    _, result, _ = first
    path = next((result.folder / "scores" / "montrage").glob("*seed4.safetensors"))
    scores = read_scores(path)
    assert all(image_id.startswith("benchmark_dataset/thing_") for image_id in scores.train_ids)
    assert all(query_id.split("/")[0] in ("un-mixed", "mixed") for query_id in scores.query_ids)
    assert list(scores.train_ids) == sorted(scores.train_ids)


def test_the_same_run_again_does_nothing_again(first, options):
    folder, result, _ = first
    again, heard = run(options, folder, name="again")
    assert set(heard.statuses.values()) == {"cached"}
    assert record.read(again.folder) == record.read(result.folder)


def test_a_run_toml_does_the_same_again(first):
    folder, result, _ = first
    config = RunConfig.gather(result.folder / "run.toml", out=folder / "replayed", params=[])
    heard = Heard()
    replayed = execute(prepare(config), heard)
    assert set(heard.statuses.values()) == {"cached"}
    assert record.read(replayed.folder) == record.read(result.folder)


def test_scores_do_not_depend_on_the_number_of_workers(first, options, tmp_path):
    """A process per core, no scheduler, one thread, two threads."""
    _, by_processes, _ = first
    expected = all_scores(by_processes.folder)
    for workers in (0, 1, 2):
        other, _ = run(options, tmp_path, name=f"with-{workers}", store=f"store-{workers}", workers=workers)
        found = all_scores(other.folder)
        assert found.keys() == expected.keys()
        for name, values in found.items():
            assert np.abs(values - expected[name]).max() <= 1e-5, name
            assert (np.argsort(values, kind="stable") == np.argsort(expected[name], kind="stable")).all(), name


def test_another_observer_trains_again_but_generates_nothing_again(first, options):
    folder, _, _ = first
    other = options | {"params": [*options["params"], "montrage.norm=l2"]}
    result, heard = run(other, folder, name="l2")
    assert result.failure is None
    for step, status in heard.statuses.items():
        kind = " ".join(step.split()[:2])
        assert status == ("done" if kind.startswith("train ") or kind.endswith("montrage") else "cached"), step


def test_a_run_that_was_killed_goes_on_and_ends_the_same(first, options, command_line, tmp_path):
    """SIGKILL at random moments, started again each time until it ends; finished steps are not done again."""
    _, expected, _ = first
    asked = [x for method in METHODS for x in ("-m", method)] + [x for param in ENCODERS for x in ("-p", param)]
    places = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "killed")]
    command = [sys.executable, "-m", "attribench", "run", *asked, *command_line, *places, "--workers", "2"]
    moments = random.Random(0)
    finished: set[str] = set()
    for attempt in range(4):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if attempt < 3:
            wait_for_artifacts(tmp_path / "store", len(finished) + 1 + moments.randrange(12), process)
            time.sleep(moments.random() / 2)
            process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=300)
        redone = [step for step in finished if f"{step}: started" in output]
        assert not redone, output
        finished |= {line.split(": done")[0] for line in output.splitlines() if ": done in" in line}
    assert process.returncode == 0, output
    found, reference = all_scores(tmp_path / "killed"), all_scores(expected.folder)
    assert found.keys() == reference.keys()
    assert all(np.array_equal(found[name], reference[name]) for name in found)


def wait_for_artifacts(store: Path, number: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if sum(1 for _ in store.glob("artifacts/*/*/manifest.json")) >= number:
            return
        time.sleep(0.02)


def test_a_metric_that_is_off_fails_the_run(options, tmp_path, monkeypatch):
    """If ids and truth were out of step, the random control would show it, and the run fails."""
    from attribench.metrics.retrieval import Recall

    real = Recall.values
    monkeypatch.setattr(Recall, "values", lambda self, scores, truth: np.minimum(1, real(self, scores, truth) + 0.5))
    result, _ = run(options, tmp_path)
    assert isinstance(result.failure, ControlError)
    assert "random" in str(result.failure)
    assert (result.folder / "record.parquet").exists()  # nothing is lost


def test_limit_keeps_what_methods_learn_from(options, tmp_path):
    config = RunConfig.gather(None, **options, limit=2, store=tmp_path / "store")
    whole = RunConfig.gather(None, **options, store=tmp_path / "store")
    for limited, full in zip(prepare(config).plans, prepare(whole).plans, strict=True):
        assert limited.roles("fit") == full.roles("fit")
        assert [case.variant for case in limited.roles("query")] == ["un-mixed"] * 2 + ["mixed"] * 2
