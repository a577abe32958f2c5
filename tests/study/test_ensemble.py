"""The models of an ensemble are those that training alone would have given, in order; none costs the study anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from attribench.attribution.method_run import check
from attribench.diffusion import noise
from attribench.diffusion.checkpoints import Checkpoints, checkpoint_steps, checkpoints
from attribench.diffusion.customization import customize
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.observing import Watch
from attribench.engine.run import execute
from attribench.errors import AccessError, MethodError
from attribench.interface import Access, AttributionMethod, Ensemble, Scores
from attribench.run.costs import costs, n_models


@dataclass(frozen=True, kw_only=True)
class Weighing(AttributionMethod):
    """Keeps the first value projection and the first modifier of every model that it is shown."""

    name: ClassVar[str] = "weighing"
    needs: ClassVar[Access] = Access.GRADIENTS | Access.CHECKPOINTS

    checkpoints: int = 1
    seeds: int = 1

    def ensemble(self):
        return Ensemble(checkpoints=self.checkpoints, seeds=self.seeds)

    def fit(self, study, state):
        own = study.model
        state["weights"] = np.stack([flat(model) for model in study.models])
        state["own"] = flat(own)  # the models that came by did not change it

    def score(self, study, state, queries):
        return Scores.of(queries, study.train, np.zeros((len(queries), len(study.train))))


def flat(model: DiffusionModel) -> np.ndarray:
    return torch.cat([weight.flatten() for weight in model.trained_weights().values()]).numpy().copy()


def trained_by_hand(plan, bindings, seed: int) -> list[np.ndarray]:
    """The weights after every step of a training."""
    model = DiffusionModel.load(bindings["model"])
    model.add_modifiers(dict(plan.training.modifiers))
    seen = []

    class Look(Watch):
        def after_step(self, rows):
            seen.append(flat(model))

        def finish(self):
            return {}

    load, config = bindings["dataset"].load, plan.training.customization
    customize(model, plan.training.images, load, config, seed=seed, watches=[Look()])
    return seen


def state_of(run, store) -> dict[str, np.ndarray]:
    outcome = execute([run.fit], store, workers=0)[run.fit]
    assert outcome.ok, outcome.reason
    folder = store.path(run.fit.keys["state"])
    return {name: np.load(folder / f"{name}.npy") for name in ("weights", "own")}


def test_models_come_seed_by_seed_and_equal_those_trained_directly(plan, bindings, run_of, store):
    assert plan.training.n_steps == 4
    run = run_of(Weighing(checkpoints=2, seeds=2))
    found = state_of(run, store)
    seeds = plan.training.seed, noise.seed_of("ensemble", plan.training.seed, 1)
    by_hand = [trained_by_hand(plan, bindings, seed) for seed in seeds]
    expected = [by_hand[0][1], by_hand[0][3], by_hand[1][1], by_hand[1][3]]
    assert len(found["weights"]) == 4
    for model, wanted in zip(found["weights"], expected, strict=True):
        assert np.array_equal(model, wanted)
    assert np.array_equal(found["own"], by_hand[0][3])

    entry = SimpleNamespace(runs=[run], method=Weighing(checkpoints=2, seeds=2))
    execute([run.score], store, workers=0)
    further = store.manifest(run.trainings[0].keys["weights"])["cost"]["seconds"]
    assert costs(SimpleNamespace(store=store), entry)["extra_training_seconds"] == further > 0
    assert n_models(entry) == 4


def test_keeping_checkpoints_leaves_the_weights_bit_for_bit(study_of, trained_store, store):
    """The stored weights were trained with nobody keeping checkpoints; training again compares every bit."""
    (trained,) = study_of(Weighing(checkpoints=3)).trainings
    before = trained_store.manifest(trained.keys["weights"])["files"]
    outcome = execute([trained], store, workers=0)[trained]
    assert outcome.status == "done", outcome.reason
    assert store.manifest(trained.keys["weights"])["files"] == before


def test_only_the_trainings_that_are_needed_are_planned(study_of):
    def seeds(*methods) -> list[int]:
        return [len(step.outputs) for step in study_of(*methods).trainings]

    assert seeds() == seeds(Weighing()) == [2]  # weights, and what the protocol's monitor saw
    assert seeds(Weighing(seeds=3)) == [2, 1, 1]
    assert seeds(Weighing(checkpoints=2)) == [3]
    assert seeds(Weighing(checkpoints=2, seeds=2), Weighing(checkpoints=4), Weighing(seeds=3)) == [4, 2, 1]


def test_an_ensemble_of_one_is_the_trained_model_and_needs_gradients_alone(run_of, store):
    @dataclass(frozen=True, kw_only=True)
    class Alone(Weighing):
        needs: ClassVar[Access] = Access.GRADIENTS

    found = state_of(run_of(Alone()), store)
    assert len(found["weights"]) == 1
    assert np.array_equal(found["weights"][0], found["own"])
    with pytest.raises(AccessError, match=r"weighing asks for an ensemble of 2 models but declares no Access\.CHECKPOINTS"):
        check(Alone(seeds=2))


def test_checkpoints_are_evenly_spaced_and_the_last_is_the_end():
    assert checkpoint_steps(4, 10) == [2, 5, 7, 10]
    assert checkpoint_steps(1, 10) == [10]
    assert checkpoint_steps(3, 3) == [1, 2, 3]


def test_more_checkpoints_than_steps_are_refused_before_anything_is_trained(study_of):
    with pytest.raises(MethodError, match="the method 'weighing': 5 checkpoints of a training of 4 optimizer steps: ask"):
        study_of(Weighing(checkpoints=5))


def test_an_ensemble_of_nothing_is_refused():
    with pytest.raises(MethodError, match="seeds=0.* is no ensemble"):
        Ensemble(seeds=0)


def test_what_is_kept_can_be_loaded_again_without_modifiers_too(small_model_folder, pictures, plan):
    model = DiffusionModel.load(small_model_folder)
    images = [replace(image, id=name, prompt="a cat") for name, image in zip(pictures, plan.training.images, strict=False)]
    watch = Checkpoints(count=2).start(model, len(images), 2 * len(images))
    seen = []

    class Look(Watch):
        def after_step(self, rows):
            seen.append(flat(model))

        def finish(self):
            return {}

    config = replace(plan.training.customization, epochs=2, batch_size=1)
    customize(model, images, pictures.__getitem__, config, seed=0, watches=[watch, Look()])
    (weights,) = checkpoints(watch.finish(), [])
    other = DiffusionModel.load(small_model_folder)
    other.load_trained(weights)
    assert np.array_equal(flat(other), seen[len(images) - 1])
