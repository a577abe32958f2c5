"""Features are read once for every method that names them, and cost each of them in full."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from attribench.attribution.method_run import check
from attribench.attribution.scores import SCORES, read_scores
from attribench.engine.run import execute
from attribench.errors import MethodError
from attribench.interface import Access, AttributionMethod, Features, Scores
from attribench.run.costs import costs


def mean_colours(pictures) -> np.ndarray:
    return np.stack([np.asarray(picture).mean(axis=(0, 1)) for picture in pictures])


@dataclass(frozen=True, kw_only=True)
class Colours(Features):
    """Mean colours to some power."""

    name: ClassVar[str] = "colours"

    power: float = 1.0

    def of_training(self, study, state):
        state["colours"] = mean_colours(study.train) ** self.power
        state["seed"] = np.array(study.seed)

    def of_queries(self, study, state, queries):
        state["colours"] = mean_colours(queries) ** self.power


@dataclass(frozen=True, kw_only=True)
class Near(AttributionMethod):
    """Closeness of colours."""

    name: ClassVar[str] = "near"
    stochastic: ClassVar[bool] = True

    colours: Colours = Colours()

    def features(self):
        return (self.colours,)

    def fit(self, study, state):
        state["centre"] = study.features(self.colours)["colours"].mean(axis=0)

    def score(self, study, state, queries):
        own, train = (study.features(self.colours, of)["colours"] for of in (queries, None))
        return Scores.of(queries, study.train, -np.abs(own[:, None] - train).sum(axis=2))


@dataclass(frozen=True, kw_only=True)
class Aligned(Near):
    """Inner products of centred colours."""

    name: ClassVar[str] = "aligned"

    def score(self, study, state, queries):
        own, train = (study.features(self.colours, of)["colours"] - state["centre"] for of in (queries, None))
        return Scores.of(queries, study.train, own @ train.T)


def test_two_methods_share_one_reading_and_each_counts_its_cost(run_of, store):
    near, aligned = run_of(Near()), run_of(Aligned(), seed=4)
    outcomes = execute([*near.steps, *aligned.steps], store, workers=0)
    assert {outcome.status for outcome in outcomes.values()} == {"cached", "done"}
    done = [str(step) for step, outcome in outcomes.items() if outcome.status == "done"]
    assert [name.split(" customconcept")[0] for name in done].count("read colours") == 1
    assert sum(name.startswith("read colours of queries ") for name in done) == 1
    assert len(done) == 2 + 4

    for run in (near, aligned):
        found = costs(SimpleNamespace(store=store), SimpleNamespace(runs=[run]))
        alone = costs(SimpleNamespace(store=store), SimpleNamespace(runs=[replace(run, features=(), query_features=())]))
        for name in ("fit_seconds", "query_seconds", "bytes_per_train_image"):
            assert found[name] > alone[name] > 0
        assert found["extra_training_seconds"] == 0


def test_scores_from_shared_features_are_those_from_the_pictures(run_of, store, plan):
    run = run_of(Near())
    execute([run.score], store, workers=0)
    scores = read_scores(store.path(run.score.keys["scores"]) / SCORES)
    assert scores.query_ids == tuple(case.id for case in plan.roles("query"))
    assert len(np.unique(scores.values)) == scores.values.size


@dataclass(frozen=True, kw_only=True)
class Learner(Near):
    """Closeness of colours to what was generated."""

    name: ClassVar[str] = "learner"
    needs: ClassVar[Access] = Access.TRAINING

    def fit(self, study, state):
        state["centre"] = study.features(self.colours, study.generations)["colours"].mean(axis=0)


def test_features_of_the_generations_are_read_once_for_those_who_learn_from_them(run_of, store, plan):
    learners = [run_of(Learner(), seed=seed) for seed in (4, 16)]
    outcomes = execute([step for run in (*learners, run_of(Near())) for step in run.steps], store, workers=0)
    assert {outcome.status for outcome in outcomes.values()} <= {"cached", "done"}
    (read,) = {step for run in learners for step in run.learned_features}
    assert run_of(Near()).learned_features == ()
    own = np.load(store.path(read.keys["state"]) / "colours.npy")
    assert len(own) == len(plan.roles("fit"))
    for run in learners:
        np.testing.assert_array_equal(np.load(store.path(run.fit.keys["state"]) / "centre.npy"), own.mean(axis=0))
    found = costs(SimpleNamespace(store=store), SimpleNamespace(runs=learners[:1]))
    alone = costs(SimpleNamespace(store=store), SimpleNamespace(runs=[replace(learners[0], learned_features=())]))
    assert found["fit_seconds"] > alone["fit_seconds"]
    assert found["bytes_per_train_image"] == alone["bytes_per_train_image"]


def test_a_seed_of_the_method_does_not_reach_its_features(run_of, store):
    runs = [run_of(Near(), seed=seed) for seed in (4, 16)]
    assert runs[0].fit != runs[1].fit and runs[0].features == runs[1].features
    execute(runs[0].features, store, workers=0)
    assert np.load(store.path(runs[0].features[0].keys["state"]) / "seed.npy") == 0


def test_features_follow_their_fields_version_and_assets_and_what_they_see(run_of, plan):
    @dataclass(frozen=True, kw_only=True)
    class Newer(Colours):
        version: ClassVar[int] = 2

    @dataclass(frozen=True, kw_only=True)
    class Other(Colours):
        def assets(self):
            return "other weights"

    @dataclass(frozen=True, kw_only=True)
    class OfTheModel(Colours):
        needs: ClassVar[Access] = Access.GRADIENTS

    trained_longer = replace(plan.training, customization=replace(plan.training.customization, epochs=3))
    fewer_queries = replace(plan, cases=plan.cases[:-1])
    longer = replace(plan, training=trained_longer)
    steps = [
        run_of(method, plan=p)
        for method in (Near(), Near(colours=Colours(power=2.0)), Near(colours=Newer()), Near(colours=Other()),
                       Near(colours=OfTheModel()))
        for p in (plan, longer, fewer_queries)
    ]  # fmt: skip
    training = [run.features[0].keys["state"] for run in steps]
    assert [training[i] == training[i + 1] for i in range(0, 15, 3)] == [True] * 4 + [False]  # only what reads the model
    assert all(training[i] == training[i + 2] for i in range(0, 15, 3))
    assert len(set(training)) == 6
    queries = [run.query_features[0].keys["state"] for run in steps]
    assert len(set(queries)) == 15  # other pictures, or other queries


@dataclass(frozen=True, kw_only=True)
class InBlocks(Features):
    """One block per image; says at the first image how many were there already."""

    stop_at: int = -1

    def of_training(self, study, state):
        blocks = state.create("blocks", (len(study.train),), "int64")
        state["found"] = np.array(int((blocks > 0).sum()))
        for row in range(len(study.train)):
            if blocks[row] == 0:
                if row == STOP["at"]:
                    raise Killed
                blocks[row] = row + 1

    def of_queries(self, study, state, queries):
        state["n"] = np.array(len(queries))


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


STOP = {"at": 2}


def test_a_killed_reading_goes_on_with_what_was_written(run_of, store, plan, monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class Reader(AttributionMethod):
        name: ClassVar[str] = "reader"

        def features(self):
            return (InBlocks(),)

        def score(self, study, state, queries):
            return Scores.of(queries, study.train, np.zeros((len(queries), len(study.train))))

    (step,) = run_of(Reader()).features
    assert str(step) == f"read InBlocks {plan.id}"
    with pytest.raises(Killed):
        execute([step], store, workers=0)
    monkeypatch.setitem(STOP, "at", -1)
    assert execute([step], store, workers=0)[step].ok
    folder = store.path(step.keys["state"])
    assert np.load(folder / "found.npy") == 2
    assert np.load(folder / "blocks.npy").tolist() == [1, 2, 3, 4]
    assert store.manifest(step.keys["state"])["resumed"]


@dataclass(frozen=True, kw_only=True)
class Wrong(AttributionMethod):
    """Asks for what it should not."""

    name: ClassVar[str] = "wrong"
    how: str

    def features(self):
        return (Colours(),)

    def fit(self, study, state):
        if self.how == "not named":
            study.features(Colours(power=3.0))
        if self.how == "queries in fit":
            study.features(Colours(), study.train)

    def score(self, study, state, queries):
        if self.how == "not named in score":
            study.features(Colours(power=3.0), queries)
        return Scores.of(queries, study.train, np.zeros((len(queries), len(study.train))))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("not named", r"wrong did not name these features in features\(\): Colours\(power=3.0\); name them there"),
        ("not named in score", r"wrong did not name these features in features\(\)"),
        ("queries in fit", "wrong asked for features of queries that are not being scored; ask in score"),
    ],
)
def test_features_that_were_not_named_are_refused_in_one_line(run_of, store, how, said):
    run = run_of(Wrong(how=how))
    outcome = execute([run.score], store, workers=0)[run.score]
    assert isinstance(outcome.error, MethodError)
    assert "\n" not in outcome.reason
    with pytest.raises(MethodError, match=said):
        raise outcome.error


def test_what_is_no_features_is_refused_before_anything_runs():
    @dataclass(frozen=True, kw_only=True)
    class Odd(Near):
        def features(self):
            return ("colours",)

    with pytest.raises(MethodError, match=r"the method 'near': features\(\) must return Features, not 'colours'"):
        check(Odd())
