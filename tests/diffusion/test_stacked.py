"""Models trained together are the models trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attribench.data import TrainImage
from attribench.diffusion import noise, stacked
from attribench.diffusion.config import CustomizationConfig
from attribench.diffusion.customization import customize
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.stacked import (
    Customized,
    StackedJob,
    customize_in_turn,
    memory_per_model,
    models_at_once,
    stacked_losses,
)
from attribench.errors import ModelError

PAPER = CustomizationConfig(epochs=2)
LOUD = CustomizationConfig(epochs=2, learning_rate=1e-3, modifier_learning_rate=5e-3, weight_decay=0.1)
"""Rates at which a wrong step shows at once."""
PROMPTS = ("photo of a <new1> cat", "photo of a <new2> dog", "photo of a dog")
MODIFIERS = {"<new1>": "cat", "<new2>": None}


@pytest.fixture
def images(pictures) -> tuple[TrainImage, ...]:
    """Of eight images two in three hold a modifier."""
    return tuple(TrainImage(id=id, prompt=PROMPTS[i % 3], caption="", concept="c") for i, id in enumerate(sorted(pictures)))


@pytest.fixture
def jobs(images) -> list[StackedJob]:
    """Unlike sizes, seeds that differ and one that does not."""
    return [StackedJob(images[:3], 0), StackedJob(images, 1), StackedJob(images[1:6], 0)]


@pytest.fixture
def fresh(small_model_folder):
    def load() -> DiffusionModel:
        model = DiffusionModel.load(small_model_folder)
        model.add_modifiers(MODIFIERS)
        return model

    return load


@pytest.fixture
def fresh_double(fresh, monkeypatch):
    """The model in float64, where rounding hides nothing, and Adam does not enlarge it."""
    drawn = noise.normal
    monkeypatch.setattr(noise, "normal", lambda *key: drawn(*key).double())
    pixels = DiffusionModel.pixels
    monkeypatch.setattr(DiffusionModel, "pixels", lambda model, pictures: pixels(model, pictures).double())

    def load() -> DiffusionModel:
        model = fresh()
        for part in (model.unet, model.vae, model.text_encoder):
            part.double()
        return model

    return load


def customize_stacked(model, jobs: Sequence[StackedJob], *arguments, **options) -> list[Customized]:
    """The results in the order of the jobs."""
    results = dict(customize_in_turn(model, jobs, *arguments, **options))
    return [results[number] for number in range(len(jobs))]


def alone(fresh, jobs: Sequence[StackedJob], pictures, config: CustomizationConfig) -> list[Customized]:
    model, results = fresh(), []
    before = {name: weight.clone() for name, weight in model.trained_weights().items()}
    for job in jobs:
        model.load_trained(before)
        losses = customize(model, job.images, pictures.__getitem__, config, seed=job.seed)
        results.append(Customized({name: weight.clone() for name, weight in model.trained_weights().items()}, losses))
    return results


def apart(found: Sequence[Customized], expected: Sequence[Customized]) -> float:
    """The largest difference of a weight."""
    assert [list(one.weights) for one in found] == [list(one.weights) for one in expected]
    return max(
        (one.weights[name] - other.weights[name]).abs().max().item()
        for one, other in zip(found, expected, strict=True)
        for name in one.weights
    )


@pytest.mark.parametrize(
    "changes",
    [
        dict(optimizer="adam", batch_size=1, augmentation="custom-diffusion"),
        dict(optimizer="adam", batch_size=4, augmentation="none", flips=True, detach_first_token=False),
        dict(optimizer="adamw", batch_size=4, augmentation="custom-diffusion", vae_posterior="mean"),
        dict(optimizer="adamw", batch_size=1, augmentation="none", train_modifiers=False),
        dict(optimizer="sgd", batch_size=4, augmentation="custom-diffusion", train_modifiers=False),
        dict(optimizer="sgd", batch_size=1, augmentation="none"),
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_weight_and_loss_is_that_of_the_model_alone(fresh_double, jobs, pictures, changes):
    config = replace(LOUD, **changes)
    found = customize_stacked(fresh_double(), jobs, pictures.__getitem__, config)
    expected = alone(fresh_double, jobs, pictures, config)
    assert apart(found, expected) < 1e-9
    for one, other in zip(found, expected, strict=True):
        assert one.losses == pytest.approx(other.losses, abs=1e-10)


@pytest.mark.parametrize(("optimizer", "batch_size"), [("adam", 1), ("adamw", 4), ("sgd", 1)])
def test_in_float32_they_differ_by_rounding(fresh, jobs, pictures, optimizer, batch_size):
    config = replace(PAPER, optimizer=optimizer, batch_size=batch_size)
    expected = alone(fresh, jobs, pictures, config)
    assert apart(customize_stacked(fresh(), jobs, pictures.__getitem__, config), expected) < 2e-6
    assert apart(customize_stacked(fresh(), jobs[1:2], pictures.__getitem__, config), expected[1:2]) < 2e-6


def test_results_do_not_depend_on_the_passes(fresh_double, jobs, pictures):
    """Nor on the order of the jobs."""
    model = fresh_double()
    together = customize_stacked(model, jobs, pictures.__getitem__, LOUD, max_models=3)
    for max_models in (1, 2):
        again = customize_stacked(model, jobs[::-1], pictures.__getitem__, LOUD, max_models=max_models)[::-1]
        assert apart(again, together) < 1e-9


def test_the_same_seed_gives_the_same_bits(fresh, jobs, pictures):
    first, second = (customize_stacked(fresh(), jobs, pictures.__getitem__, LOUD) for _ in range(2))
    assert apart(first, second) == 0.0


def test_samples_that_were_dropped_are_made_again(fresh_double, jobs, pictures, monkeypatch):
    expected = customize_stacked(fresh_double(), jobs, pictures.__getitem__, LOUD)
    monkeypatch.setattr(stacked, "KEPT_SAMPLES", 1)
    assert apart(customize_stacked(fresh_double(), jobs, pictures.__getitem__, LOUD), expected) < 1e-9


def test_a_modifier_that_a_model_never_sees_stays_where_it_was(fresh, images, pictures):
    """Neither weight decay nor another model's gradient moves it."""
    model = fresh()
    before = model.trained_weights()
    config = replace(LOUD, optimizer="adamw")
    without, with_it = customize_stacked(
        model, [StackedJob(images[:1], 0), StackedJob(images[:2], 0)], pictures.__getitem__, config
    )
    assert torch.equal(without.weights["modifier.<new2>"], before["modifier.<new2>"])
    assert not torch.equal(without.weights["modifier.<new1>"], before["modifier.<new1>"])
    assert not torch.equal(with_it.weights["modifier.<new2>"], before["modifier.<new2>"])


