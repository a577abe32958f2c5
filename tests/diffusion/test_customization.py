"""Customization trains what it should, and none of the public script's faults is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from attribench.data import TrainImage
from attribench.diffusion.config import CustomizationConfig
from attribench.diffusion.customization import customize
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.monitor import ValueMonitor
from attribench.diffusion.observing import Watch
from attribench.errors import ModelError

QUICK = CustomizationConfig(epochs=2, learning_rate=1e-2)


def training_images(pictures, prompts: Sequence[str] = ("photo of a <new1> cat", "photo of a <new2> dog")):
    return tuple(
        TrainImage(id=id, prompt=prompts[i % len(prompts)], caption="", concept="c") for i, id in enumerate(sorted(pictures))
    )


def everything(model: DiffusionModel) -> dict[str, torch.Tensor]:
    parts = {"unet": model.unet, "vae": model.vae, "text": model.text_encoder}
    return {f"{p}.{n}": v.detach().clone() for p, module in parts.items() for n, v in module.named_parameters()}


def test_only_keys_values_and_modifiers_move(small_model, pictures):
    before = everything(small_model)
    customize(small_model, training_images(pictures), pictures.__getitem__, QUICK, seed=0)
    moved = {name for name, value in everything(small_model).items() if not torch.equal(value, before[name])}
    expected = {f"unet.{name}.weight" for name in small_model.key_value_layers()}
    modifiers = {name for name in before if name.startswith("text.") and ".vectors." in name}
    assert moved == expected | modifiers
    assert len(modifiers) == 2


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_weight_decay_leaves_the_word_table_alone(small_model, pictures, optimizer):
    """diffusers issue 1009: decay on the whole table moves every word, hence V of every prompt."""
    config = replace(QUICK, optimizer=optimizer, weight_decay=0.5)
    table = small_model.text_encoder.get_input_embeddings().weight
    before = table.detach().clone()
    customize(small_model, training_images(pictures), pictures.__getitem__, config, seed=0)
    assert torch.equal(table, before)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_every_one_of_three_modifiers_learns(small_model_folder, pictures, optimizer):
    """diffusers issue 7294: with several modifiers the script's mask drops the last one's gradient."""
    model = DiffusionModel.load(small_model_folder)
    model.add_modifiers({"<new1>": "cat", "<new2>": "dog", "<new3>": "bear"})
    before = {token: vector.detach().clone() for token, vector in model.modifiers.items()}
    prompts = [f"photo of a <new{i}> cat" for i in (1, 2, 3)]
    customize(model, training_images(pictures, prompts), pictures.__getitem__, replace(QUICK, optimizer=optimizer), seed=0)
    assert all(not torch.equal(vector, before[token]) for token, vector in model.modifiers.items())


def test_a_modifier_that_is_not_in_the_batch_does_not_move(small_model, pictures):
    """Adam's momentum must not carry one concept's token along on another concept's step."""
    seen = []

    class Look(Watch):
        def after_step(self, rows):
            seen.append((rows[0] % 2, [v.detach().clone() for v in small_model.modifiers.values()]))

        def finish(self):
            return {}

    customize(small_model, training_images(pictures), pictures.__getitem__, QUICK, seed=0, watches=[Look()])
    for (_, before), (parity, after) in zip(seen, seen[1:], strict=False):
        assert not torch.equal(before[parity], after[parity])
        assert torch.equal(before[1 - parity], after[1 - parity])


