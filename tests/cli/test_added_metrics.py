"""`--metric`: more columns beside the protocol's own, from ours or from a file; one that cannot serve loses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from attribench.engine.listener import Listener
from attribench.errors import UsageError
from attribench.report import record
from attribench.run.config import RunConfig
from attribench.run.execute import Result, execute
from attribench.run.prepare import prepare

METRICS = '''
from dataclasses import dataclass
import numpy as np
from attribench.measurement import Metric

@dataclass(frozen=True, kw_only=True)
class TopIsRelevant(Metric):
    """Whether one of the `first` images is relevant."""
    bounds = (0.0, 1.0)
    first: int = 1
    @property
    def name(self):
        return f"top_is_relevant@{self.first}"
    def values(self, scores, truth):
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.first]
        return np.take_along_axis(truth.relevant, best, axis=1).any(axis=1).astype(float)
    def chance(self, truth):
        return np.full(len(truth.query_ids), np.nan)

@dataclass(frozen=True, kw_only=True)
class Broken(Metric):
    """Divides by nothing."""
    name = "broken"
    def values(self, scores, truth):
        return np.zeros(len(scores)) / len([]) if len([]) else 1 / 0
    def chance(self, truth):
        return np.zeros(len(truth.query_ids))

@dataclass(frozen=True, kw_only=True)
class Boundless(Metric):
    """Leaves the bounds that it declares."""
    name = "boundless"
    bounds = (0.0, 1.0)
    def values(self, scores, truth):
        return np.full(len(scores), 7.0)
    def chance(self, truth):
        return np.full(len(truth.query_ids), 0.5)

class _Private(Metric):
    """No plugin."""
'''
ASKED = ("top-is-relevant", "recall", "lds", "broken", "boundless", "spearman_with_table")


@pytest.fixture(scope="module")
def options(small_options: dict, common_store: Path, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("added")
    (folder / "metrics.py").write_text(METRICS)
    params = [*small_options["params"], "recall.k=3", "top_is_relevant.first=2"]
    return small_options | {
        "methods": ["pixel"], "plugins": [folder / "metrics.py"], "metrics": list(ASKED), "params": params,
        "store": common_store, "out": folder / "with",
    }  # fmt: skip


@pytest.fixture(scope="module")
def result(options: dict) -> Result:
    return execute(prepare(RunConfig.gather(None, **options)), Listener())


@pytest.fixture(scope="module")
def without(options: dict, result: Result) -> Result:
    """The same run without added metrics; its steps are in the store."""
    params = [param for param in options["params"] if not param.startswith(("recall.", "top_"))]
    plain = options | {"metrics": [], "params": params, "out": options["out"].with_name("without")}
    return execute(prepare(RunConfig.gather(None, **plain)), Listener())


def test_added_metrics_have_rows_with_chance_and_ceiling(result):
    rows = {(row.method, row.variant, row.metric): row for row in record.read(result.folder)}
    for variant in ("un-mixed", "mixed"):
        recall = rows["pixel", variant, "recall@3"]
        assert recall.value is not None and 0 < recall.chance < recall.ceiling <= 1
        assert rows["pixel", variant, "top_is_relevant@2"].value is not None
        assert rows["random", variant, "recall@3"].value is not None
    values = record.read_per_query(result.folder)
    assert set(values["metric"]) >= {"recall@3", "recall@5", "recall@10", "top_is_relevant@2"}


def test_a_metric_that_cannot_serve_says_so_in_one_line_and_loses_nothing(result, without):
    assert set(result.unserved) == {"lds", "broken", "boundless"}
    assert result.unserved["lds"].startswith("LDS needs losses under at least")
    assert result.unserved["broken"] == "ZeroDivisionError: division by zero"
    assert "outside its bounds [0.0, 1.0]" in result.unserved["boundless"]
    assert result.failure is None
    own = [row for row in result.rows if row.metric not in ("recall@3", "top_is_relevant@2")]
    assert own == without.rows
    assert json.loads((result.folder / "manifest.json").read_text())["added metrics"]["broken"] == result.unserved["broken"]


def test_the_protocols_own_metric_comes_once(result):
    named = [(row.method, row.variant, row.metric) for row in result.rows]
    assert len(named) == len(set(named))


def test_run_toml_holds_the_metrics(result, options):
    config = RunConfig.gather(result.folder / "run.toml", out=options["out"].with_name("again"))
    assert config.metrics == ASKED
    again = execute(prepare(config), Listener())
    assert record.read(again.folder) == record.read(result.folder)


def test_the_value_of_every_query_is_that_of_the_metric(result):
    values = record.read_per_query(result.folder)
    pixel = values[values["method"] == "pixel"]
    at = {k: pixel[pixel["metric"] == f"recall@{k}"].set_index(["study", "query_id"])["value"] for k in (3, 5)}
    shared = at[5].index
    assert (at[3].loc[shared].to_numpy() <= at[5].to_numpy() + 1e-12).all()
    assert np.isfinite(at[3]).all()


WRONG = {
    "unknown": ({"metrics": ["recal"]}, "did you mean 'recall'?"),
    "parameter of a metric that is not added": ({"metrics": [], "params": ["average_precision.k=3"]}, "add --metric average_"),
    "unknown field": ({"metrics": ["recall"], "params": ["recall.kk=3"]}, "'k'"),
    "bad value": ({"metrics": ["recall"], "params": ["recall.k=0"]}, "K = 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_metric_that_cannot_be_is_one_line(options, case):
    change, hint = WRONG[case]
    with pytest.raises(UsageError, match=hint.replace("?", r"\?")):
        prepare(RunConfig.gather(None, **options | {"out": Path("nowhere")} | change))


def test_two_metrics_of_one_name_are_refused(options, tmp_path):
    (tmp_path / "same.py").write_text(
        METRICS.split("@dataclass")[0]
        + '@dataclass(frozen=True, kw_only=True)\nclass Mine(Metric):\n    """Another recall."""\n    name = "recall@5"\n'
        "    def values(self, scores, truth):\n        return np.zeros(len(scores))\n"
        "    def chance(self, truth):\n        return np.zeros(len(scores))\n"
    )
    changed = options | {"plugins": [tmp_path / "same.py"], "metrics": ["mine"], "params": options["params"][:-2]}
    with pytest.raises(UsageError, match="two different metrics are called 'recall@5'"):
        prepare(RunConfig.gather(None, **changed))
