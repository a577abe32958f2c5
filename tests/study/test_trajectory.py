"""How a picture came about is kept beside it, and changes nothing of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from attribench.diffusion.model import DiffusionModel
from attribench.engine.run import execute
from attribench.engine.store import ArtifactStore
from attribench.errors import MethodError
from attribench.interface import Access, AttributionMethod, Scores
from attribench.study.generated import estimates_name, picture_name, sampled
from attribench.study.steps import generate_step, load_trained, train_step


@pytest.fixture
def both(plan, bindings):
    """Pictures and trajectories."""
    return generate_step(plan, train_step(plan, (), bindings), bindings, trajectory=True)


@pytest.fixture
def alone(plan, bindings):
    """Pictures without."""
    return generate_step(plan, train_step(plan, (), bindings), bindings)


def drop(store: ArtifactStore, key: str) -> None:
    folder = store.path(key)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def contents(store: ArtifactStore, key: str) -> dict[str, str]:
    return {name: file["sha256"] for name, file in store.manifest(key)["files"].items()}


def test_pictures_are_the_same_with_and_without_a_trajectory_and_in_any_order(both, alone, store):
    assert both.keys["pictures"] == alone.keys["pictures"]
    pictures = contents(store, alone.keys["pictures"])
    assert execute([both], store, workers=0)[both].status == "done"  # the trajectory, after the pictures
    trajectory = contents(store, both.keys["trajectory"])
    assert contents(store, both.keys["pictures"]) == pictures

    drop(store, both.keys["pictures"])
    assert execute([both], store, workers=0)[both].status == "done"  # the pictures, after the trajectory
    assert contents(store, both.keys["pictures"]) == pictures

    drop(store, both.keys["pictures"])
    drop(store, both.keys["trajectory"])
    assert execute([both], store, workers=0)[both].status == "done"  # both at once
    assert contents(store, both.keys["pictures"]) == pictures
    assert contents(store, both.keys["trajectory"]) == trajectory


def test_the_last_estimate_is_the_stored_picture(plan, bindings, both, store):
    execute([both], store, workers=0)
    model = load_trained(bindings["model"], store.path(both.inputs["weights"].key), plan.training, "cpu")
    for number, case in enumerate(plan.cases):
        found = sampled(plan, store.path(both.keys["trajectory"]), case.id)
        assert isinstance(found.estimates, np.memmap)
        assert found.estimates.dtype == np.float32 and found.timesteps.dtype == np.int64
        assert found.estimates.shape == (plan.sampling.steps, *model.latent_shape)
        assert found.timesteps.tolist() == [501, 1]
        latent = torch.from_numpy(np.array(found.estimates[-1:]))
        decoded = model.vae.decode(latent / model.vae.config.scaling_factor).sample[0].permute(1, 2, 0).detach().numpy()
        picture = np.asarray(Image.open(store.path(both.keys["pictures"]) / picture_name(number)), dtype=float)
        off = np.abs((decoded * 0.5 + 0.5).clip(0, 1) * 255 - picture)
        assert off.mean() < 1.5, off.mean()


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


def test_a_killed_generation_of_both_goes_on_chunk_by_chunk(plan, both, store, monkeypatch):
    execute([both], store, workers=0)
    whole = {name: contents(store, key) for name, key in both.keys.items()}
    for key in both.keys.values():
        drop(store, key)
    sample, calls = DiffusionModel.sample, []

    def killed_in_the_third_chunk(self, prompts, *arguments, **options):
        calls.append(list(prompts))
        if len(calls) == 3:
            raise Killed
        return sample(self, prompts, *arguments, **options)

    monkeypatch.setattr(DiffusionModel, "sample", killed_in_the_third_chunk)
    with pytest.raises(Killed):
        execute([both], store, workers=0)
    # as if the kill had come between the two outputs of the second chunk
    left = store.scratch(both.keys["trajectory"])
    for number in (2, 3):
        (left / estimates_name(number)).unlink()
    assert execute([both], store, workers=0)[both].ok
    assert calls[3:] == [[case.prompt for case in plan.cases[i : i + 2]] for i in (2, 4, 6)]
    assert {name: contents(store, key) for name, key in both.keys.items()} == whole


@dataclass(frozen=True, kw_only=True)
class Following(AttributionMethod):
    """Keeps what it sees of its queries' sampling in the scores."""

    name: ClassVar[str] = "following"
    needs: ClassVar[Access] = Access.TRAJECTORY
    ask: str = "in score"

    def fit(self, study, state):
        if self.ask == "in fit":
            study.trajectory("un-mixed/whatever/0")

    def score(self, study, state, queries):
        if self.ask == "for another":
            study.trajectory("another")
        first = [study.trajectory(query_id).estimates[0].mean() for query_id in queries.ids]
        return Scores.of(queries, study.train, np.tile(np.array(first)[:, None], len(study.train)))


def test_a_method_follows_its_own_queries_and_no_others(plan, study_of, run_of, store):
    assert set(study_of().pictures.outputs) == {"pictures"}
    run = run_of(Following())
    assert execute([run.score], store, workers=0)[run.score].ok
    for ask in ("in fit", "for another"):
        wrong = run_of(Following(ask=ask))
        outcome = execute([wrong.score], store, workers=0)[wrong.score]
        assert isinstance(outcome.error, MethodError)
        assert "was sampled, which is not being scored; ask in score" in outcome.reason
    other = replace(plan, sampling=replace(plan.sampling, guidance=1.0))
    assert run_of(Following()).score != run_of(Following(), plan=other).score