def test_a_picture_that_does_not_change_is_encoded_once_for_all_models(small_model, jobs, pictures, monkeypatch):
    encoded = []
    own = small_model.latent_moments
    monkeypatch.setattr(small_model, "latent_moments", lambda pixels: (encoded.append(len(pixels)), own(pixels))[1])
    customize_stacked(small_model, jobs, pictures.__getitem__, replace(PAPER, augmentation="none"), max_models=2)
    assert sum(encoded) == len(pictures)


def test_the_model_is_left_as_it_was(small_model, jobs, pictures):
    def parts() -> dict[str, tuple[int, Tensor]]:
        modules = {"unet": small_model.unet, "text": small_model.text_encoder}
        return {
            f"{part}.{name}": (id(value), value.detach().clone())
            for part, module in modules.items()
            for name, value in module.named_parameters()
        }

    def check() -> None:
        after = parts()
        assert after.keys() == before.keys()
        assert all(after[name][0] == before[name][0] and torch.equal(after[name][1], before[name][1]) for name in before)
        assert list(small_model.key_value_layers().values()) == layers
        assert all(isinstance(layer, nn.Linear) and layer.weight.grad is None for layer in layers)
        assert not any(value.requires_grad for value in small_model.unet.parameters())

    before, layers = parts(), list(small_model.key_value_layers().values())
    customize_stacked(small_model, jobs, pictures.__getitem__, LOUD)
    check()

    class Stop(Exception):
        pass

    def stop(*_progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        customize_stacked(small_model, jobs, pictures.__getitem__, LOUD, report=stop)
    check()


def test_results_come_pass_by_pass_with_their_numbers(small_model, jobs, pictures):
    """The model is free between passes, and progress counts the steps of all models."""
    told = []
    numbers = []
    turns = customize_in_turn(
        small_model, jobs, pictures.__getitem__, PAPER, max_models=2, report=lambda done, total, loss: told.append((done, total))
    )
    for number, result in turns:
        numbers.append(number)
        assert len(result.losses) == PAPER.steps(len(jobs[number].images))
        assert small_model.encode_prompts(["a <new1> cat"]).isfinite().all()
    assert sorted(numbers) == [0, 1, 2]
    assert told[-1] == (32, 32)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_bad_jobs_say_so(small_model, jobs, pictures):
    with pytest.raises(ModelError, match="nothing to customize on"):
        customize_stacked(small_model, [*jobs, StackedJob((), 0)], pictures.__getitem__, PAPER)
    with pytest.raises(ModelError, match="lower the learning rate"):
        customize_stacked(small_model, jobs, pictures.__getitem__, replace(PAPER, optimizer="sgd", learning_rate=1e30))
    with pytest.raises(ModelError, match="max_models is 0"):
        customize_stacked(small_model, jobs, pictures.__getitem__, PAPER, max_models=0)
    assert customize_stacked(small_model, [], pictures.__getitem__, PAPER) == []


def test_memory_grows_with_the_batch_and_the_optimizer(small_model):
    small, large = (memory_per_model(small_model, replace(PAPER, batch_size=n)) for n in (1, 4))
    weights = sum(weight.nbytes for weight in small_model.trained_weights().values())
    assert memory_per_model(small_model, replace(PAPER, optimizer="sgd")) == small - 2 * weights
    assert large - 4 * weights == 4 * (small - 4 * weights) > 0
    assert [models_at_once(small_model, replace(PAPER, batch_size=n)) for n in (1, 4, 100)] == [32, 8, 1]


# ------------------------------------------------------------------------------------- evaluation


@pytest.fixture
def queries(small_model) -> dict:
    prompts = [PROMPTS[i] for i in (0, 1, 0, 2, 1)]
    latents, eps = (torch.stack([noise.normal(small_model.latent_shape, key, i) for i in range(5)]) for key in ("x", "ε"))
    return dict(latents=latents, prompts=prompts, timesteps=torch.tensor([5, 900, 300, 50, 700]), noise=eps)


def moved(model: DiffusionModel, number: int) -> dict[str, Tensor]:
    """Weights of a model that differs much from others."""
    return {name: w + 0.1 * noise.normal(tuple(w.shape), number, name) for name, w in model.trained_weights().items()}


@pytest.mark.parametrize("rows_at_once", [1, 4, 7, 32])
def test_losses_are_those_of_each_model_alone(small_model, queries, rows_at_once):
    weights = [moved(small_model, number) for number in range(3)]
    found = stacked_losses(small_model, weights, **queries, rows_at_once=rows_at_once)
    expected = []
    for own in weights:
        small_model.load_trained(own)
        with torch.no_grad():
            context = small_model.encode_prompts(queries["prompts"])
            expected.append(small_model.loss(queries["latents"], context, queries["timesteps"], queries["noise"]))
    assert (found - torch.stack(expected)).abs().max() < 1e-6
    assert torch.stack(expected).std(dim=0).min() > 1e-4  # the models do differ


def test_a_name_that_is_missing_keeps_the_models_own_weight(small_model, queries):
    own = moved(small_model, 0)
    some = {name: weight for name, weight in own.items() if "to_v" in name}
    filled = small_model.trained_weights() | some
    partly, wholly = stacked_losses(small_model, [some, filled], **queries)
    assert torch.allclose(partly, wholly, atol=1e-6)


def test_no_model_and_no_query_give_an_empty_table(small_model, queries):
    assert stacked_losses(small_model, [], **queries).shape == (0, 5)
    none = {name: value[:0] for name, value in queries.items()}
    assert stacked_losses(small_model, [moved(small_model, 0)], **none).shape == (1, 0)


def test_weights_and_queries_that_do_not_fit_say_so(small_model, queries):
    layer = next(name for name in small_model.trained_weights() if "to_k" in name)
    with pytest.raises(ModelError, match=r"no modifier <other>: call add_modifiers"):
        stacked_losses(small_model, [{"modifier.<other>": torch.zeros(32)}], **queries)
    with pytest.raises(ModelError, match="these weights are of another model"):
        stacked_losses(small_model, [{layer: torch.zeros(2, 2)}], **queries)
    with pytest.raises(ModelError, match="5 latents, 4 prompts"):
        stacked_losses(small_model, [{}], **queries | {"prompts": queries["prompts"][1:]})
