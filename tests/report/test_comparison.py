"""Runs beside each other: differences whose answer is known, and runs that cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_record import identity

from attribench.errors import UsageError
from attribench.report import record
from attribench.report.comparison import compare_runs
from attribench.report.record import Row
from attribench.statistics.summary import summary


@pytest.fixture
def run_folder(tmp_path: Path, per_query: pd.DataFrame):
    """Write a run folder whose values are those of `per_query`, changed."""

    def make(name: str, change=lambda values: values, only: list[str] | None = None, manifest: dict | None = None, **row) -> Path:
        values = change(per_query.copy())
        if only is not None:
            values = values[values["method"].isin(only)]
        rows = [
            Row(**identity(number["method"]) | number | {"tuning": None} | row, status="ok")
            for number in summary(values).to_dict("records")
        ]
        folder = tmp_path / name
        folder.mkdir()
        record.write(rows, values, folder)
        (folder / "manifest.json").write_text(json.dumps({"preset": 1, "model": "tiny"} | (manifest or {})))
        return folder

    return make


def lifted(values: pd.DataFrame) -> pd.DataFrame:
    """MONTRAGE's average precision is 0.05 lower (inside the range of the metric), all else is as it was."""
    chosen = (values["method"] == "montrage") & (values["metric"] == "average_precision")
    values.loc[chosen, "value"] = np.maximum(values.loc[chosen, "value"] - 0.05, 0)
    return values


def test_a_method_that_lost_the_same_on_every_query_is_told_apart_and_one_that_did_not_change_is_not(run_folder):
    found, notes = compare_runs([run_folder("before"), run_folder("after", lifted)])
    assert notes == []
    by_metric = {(one.variant, one.metric): one for one in found}
    changed = by_metric["un-mixed", "average_precision"]
    assert (changed.n_queries, changed.n_studies) == (80, 4)
    montrage, image, pixel = changed.differences
    assert [str(montrage.first), str(montrage.second)] == ["montrage in before", "montrage in after"]
    assert montrage.value == pytest.approx(0.05) == pytest.approx(montrage.low) and montrage.p_holm < 1e-6
    assert image.value == pixel.value == 0 and image.p_holm == 1
    assert {d.value for one in found if one.metric != "average_precision" for d in one.differences} == {0.0}


def test_controls_are_compared_only_when_asked_for(run_folder):
    folders = [run_folder("a"), run_folder("b")]
    assert {d.first.method for one in compare_runs(folders)[0] for d in one.differences} == {"montrage", "clip-image", "pixel"}
    assert {d.first.method for one in compare_runs(folders, ["random"])[0] for d in one.differences} == {"random"}


def test_runs_that_share_no_method_are_compared_each_with_each(run_folder):
    found, _ = compare_runs([run_folder("a", only=["montrage"]), run_folder("b", only=["pixel", "clip-image"])])
    pairs = [(d.first.method, d.second.method) for d in found[0].differences]
    assert sorted(pairs) == [("montrage", "clip-image"), ("montrage", "pixel")]


def test_the_methods_of_one_run_are_compared_with_each_other(run_folder):
    (found, *_), _ = compare_runs([run_folder("alone")], ["montrage", "pixel", "random"])
    pairs = [{d.first.method, d.second.method} for d in found.differences]
    assert len(pairs) == 3 and {"montrage", "random"} in pairs and {"montrage", "pixel"} in pairs
    values = {(d.first.method, d.second.method): d.value for d in found.differences}
    assert values["montrage", "random"] == pytest.approx(values["montrage", "pixel"] + values["pixel", "random"])


def test_runs_of_other_models_say_so(run_folder):
    _, notes = compare_runs([run_folder("a"), run_folder("b", manifest={"preset": 2})])
    assert len(notes) == 1 and "presets differ" in notes[0]
    _, notes = compare_runs([run_folder("c"), run_folder("d", manifest={"model": "another"})])
    assert len(notes) == 1 and "base models differ" in notes[0]
    _, notes = compare_runs([run_folder("e"), run_folder("f", manifest={"model": None})])
    assert notes == []  # what a run does not tell is no difference


def test_runs_that_attribute_other_boxes_say_so(run_folder):
    _, notes = compare_runs([run_folder("whole"), run_folder("left", region="0,0,32,64")])
    assert len(notes) == 1 and "different parts of the pictures (whole pictures; 0,0,32,64)" in notes[0]


def test_a_metric_of_drawn_subsets_is_told_to_be_compared_with_these_subsets(run_folder):
    renamed = lambda values: values.assign(metric=values["metric"].replace("average_precision", "lds"))  # noqa: E731
    _, notes = compare_runs([run_folder("a", renamed), run_folder("b", renamed)])
    assert len(notes) == 1 and notes[0].startswith("lds: these intervals are over studies")


def test_only_queries_that_both_runs_have_are_compared(run_folder):
    fewer = run_folder("fewer", lambda values: values[values["query_id"] != "q3"])
    found, _ = compare_runs([run_folder("all"), fewer])
    assert {one.n_queries for one in found} == {76}


@pytest.mark.parametrize("what", [{"dataset": "mine"}, {"seed": 3}, {"protocol": "lds"}])
def test_runs_of_other_queries_are_refused(run_folder, what):
    with pytest.raises(UsageError, match="share no queries"):
        compare_runs([run_folder("a"), run_folder("b", **what)])


def test_what_cannot_be_compared_is_one_line(run_folder, tmp_path):
    alone = run_folder("alone")
    with pytest.raises(UsageError, match="no two methods pixel"):
        compare_runs([alone], ["pixel"])
    with pytest.raises(UsageError, match="finished run"):
        compare_runs([alone, tmp_path / "nothing"])
    with pytest.raises(UsageError, match="no two of these runs have a method d-trak"):
        compare_runs([alone, run_folder("other")], ["d-trak"])
