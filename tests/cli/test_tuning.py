"""Candidates of a method are chosen by the dev queries, never by the queries that the table reports on."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from attribench.attribution.scores import SCORES, read_scores
from attribench.engine.listener import Listener
from attribench.engine.work import Outcome
from attribench.errors import MethodError
from attribench.report import record
from attribench.report.table import show
from attribench.report.words import TUNING, by_rank
from attribench.run.config import RunConfig
from attribench.run.execute import Result, execute
from attribench.run.prepare import prepare
from attribench.run.tuning import tune

PLUGIN = '''
from dataclasses import dataclass, replace
from typing import ClassVar
import numpy as np
from attribench.interface import Access, AttributionMethod, Ensemble, Features, Scores


@dataclass(frozen=True, kw_only=True)
class Norms(Features):
    """The mean of the weights of each model."""

    name: ClassVar[str] = "norms"
    needs: ClassVar[Access] = Access.CHECKPOINTS

    def ensemble(self):
        return Ensemble(checkpoints=2, seeds=2)

    def of_training(self, study, state):
        state["norms"] = np.array([sum(w.square().sum().item() for w in m.trained_weights().values()) for m in study.models])

    def of_queries(self, study, state, queries):
        state["n"] = np.array(len(queries))


@dataclass(frozen=True, kw_only=True)
class Leaning(AttributionMethod):
    """Right where it leans to, and wrong elsewhere."""

    name: ClassVar[str] = "leaning"
    needs: ClassVar[Access] = Access.TRAJECTORY

    lean: str = "nowhere"
    scale: float = 1.0

    def features(self):
        return (Norms(),)

    def candidates(self):
        return tuple(replace(self, lean=lean) for lean in ("nowhere", "test", "dev", "dev too"))

    def score(self, study, state, queries):
        norms = study.features(Norms())["norms"].sum()
        assert study.features(Norms(), queries)["n"] == len(queries)
        values = np.empty((len(queries), len(study.train)))
        for i, tokens in enumerate(queries.modifiers):
            right = np.array([any(token in prompt for token in tokens) for prompt in study.train.prompts], dtype=float)
            noise = study.trajectory(queries.ids[i]).estimates.std() * 1e-3
            toward = {"nowhere": 0.0, "test": 1.0, "dev": -1.0, "dev too": -1.0}[self.lean]
            values[i] = self.scale * norms * (-toward if queries.monitored[i] else toward) * right + noise
        return Scores.of(queries, study.train, values)


@dataclass(frozen=True, kw_only=True)
class Steady(Leaning):
    """The same, with nothing left to tune."""

    name: ClassVar[str] = "steady"
    lean: str = "test"

    def candidates(self):
        return ()
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "leaning.py"
    path.write_text(PLUGIN)
    return path


def run(options: dict, plugin: Path, folder: Path, store: Path, **more) -> Result:
    asked = {"methods": ["leaning", "steady"], "plugins": [plugin], "store": store, "out": folder / "run"}
    return execute(prepare(RunConfig.gather(None, **(options | asked | more))), Listener())


@pytest.fixture(scope="module")
def result(small_options, plugin, common_store, tmp_path_factory) -> Result:
    """One run that several tests look at."""
    found = run(small_options, plugin, tmp_path_factory.mktemp("tuning"), common_store, workers=0)
    assert found.failure is None, found.failure
    return found


def rows_of(result: Result, **wanted) -> list[record.Row]:
    return [r for r in record.read(result.folder) if all(getattr(r, name) == value for name, value in wanted.items())]


def test_the_dev_queries_choose_and_the_test_queries_do_not(result):
    """Two candidates are right on dev and wrong on test: the earlier is tuned, whatever that costs on test."""
    rows = rows_of(result, method="leaning")
    chosen = {row.tuning: row.params for row in rows}
    assert [chosen[standing]["lean"] for standing in ("tuned", "default", "oracle")] == ["dev", "nowhere", "test"]
    assert {row.label for row in rows} == {"leaning (tuned)", "leaning (default)", "leaning (oracle)"}
    assert {row.label for row in rows_of(result, method="steady")} == {"steady"}


def test_the_oracle_is_never_below_the_tuned_by_the_tuning_metric(result):
    values = {t: [r.value for r in rows_of(result, method="leaning", tuning=t, metric="average_precision")]
              for t in ("tuned", "default", "oracle")}  # fmt: skip
    assert np.mean(values["oracle"]) == 1.0
    assert np.mean(values["oracle"]) > np.mean(values["default"]) > np.mean(values["tuned"])


def test_only_tuned_rows_and_methods_without_candidates_are_ranked(result):
    rows = rows_of(result, metric="average_precision")
    assert {row.label for row in rows if row.rank is None} == {"leaning (default)", "leaning (oracle)"}
    assert all(row.low is not None for row in rows)
    of_variant = [row for row in rows if row.variant == "un-mixed"]
    ranks = {row.label: row.rank for row in of_variant}
    assert ranks["steady"] == 1  # the oracle's equal does not push it down
    assert max(rank for rank in ranks.values() if rank) <= len([rank for rank in ranks.values() if rank])
    labels = by_rank(of_variant)
    place = labels.index("leaning (tuned)")
    assert labels[place + 1 : place + 3] == ["leaning (default)", "leaning (oracle)"]


def test_the_table_says_what_the_words_mean_once(result):
    stream = io.StringIO()
    show(record.read(result.folder), Console(file=stream, width=200))
    printed = stream.getvalue()
    assert printed.count(TUNING) == 1
    assert all(f"leaning ({word})" in printed for word in ("tuned", "default", "oracle"))
    assert "trainings" in printed  # what the further seeds took


def test_values_per_query_are_kept_apart(result):
    per_query = record.read_per_query(result.folder)
    assert set(per_query["tuning"]) == {"", "tuned", "default", "oracle"}
    keys = ["method", "tuning", "variant", "metric", "study", "query_id", "method_seed"]
    assert not per_query.duplicated(keys).any()
    means = per_query.groupby(["method", "tuning", "variant", "metric"])["value"].mean()
    for row in rows_of(result, method="leaning"):
        assert row.value == pytest.approx(means[row.method, row.tuning, row.variant, row.metric])


def test_the_manifest_holds_the_tuning_curve(result):
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert list(manifest["tuning"]) == ["leaning"]
    curve = manifest["tuning"]["leaning"]
    assert [point["params"] for point in curve] == [{"lean": lean} for lean in ("nowhere", "test", "dev", "dev too")]
    assert curve[2]["dev"] == curve[3]["dev"] == 1.0 > curve[0]["dev"] > curve[1]["dev"]


def test_the_run_folder_holds_the_tuned_scores_alone(result):
    prepared = result.prepared
    entry = next(entry for entry in prepared.methods if entry.plugin.name == "leaning")
    for of in entry.runs:
        stored = prepared.store.path(of.score.keys["scores"]) / SCORES
        copied = read_scores(result.folder / "scores" / "leaning" / f"{of.plan.id}-seed0.safetensors")
        assert np.array_equal(copied.values, read_scores(stored, 2).values)
        assert not np.array_equal(copied.values, read_scores(stored, 1).values)
        assert copied.query_ids == tuple(case.id for case in of.plan.roles("query"))
    assert len(list((result.folder / "scores" / "leaning").iterdir())) == len(prepared.plans)


def test_the_record_says_which_models_were_read_and_what_their_training_took(result):
    for method in ("leaning", "steady"):
        for row in rows_of(result, method=method):
            assert row.n_models == 4 and row.extra_training_seconds > 0
    for row in rows_of(result, method="random"):
        assert row.n_models == 1 and row.extra_training_seconds == 0


def test_a_limit_leaves_the_dev_queries_whole(result, small_options, plugin):
    config = RunConfig.gather(None, **small_options | {"methods": ["leaning"], "plugins": [plugin], "limit": 1})
    for whole, limited in zip(result.prepared.plans, prepare(config).plans, strict=True):
        assert limited.roles("fit") == whole.roles("fit")
        assert len(limited.roles("query")) < len(whole.roles("query"))


def test_the_truth_of_a_test_query_is_not_looked_at_to_choose(result, monkeypatch):
    """With the truth of every test query turned round, the choice is the same; only the oracle moves."""
    outcomes = dict.fromkeys(result.prepared.targets, Outcome("cached"))
    before = tune(result.prepared, outcomes)["leaning"]
    protocol = type(result.prepared.protocol)
    real = protocol.truth

    def turned(self, plan, observed, role="query", retrained=None):
        truth = real(self, plan, observed, role, retrained)
        if role == "query":
            object.__setattr__(truth, "relevant", ~truth.relevant)
        return truth

    monkeypatch.setattr(protocol, "truth", turned)
    after = tune(result.prepared, outcomes)["leaning"]
    assert (after.tuned, after.dev) == (before.tuned, before.dev) == (2, before.dev)
    assert before.oracle == 1 and after.oracle == 2


def test_another_number_of_workers_gives_the_same(result, small_options, plugin, tmp_path):
    other = run(small_options, plugin, tmp_path, tmp_path / "store", workers=1)
    assert other.failure is None
    key = ["method", "tuning", "variant", "metric", "study", "query_id", "method_seed"]
    first, second = (record.read_per_query(r.folder).sort_values(key, ignore_index=True) for r in (result, other))
    pd.testing.assert_frame_equal(first, second)
    for path in sorted((result.folder / "scores").rglob("*.safetensors")):
        again = read_scores(other.folder / path.relative_to(result.folder))
        assert np.allclose(read_scores(path).values, again.values, rtol=0, atol=1e-5)


BROKEN = {
    "another class": ("return (1,)", r"candidates\(\) must return instances of the method's own class"),
    "no such default": ("return (self,)\n    def default_candidate(self): return 1", "there are 1 candidates"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_candidates_that_cannot_be_are_refused_before_anything_runs(fault, small_options, tmp_path):
    body, said = BROKEN[fault]
    path = tmp_path / "broken.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from attribench.interface import AttributionMethod\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Broken(AttributionMethod):\n"
        "    '''It cannot be tuned.'''\n"
        "    name = 'untunable'\n"
        f"    def candidates(self): {body}\n"
        "    def score(self, study, state, queries): ...\n"
    )
    options = small_options | {"methods": ["untunable"], "plugins": [path], "store": tmp_path / "store"}
    with pytest.raises(MethodError, match=f"the method 'untunable': .*{said}"):
        prepare(RunConfig.gather(None, **options))
