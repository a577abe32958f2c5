"""One training serves every observer, a method sees what it declared, and a killed step goes on."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from attribench.attribution.granted import GrantedStudy, Materials
from attribench.attribution.scores import SCORES, read_scores, write_scores
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.observing import TrainingObserver
from attribench.engine.run import execute
from attribench.engine.store import ArtifactStore
from attribench.errors import AccessError, MethodError, StoreError
from attribench.interface import Access, AttributionMethod, Ensemble, Scores
from attribench.study.ensemble import Member
from attribench.study.generated import picture_name
from attribench.study.steps import WEIGHTS, generate_step, observation_name, train_step


@dataclass(frozen=True, kw_only=True)
class MeanColour(AttributionMethod):
    """Closeness of mean colours."""

    name: ClassVar[str] = "mean-colour"

    def fit(self, study, state):
        state["train"] = np.stack([np.asarray(picture).mean(axis=(0, 1)) for picture in study.train])
        state["flips"] = np.array(study.flips)

    def score(self, study, state, queries):
        own = np.stack([np.asarray(picture).mean(axis=(0, 1)) for picture in queries])
        return Scores.of(queries, study.train, -np.abs(own[:, None] - state["train"][None]).sum(axis=2))


@dataclass(frozen=True, kw_only=True)
class Watching(MeanColour):
    """The same, with a look at the training."""

    name: ClassVar[str] = "watching"
    needs: ClassVar[Access] = Access.TRAINING


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of writing of each file."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


# ------------------------------------------------------------------------------------------- training


def test_the_key_of_the_weights_does_not_depend_on_who_watches(plan, bindings, monitors):
    alone, watched, twice = (train_step(plan, monitors[:n], bindings).keys for n in range(3))
    assert alone["weights"] == watched["weights"] == twice["weights"]
    assert set(alone) == {"weights"}
    assert watched.items() <= twice.items()
    assert len(set(twice.values())) == 3


def test_the_key_of_the_weights_depends_on_all_that_training_depends_on(plan, bindings):
    training = plan.training
    changes = [
        {"model": "another"}, {"data": "another"}, {"seed": 1}, {"images": training.images[:-1]},
        {"modifiers": training.modifiers[::-1]}, {"customization": replace(training.customization, epochs=3)},
    ]  # fmt: skip
    keys = [train_step(replace(plan, training=replace(training, **change)), (), bindings).keys["weights"] for change in changes]
    assert len({train_step(plan, (), bindings).keys["weights"], *keys}) == 1 + len(changes)


def test_observers_of_two_plugins_are_told_apart_though_their_classes_share_a_name():
    def of_plugin(module: str) -> TrainingObserver:
        body = {"__module__": module, "start": lambda self, model, n_train, n_steps: None}
        return dataclass(frozen=True, kw_only=True)(type("Watcher", (TrainingObserver,), body))()

    ours, theirs = of_plugin("ours"), of_plugin("theirs")
    assert ours != theirs
    assert observation_name(ours) != observation_name(theirs)


def test_a_further_observer_trains_again_for_itself_alone(plan, bindings, monitors, store):
    first = train_step(plan, monitors[:1], bindings)
    before = {key: files(store.path(key)) for key in first.keys.values()}
    both = train_step(plan, monitors, bindings)
    outcome = execute([both], store, workers=0)[both]
    assert outcome.status == "done", outcome.reason
    assert {key: files(store.path(key)) for key in first.keys.values()} == before
    l1, l2 = (np.load(store.path(both.keys[observation_name(monitor)]) / "table.npy") for monitor in monitors)
    assert l1.shape == l2.shape == (len(plan.training.images), len(monitors[0].prompts))
    assert (l1 > l2).all() and (l2 > 0).all()


def test_stored_weights_that_training_does_not_reach_again_are_an_error(plan, bindings, monitors, store):
    """As if another machine had trained them: a whole artifact, one of whose numbers is another."""
    from safetensors.numpy import load_file, save_file

    both = train_step(plan, monitors, bindings)
    folder = store.path(both.keys["weights"])
    weights = load_file(folder / WEIGHTS)
    name = min(weights)
    weights[name].flat[0] = np.nextafter(weights[name].flat[0], np.float32(np.inf))
    save_file(weights, folder / WEIGHTS)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][WEIGHTS] = {
        "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(), "bytes": (folder / WEIGHTS).stat().st_size,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    store.verify(both.keys["weights"])

    outcome = execute([both], store, workers=0)[both]
    assert outcome.status == "failed"
    assert isinstance(outcome.error, StoreError)
    assert "did not give the stored weights bit for bit" in outcome.reason
    assert outcome.reason.endswith("choose another --store")
    assert not store.has(both.keys[observation_name(monitors[1])])


def test_the_loss_of_every_step_lies_beside_the_weights(plan, bindings, trained_store):
    folder = trained_store.path(train_step(plan, (), bindings).keys["weights"])
    losses = np.load(folder / "losses.npy")
    assert losses.shape == (plan.training.customization.steps(len(plan.training.images)),)
    assert (losses > 0).all()


# ----------------------------------------------------------------------------------------- generating


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


def test_a_killed_generation_goes_on_at_the_first_chunk_not_written(plan, bindings, trained_store, store, monkeypatch):
    pictures = generate_step(plan, train_step(plan, (), bindings), bindings)
    key = pictures.keys["pictures"]
    folder = store.path(key)
    whole = {name: content for name, (content, _) in files(folder).items() if name.endswith(".png")}
    assert list(whole) == [picture_name(number) for number in range(len(plan.cases))]
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

    sample, calls = DiffusionModel.sample, []

    def killed_in_the_third_chunk(self, prompts, *arguments, **options):
        calls.append(list(prompts))
        if len(calls) == 3:
            raise Killed
        return sample(self, prompts, *arguments, **options)

    monkeypatch.setattr(DiffusionModel, "sample", killed_in_the_third_chunk)
    with pytest.raises(Killed):
        execute([pictures], store, workers=0)
    left = files(store.scratch(key))
    assert list(left) == [picture_name(number) for number in range(4)]
    (store.scratch(key) / picture_name(4)).with_suffix(".part").write_bytes(b"half a picture")

    assert execute([pictures], store, workers=0)[pictures].status == "done"
    assert calls[3:] == [[case.prompt for case in plan.cases[4:6]], [case.prompt for case in plan.cases[6:]]]
    now = files(store.path(key))
    assert left.items() <= now.items()  # not so much as written again
    assert {name: content for name, (content, _) in now.items() if name.endswith(".png")} == whole
    assert store.manifest(key)["resumed"]
    assert not [name for name in now if name.endswith(".part")]


def test_a_picture_already_written_is_never_made_again(plan, bindings, store):
    """Whatever lies there: pictures of one colour, left where a killed run would have left its own, stay."""
    pictures = generate_step(plan, train_step(plan, (), bindings), bindings)
    other = replace(plan, sampling=replace(plan.sampling, steps=3))
    again = generate_step(other, train_step(plan, (), bindings), bindings)
    scratch = store.scratch(again.keys["pictures"])
    scratch.mkdir()
    for number in range(2):
        Image.new("RGB", (32, 32), "red").save(scratch / picture_name(number))
    before = files(scratch)
    assert execute([again], store, workers=0)[again].ok
    now = files(store.path(again.keys["pictures"]))
    assert before.items() <= now.items()
    made = [name for name in now if name.endswith(".png") and name not in before]
    assert len(made) == len(plan.cases) - 2
    assert again.keys != pictures.keys


def test_a_picture_does_not_depend_on_the_others_asked_for(plan, bindings, store):
    """The last four cases alone give the same pictures, up to the last bits that their chunks move."""
    trained = train_step(plan, (), bindings)
    all_of_them, some = (generate_step(p, trained, bindings) for p in (plan, replace(plan, cases=plan.cases[3:])))
    assert execute([some], store, workers=0)[some].ok

    def picture(step, number: int) -> np.ndarray:
        return np.asarray(Image.open(store.path(step.keys["pictures"]) / picture_name(number)), dtype=int)

    for number in range(len(plan.cases) - 3):
        assert np.abs(picture(some, number) - picture(all_of_them, number + 3)).max() <= 1


# --------------------------------------------------------------------------------------------- access


def granted(plan, bindings, access: Access, **materials) -> GrantedStudy:
    found = Materials(plan=plan, dataset=bindings["dataset"], base_model=bindings["model"], **materials)
    return GrantedStudy(found, access, "nosy", seed=4, device="cpu")


LOOKS = {
    "model": (lambda study, monitor: study.model, Access.GRADIENTS, "the trained model"),
    "models": (lambda study, monitor: study.models, Access.CHECKPOINTS, "the models of an ensemble"),
    "trajectory": (lambda study, monitor: study.trajectory("a query"), Access.TRAJECTORY, "how a query was sampled"),
    "generations": (lambda study, monitor: study.generations, Access.TRAINING, "the monitored generations"),
    "observation": (lambda study, monitor: study.observation(monitor), Access.TRAINING, "what its observer saw"),
}


@pytest.mark.parametrize("what", LOOKS)
def test_what_a_method_did_not_ask_for_is_refused_by_its_name(plan, bindings, monitors, what):
    look, needed, called = LOOKS[what]
    everything_else = ~needed
    for access in (Access.FEATURES, everything_else):
        with pytest.raises(AccessError, match=f"^nosy asked for {called} but declares no {needed}; .*`needs`$"):
            look(granted(plan, bindings, access, ensemble=Ensemble(seeds=2)), monitors[0])


def test_what_a_method_asked_for_is_there(plan, bindings, monitors, trained_store):
    keys = train_step(plan, monitors[:1], bindings).keys
    pictures = generate_step(plan, train_step(plan, (), bindings), bindings).keys["pictures"]
    study = granted(
        plan, bindings, Access.GRADIENTS | Access.TRAINING, members=(Member(trained_store.path(keys["weights"]), None),),
        generations=trained_store.path(pictures),
        observations={monitors[0]: trained_store.path(keys[observation_name(monitors[0])])},
    )  # fmt: skip
    assert set(study.model.modifiers) == {"<new1>", "<new2>"}
    assert study.generations.ids == tuple(case.id for case in plan.roles("fit"))
    assert all(study.generations.monitored)
    assert study.generations[0].size == (32, 32)
    assert set(study.observation(monitors[0])) == {"table"}
    with pytest.raises(MethodError, match=r"nosy did not return this observer from observers\(\)"):
        study.observation(monitors[1])


def test_a_method_sees_neither_concepts_nor_the_pictures_that_it_is_asked_about(plan, bindings, trained_store):
    pictures = trained_store.path(generate_step(plan, train_step(plan, (), bindings), bindings).keys["pictures"])
    study = granted(plan, bindings, Access.TRAINING, generations=pictures)
    assert not hasattr(study.train, "concepts") and not hasattr(study.generations, "concepts")
    assert not set(study.generations.ids) & {case.id for case in plan.roles("query")}


# ------------------------------------------------------------------------------------- fit and score


def test_a_method_is_fitted_and_scored_and_its_costs_are_kept(plan, study_of, run_of, store):
    study, step = study_of(), run_of(MeanColour())
    outcomes = execute([step.score], store, workers=0)
    assert [outcomes[s].status for s in (study.trainings[0], study.pictures, *step.steps)] == ["cached"] * 2 + ["done"] * 2
    scores = read_scores(store.path(step.score.keys["scores"]) / SCORES)
    assert scores.query_ids == tuple(case.id for case in plan.roles("query"))
    assert scores.train_ids == tuple(image.id for image in plan.training.images)
    cost = json.loads((store.path(step.fit.keys["state"]) / "cost.json").read_text())
    assert cost["bytes"] > 0 and cost["seconds"] > 0


@dataclass(frozen=True, kw_only=True)
class Wrong(AttributionMethod):
    """Returns what it should not."""

    name: ClassVar[str] = "wrong"
    how: str

    def score(self, study, state, queries):
        values = np.zeros((len(queries), len(study.train)), dtype=np.float32)
        if self.how == "turned queries":
            return Scores(values, queries.ids[::-1], study.train.ids)
        if self.how == "turned images":
            return Scores(values, queries.ids, study.train.ids[::-1])
        if self.how == "array":
            return values
        if self.how == "transposed":
            return Scores.of(queries, study.train, values.T)
        if self.how == "nan":
            values[0, 0] = np.nan
        if self.how == "infinite":
            values[0, 0] = -np.inf
        if self.how == "raises":
            raise RuntimeError("two\nlines")
        return Scores.of(queries, study.train, values)


WRONG = {
    "turned queries": r"must return Scores\.of",
    "turned images": r"must return Scores\.of",
    "array": r"must return Scores\.of",
    "transposed": r"shape \(4, 3\), expected \[n_query, n_train\] = \(3, 4\)",
    "nan": "1 of 12 scores are NaN",
    "infinite": "1 of 12 scores are NaN or infinite",
    "raises": "RuntimeError: two lines; report it to its author",
}


def refusal(how: str, run_of, store: ArtifactStore) -> str:
    step = run_of(Wrong(how=how))
    outcome = execute([step.score], store, workers=0)[step.score]
    assert outcome.status == "failed"
    assert isinstance(outcome.error, MethodError)
    assert not store.has(step.score.keys["scores"])
    assert str(outcome.error) == outcome.reason
    return outcome.reason


@pytest.mark.parametrize("how", WRONG)
def test_scores_that_cannot_be_are_refused_with_one_line(how, run_of, store):
    reason = refusal(how, run_of, store)
    assert "\n" not in reason
    assert re.search(WRONG[how], reason), reason


@pytest.mark.parametrize("how", WRONG)
def test_the_line_names_the_method(how, run_of, store):
    assert "wrong" in refusal(how, run_of, store)


def test_scores_come_back_as_they_went(tmp_path):
    values = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32).T  # not contiguous
    values[0, 0], values[1, 1] = -0.0, np.finfo(np.float32).tiny
    queries = ("un-mixed/a <new1> Käse/0", '引用 "quoted"\n, with\ttab', "🙂")
    images = ("Élisabeth/1.jpg", "a'b\\c.png", "", "é/é.png")
    write_scores(tmp_path / SCORES, Scores(values, queries, images))
    again = read_scores(tmp_path / SCORES)
    assert (again.query_ids, again.train_ids) == (queries, images)
    assert again.values.dtype == np.float32
    assert again.values.tobytes() == np.ascontiguousarray(values).tobytes()


# ----------------------------------------------------------------------------------------------- keys


def other_training(plan, **changes):
    return replace(plan, training=replace(plan.training, customization=replace(plan.training.customization, **changes)))


def test_features_are_not_fitted_again_for_another_training(plan, run_of):
    other = other_training(plan, learning_rate=1e-2, epochs=3)
    assert run_of(MeanColour()).fit.keys == run_of(MeanColour(), other).fit.keys
    assert run_of(Watching()).fit.keys != run_of(Watching(), other).fit.keys


def test_features_are_fitted_again_for_other_images_and_hyper_parameters(plan, run_of):
    fewer = replace(plan, training=replace(plan.training, images=plan.training.images[1:]))
    changed = replace(plan, training=replace(plan.training, data="other bytes"))
    keys = {run_of(MeanColour(), p).fit.keys["state"] for p in (plan, fewer, changed)}
    assert len(keys) == 3
    assert run_of(Wrong(how="a")).fit.keys != run_of(Wrong(how="b")).fit.keys
    assert run_of(MeanColour(), seed=4).fit.keys != run_of(MeanColour(), seed=16).fit.keys


def test_a_training_with_flips_is_not_served_features_without(plan, run_of, store):
    """Rule 7: with flips each training image is scored in both versions, so a fit that read `study.flips` is another."""
    for flips in (False, True):
        step = run_of(MeanColour(), other_training(plan, flips=flips)).fit
        assert execute([step], store, workers=0)[step].ok
        assert bool(np.load(store.path(step.keys["state"]) / "flips.npy")) == flips


@dataclass(frozen=True, kw_only=True)
class Counting(AttributionMethod):
    """Keeps how many prompts there are."""

    name: ClassVar[str] = "counting"
    needs: ClassVar[Access] = Access.TRAINING

    def fit(self, study, state):
        state["prompts"] = np.array(len(study.prompts))

    def score(self, study, state, queries):
        return Scores.of(queries, study.train, np.zeros((len(queries), len(study.train))))


def test_a_study_with_fewer_prompts_is_not_served_a_fit_that_saw_more(plan, run_of, store):
    """As with --limit: a method that reads `study.prompts` sees another study."""
    fewer = replace(plan, cases=plan.cases[:-1])
    for p in (plan, fewer):
        step = run_of(Counting(), p).fit
        assert execute([step], store, workers=0)[step].ok
        assert np.load(store.path(step.keys["state"]) / "prompts.npy") == len({case.prompt for case in p.cases})


def test_scores_depend_on_the_generated_pictures(plan, run_of):
    other = replace(plan, sampling=replace(plan.sampling, guidance=1.0))
    assert run_of(MeanColour()).fit.keys == run_of(MeanColour(), other).fit.keys
    assert run_of(MeanColour()).score.keys != run_of(MeanColour(), other).score.keys
    assert run_of(MeanColour()).score.keys != run_of(MeanColour(), other_training(plan, epochs=3)).score.keys
