"""A box of the generated pictures through the whole run: scores, record, picture and run.toml."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from attribench.attribution.scores import read_scores
from attribench.engine.listener import Listener
from attribench.errors import UsageError
from attribench.report import record
from attribench.run.config import RunConfig
from attribench.run.execute import Result, execute
from attribench.run.prepare import prepare

METHODS = ["unlearning", "grad-cos", "pixel"]
PARAMS = ["unlearning.fisher_draws=2", "unlearning.query_timesteps=4", "unlearning.timesteps=2", "unlearning.step_size=0.1",
          "grad-cos.timesteps=2", "grad-cos.projection_dim=64", "between-concepts.n_studies=1"]  # fmt: skip


@pytest.fixture(scope="module")
def region_run(small_options, common_store, tmp_path_factory):
    """Runs of one study."""
    folder = tmp_path_factory.mktemp("regions")

    def run(name: str, **options) -> Result:
        given = small_options | {"params": [*small_options["params"], *PARAMS], "preset": "mini", "limit": 2} | options
        config = RunConfig.gather(None, methods=METHODS, store=common_store, out=folder / name, **given)
        return execute(prepare(config), Listener())

    return run


def values(result: Result, method: str) -> np.ndarray:
    (path,) = (result.folder / "scores" / method).iterdir()
    return read_scores(path).values


def test_a_box_changes_its_querys_scores_and_only_methods_that_take_boxes_are_run(region_run, tmp_path):
    whole = region_run("whole")
    query = read_scores(next((whole.folder / "scores" / "unlearning").iterdir())).query_ids[1]
    with (tmp_path / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["query", "x", "y", "w", "h"], [query, 0, 0, 16, 32]])
    boxed = region_run("boxed", regions=tmp_path / "boxes.csv")
    assert whole.failure is None and boxed.failure is None
    for method in ("unlearning", "grad-cos"):
        before, after = values(whole, method), values(boxed, method)
        assert np.abs(before[1] - after[1]).max() > 1e-3 * np.abs(before).max()
        np.testing.assert_allclose(np.delete(after, 1, axis=0), np.delete(before, 1, axis=0), rtol=1e-6)

    rows, per_query = record.read(boxed.folder), record.read_per_query(boxed.folder)
    by_method = {row.method: row for row in rows}
    assert by_method["pixel"].status == "unavailable" and "whole pictures" in by_method["pixel"].reason
    assert by_method["unlearning"].status == by_method["random"].status == by_method["training-loss"].status == "ok"
    assert {row.region for row in rows} == {"per query"} and {row.region for row in record.read(whole.folder)} == {None}
    assert set(per_query["region"][per_query["query_id"] == query]) == {"0,0,16,32"}
    assert set(per_query["region"][per_query["query_id"] != query]) == {""}
    assert RunConfig.gather(boxed.folder / "run.toml").regions[0].query == query
    assert (boxed.folder / "top-five.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("region", "said"),
    [("0,0,40,8", "beyond the picture of 32 × 32 pixels"), ("left", "is not x,y,w,h"), ("0,0,8,0", "no area")],
)
def test_a_box_that_cannot_be_stops_a_run_before_it_starts(region_run, region, said):
    with pytest.raises(UsageError, match=said) as error:
        region_run("never", region=region)
    assert "\n" not in str(error.value)
