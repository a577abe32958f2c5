"""The gradient family through the whole run: shared readings, ensembles, trajectories, three rows for what is tuned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attribench.attribution.scores import read_scores
from attribench.engine.listener import Listener
from attribench.run.config import RunConfig
from attribench.run.execute import Result, execute
from attribench.run.prepare import prepare

METHODS = ["trak", "d-trak", "journey-trak", "grad-dot", "grad-cos", "tracin", "relative-influence",
           "renormalized-influence", "das", "datainf"]  # fmt: skip
TUNED = ["trak", "d-trak", "journey-trak", "relative-influence", "renormalized-influence", "das"]
SMALL = ("timesteps=2", "projection_dim=64")
COUNTS = [f"{name}.{field}" for name in METHODS for field in SMALL] + ["tracin.checkpoints=2", "datainf.factor_dim=8"]


def gradient_run(options: dict, folder: Path, store: Path, methods: list[str], params=(), name: str = "run", **others) -> Result:
    given = options | others | {"params": [*options["params"], *params]}
    config = RunConfig.gather(None, methods=methods, store=store, out=folder / name, **given)
    return execute(prepare(config), Listener())


@pytest.fixture(scope="module")
def everything(small_options, common_store, tmp_path_factory) -> Result:
    return gradient_run(small_options, tmp_path_factory.mktemp("gradients"), common_store, METHODS, COUNTS)


def test_every_gradient_method_has_its_rows(everything):
    assert everything.failure is None
    for name in METHODS:
        rows = [row for row in everything.rows if row.method == name and row.metric == "recall@5"]
        assert all(row.status == "ok" and np.isfinite(row.value) for row in rows)
        assert {row.tuning for row in rows} == ({"tuned", "default", "oracle"} if name in TUNED else {None})
        assert all((row.rank is None) == (row.tuning in ("default", "oracle")) for row in rows)
        chosen = {row.params.get("lambda_reg") for row in rows}
        assert "tuned" not in chosen and (0.1 in chosen if name in TUNED else True)


def test_one_reading_serves_the_methods_that_name_equal_features(everything):
    """Eight of the ten differentiate the loss at the trained model alone: TracIn, JourneyTRAK, D-TRAK and DAS do not."""
    steps = [str(step) for step in everything.prepared.studies["customconcept101-test-5c-00"].trainings]
    assert len(steps) == 1
    readings = {step for entry in everything.prepared.methods for run in entry.runs for step in run.features}
    of_one_study = [step for step in readings if step.label.endswith("-00") and "gradients" in step.name]
    # trak with the dots, the cosines and the influences; tracin; journey-trak; d-trak; das; datainf keeps layers apart
    assert len(of_one_study) == 6


def test_scores_do_not_depend_on_the_workers(everything, small_options, tmp_path):
    again = gradient_run(small_options, tmp_path, tmp_path / "store", ["trak", "d-trak"], COUNTS[:4], workers=0)
    for path in sorted((again.folder / "scores").glob("*trak/*")):
        other = everything.folder / "scores" / path.parent.name / path.name
        np.testing.assert_allclose(read_scores(path).values, read_scores(other).values, rtol=1e-5)


def test_an_ensemble_costs_trainings_that_the_record_tells(small_options, common_store, tmp_path):
    params = ["grad-cos.timesteps=2", "grad-cos.projection_dim=64", "grad-cos.seeds=2", "grad-cos.checkpoints=2"]
    result = gradient_run(small_options, tmp_path, common_store, ["grad-cos"], params)
    row = next(row for row in result.rows if row.method == "grad-cos")
    assert row.n_models == 4 and row.extra_training_seconds > 0
    assert next(row for row in result.rows if row.method == "random").extra_training_seconds == 0


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (["trak.group=lora"], "the group 'lora' names no parameter"),
        (["trak.projection=none", "trak.lambda_reg=-1"], "lambda_reg"),
    ],
)
def test_bad_settings_are_told_in_one_line(small_options, common_store, tmp_path, params, said):
    try:
        failure = gradient_run(small_options, tmp_path, common_store, ["trak"], [*params, "between-concepts.n_studies=1"]).failure
    except Exception as error:
        failure = error
    assert said in str(failure) and "\n" not in str(failure)