def test_rows_follow_ids_and_not_the_order_of_a_directory(small_model_folder, pictures):
    """The same images, listed in another order, give the same weights and the same rows by id."""

    def trained(images):
        model = DiffusionModel.load(small_model_folder)
        model.add_modifiers({"<new1>": None, "<new2>": None})
        rows_seen = []

        class Look(Watch):
            def after_step(self, rows):
                rows_seen.append([images[r].id for r in rows])

            def finish(self):
                return {}

        customize(model, images, pictures.__getitem__, QUICK, seed=3, watches=[Look()])
        return model.trained_weights(), rows_seen

    images = training_images(pictures)
    shuffled_dict = dict(reversed(pictures.items()))
    again = tuple(sorted(images[::-1], key=lambda image: image.id))
    assert list(shuffled_dict) != list(pictures)
    (first, first_rows), (second, second_rows) = trained(images), trained(again)
    assert first_rows == second_rows
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("config", [QUICK, replace(QUICK, batch_size=3, augmentation="none", flips=True)])
def test_observing_leaves_the_weights_bit_identical(small_model_folder, pictures, config):
    def trained(observe: bool):
        model = DiffusionModel.load(small_model_folder)
        model.add_modifiers({"<new1>": "cat", "<new2>": None})
        monitor = ValueMonitor(prompts=("a <new1> cat", "a <new2> dog", "a cat"))
        watches = [monitor.start(model, len(pictures), config.steps(len(pictures)))] if observe else []
        rng = torch.random.get_rng_state()
        losses = customize(model, training_images(pictures), pictures.__getitem__, config, seed=1, watches=watches)
        assert torch.equal(rng, torch.random.get_rng_state())
        return losses, model.trained_weights(), [watch.finish() for watch in watches]

    plain_losses, plain, _ = trained(observe=False)
    losses, weights, (seen,) = trained(observe=True)
    assert losses == plain_losses
    assert all(torch.equal(weights[name], plain[name]) for name in plain)
    assert seen["table"].shape == (8, 3)
    assert (np.asarray(seen["table"]) > 0).all()


def test_observers_see_every_step_with_its_rows(small_model, pictures):
    rows_seen: list[list[int]] = []

    class Look(Watch):
        def after_step(self, rows):
            rows_seen.append(list(rows))

        def finish(self):
            return {}

    config = replace(QUICK, batch_size=3)
    losses = customize(small_model, training_images(pictures), pictures.__getitem__, config, seed=0, watches=[Look()])
    assert len(rows_seen) == len(losses) == config.steps(8) == 6
    assert [len(rows) for rows in rows_seen] == [3, 3, 2] * 2
    for epoch in range(2):
        assert sorted(sum(rows_seen[epoch * 3 : epoch * 3 + 3], [])) == list(range(8))


def test_the_first_token_gets_no_gradient_of_keys_and_values(small_model_folder, pictures):
    """With `detach_first_token` the start token's K and V are constants of the step, as in the public processor."""

    def gradient_through_start_token(detach: bool) -> float:
        model = DiffusionModel.load(small_model_folder)
        model.add_modifiers({"<new1>": "cat"})
        from attribench.diffusion import customization

        hooks = customization._detach_first_token(model) if detach else []
        context = torch.zeros(1, 16, 32)
        context[:, 0] = 1.0  # only the start token carries anything, so K and V learn from it alone
        layer = next(iter(model.value_layers().values()))
        layer.weight.requires_grad_(True)
        latents = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(0))
        model.loss(latents, context, torch.tensor([10]), torch.zeros_like(latents)).sum().backward()
        for hook in hooks:
            hook.remove()
        return layer.weight.grad.abs().sum().item()

    assert gradient_through_start_token(detach=True) == 0.0
    assert gradient_through_start_token(detach=False) > 0.0


def test_a_masked_loss_ignores_what_lies_outside(small_model):
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, *small_model.latent_shape, generator=generator)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4, :4] = 1
    context, t = small_model.encode_prompts(["a cat"]), torch.tensor([500])
    error = (small_model.predict(small_model.scheduler.add_noise(latents, noise, t), t, context) - noise).square()
    assert torch.allclose(small_model.loss(latents, context, t, noise, mask), error[..., :4, :4].mean())
    assert torch.allclose(small_model.loss(latents, context, t, noise), error.mean())


def test_training_is_deterministic_and_its_loss_falls_on_one_picture(small_model_folder, pictures):
    image = training_images(pictures)[:1]

    def trained(rate: float) -> list[float]:
        model = DiffusionModel.load(small_model_folder)
        model.add_modifiers({"<new1>": "cat", "<new2>": None})
        config = replace(QUICK, epochs=150, augmentation="none", learning_rate=rate, vae_posterior="mean")
        return customize(model, image, pictures.__getitem__, config, seed=0)

    still, learning = trained(0.0), trained(3e-3)
    assert learning == trained(3e-3)
    assert np.mean(learning[-50:]) < np.mean(still[-50:])  # the same timesteps and noise, with and without learning


def test_a_diverging_training_says_so(small_model, pictures):
    config = replace(QUICK, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(ModelError, match="lower the learning rate"):
        customize(small_model, training_images(pictures), pictures.__getitem__, config, seed=0)


def test_no_training_image_is_an_error(small_model):
    with pytest.raises(ModelError, match="nothing to customize on"):
        customize(small_model, (), dict().__getitem__, QUICK, seed=0)
