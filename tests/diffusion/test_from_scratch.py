"""Training from scratch is the mean of the losses that one would write down, belongs to the sample, and can be interrupted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.Image import Transpose

from attribench.data import TrainImage
from attribench.diffusion import encodings as encodings_module
from attribench.diffusion import noise
from attribench.diffusion.checkpoints import Checkpoints, checkpoints
from attribench.diffusion.config import FromScratchConfig
from attribench.diffusion.encodings import Encodings, encode
from attribench.diffusion.from_scratch import train_from_scratch
from attribench.diffusion.untrained import UntrainedModel
from attribench.errors import DatasetError, ModelError
from attribench.files.state import State

CONFIG = FromScratchConfig(
    architecture="small", schedule="base", epochs=2, batch_size=3, learning_rate=1e-3, flips=True, stored="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def world():
    """Six unlike pictures with two captions each."""
    random = np.random.default_rng(0)
    pictures = {
        f"{i}.png": Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((32, 32)) for i in range(6)
    }
    images = tuple(
        TrainImage(id=id, prompt=f"a {'cat' if i % 2 else 'dog'}", caption="", concept="", further_prompts=(f"red chair {i}",))
        for i, id in enumerate(pictures)
    )
    return pictures, images


def untrained(folder, seed=1, config=CONFIG) -> UntrainedModel:
    return UntrainedModel.build(folder, config, seed)


@pytest.fixture(scope="module")
def state(world, small_model_folder, tmp_path_factory) -> State:
    pictures, images = world
    state = State(tmp_path_factory.mktemp("encodings"))
    encode(untrained(small_model_folder), images, pictures.__getitem__, state, flips=True)
    return state


@pytest.fixture
def encoded(state) -> Encodings:
    return Encodings(state, range(6))


def trained(folder, encoded, kept=None, config=CONFIG, seed=1, **more) -> tuple[dict[str, torch.Tensor], list[float]]:
    model = untrained(folder, seed, config)
    losses = train_from_scratch(model, encoded, kept, config, seed=seed, **more)
    return {name: weight.clone() for name, weight in model.trained_weights().items()}, losses


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


# ---------------------------------------------------------------------------------------- encodings


def test_encodings_are_what_the_base_model_makes_of_pictures_and_captions(world, state, encoded, small_model_folder):
    pictures, images = world
    model = untrained(small_model_folder)
    for row, image in enumerate(images):
        for version in (0, 1):
            picture = pictures[image.id].transpose(Transpose.FLIP_LEFT_RIGHT) if version else pictures[image.id]
            mean, std = encoded.latents(np.array([row]), np.array([version]))
            expected = model.latent_moments(model.pixels([picture]))
            torch.testing.assert_close((mean, std), expected, rtol=1e-4, atol=1e-5)
        for caption in (-1, 0, 1):
            text = "" if caption < 0 else image.prompts[caption]
            with torch.no_grad():
                expected = model.encode_prompts([text])
            torch.testing.assert_close(encoded.contexts(np.array([row]), np.array([caption])), expected, rtol=1e-4, atol=1e-5)
    assert len(state["texts"]) == 1 + 2 + 6  # each distinct text once, and the empty one


def test_a_part_of_the_data_set_has_its_own_rows(encoded, state):
    part = Encodings(state, [4, 1])
    rows, versions = np.array([0, 1]), np.array([0, 1])
    torch.testing.assert_close(part.latents(rows, versions), encoded.latents(np.array([4, 1]), versions))
    assert torch.equal(part.contexts(rows, np.array([1, 0])), encoded.contexts(np.array([4, 1]), np.array([1, 0])))


def test_a_killed_encoding_goes_on_and_gives_the_same(world, state, small_model_folder, tmp_path, monkeypatch):
    pictures, images = world
    monkeypatch.setattr(encodings_module, "AT_ONCE", 2)
    loaded = []

    def load(image_id, stop_at=None):
        if len(loaded) == stop_at:
            raise KeyboardInterrupt
        loaded.append(image_id)
        return pictures[image_id]

    model = untrained(small_model_folder)
    whole, part = State(tmp_path / "whole"), State(tmp_path / "part")
    encode(model, images, pictures.__getitem__, whole, flips=True)
    with pytest.raises(KeyboardInterrupt):
        encode(model, images, lambda image_id: load(image_id, stop_at=7), part, flips=True)
    loaded.clear()
    encode(model, images, load, part, flips=True)
    assert len(loaded) == 12 - 6
    for name in ("means", "stds", "texts", "captions"):
        np.testing.assert_array_equal(whole[name], part[name])


def test_pictures_with_unlike_numbers_of_captions_are_refused(world, small_model_folder, tmp_path):
    pictures, images = world
    odd = (*images[1:], replace(images[0], further_prompts=()))
    with pytest.raises(DatasetError, match=r"\[1, 2\] captions"):
        encode(untrained(small_model_folder), odd, pictures.__getitem__, State(tmp_path), flips=False)


# ----------------------------------------------------------------------------------------- training


def test_a_step_is_adamw_on_the_mean_loss_of_what_was_drawn(small_model_folder, encoded):
    """One step, against torch by hand: the samples are drawn here from the bank as the module says that it does."""
    config = replace(CONFIG, epochs=1, batch_size=6, max_gradient_norm=None, caption_dropout=0.3)
    found, (loss,) = trained(small_model_folder, encoded, config=config, seed=9)
    model = untrained(small_model_folder, 9, config)
    random = noise.draws("from scratch", "choices", 9, 0)
    timesteps, flips, captions = (random.integers(high, size=6) for high in (1000, 2, 2))
    captions = np.where(random.random(6) < 0.3, -1, captions)
    shape = (6, *model.latent_shape)
    mean, std = encoded.latents(np.arange(6), flips)
    latents = mean + std * noise.normal(shape, "from scratch", "posterior", 9, 0)
    model.unet.requires_grad_(True)
    expected = model.loss(
        latents, encoded.contexts(np.arange(6), captions), torch.from_numpy(timesteps),
        noise.normal(shape, "from scratch", "noise", 9, 0),
    ).mean()  # fmt: skip
    optimizer = torch.optim.AdamW(model.unet.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    expected.backward()
    optimizer.step()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    moved = torch.cat([(weight - found[name]).abs().flatten() for name, weight in model.trained_weights().items()])
    assert moved.quantile(0.999) < 1e-5  # rounding of the batch's order decides the sign of gradients that are 0


def test_what_an_image_is_seen_with_does_not_depend_on_who_else_is_there(small_model_folder, encoded, monkeypatch):
    seen: dict[tuple, list] = {}
    own = UntrainedModel.loss

    def spy(self, latents, context, timesteps, drawn, mask=None):
        for row in range(len(latents)):
            parts = (latents[row].sum().item(), context[row].sum().item(), int(timesteps[row]), drawn[row].sum().item())
            calls.append(tuple(round(part, 3) for part in parts))
        return own(self, latents, context, timesteps, drawn, mask)

    monkeypatch.setattr(UntrainedModel, "loss", spy)
    for kept in (None, (0, 2, 3, 5)):
        seen[kept] = calls = []
        trained(small_model_folder, encoded, kept)
    assert len(seen[None]) == 12 and len(seen[0, 2, 3, 5]) == 8
    assert set(seen[0, 2, 3, 5]) < set(seen[None])
    in_order = [call for call in seen[None] if call in set(seen[0, 2, 3, 5])]
    assert in_order == seen[0, 2, 3, 5]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(small_model_folder, encoded):
    first, losses = trained(small_model_folder, encoded)
    again, same_losses = trained(small_model_folder, encoded)
    assert losses == same_losses and same(first, again)
    assert not same(first, trained(small_model_folder, encoded, seed=2)[0])


def test_a_killed_training_goes_on_at_its_last_state_and_ends_the_same(small_model_folder, encoded, tmp_path):
    whole, losses = trained(small_model_folder, encoded)
    state, steps = tmp_path / "unfinished.safetensors", []

    def stop(done, total, loss):
        steps.append(done)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(small_model_folder, encoded, report=stop, resume=state, saved_every=0.0)
    assert state.exists()
    steps.clear()
    finished, resumed_losses = trained(small_model_folder, encoded, report=lambda *now: steps.append(now[0]), resume=state)
    assert steps == [3, 4]  # the third was not saved before the kill
    assert resumed_losses == losses and same(whole, finished)
    assert not state.exists()


def test_weights_are_drawn_again_by_seed(small_model_folder):
    model, fresh = untrained(small_model_folder, 1), untrained(small_model_folder, 2)
    assert not same(model.trained_weights(), fresh.trained_weights())
    model.draw_weights(2)
    assert same(model.trained_weights(), fresh.trained_weights())


def test_checkpoints_along_the_way_are_the_whole_unet(small_model_folder, encoded):
    """As JourneyTRAK and TracIn read them; keeping them changes no weight."""
    model = untrained(small_model_folder)
    watch = Checkpoints(count=2).start(model, 6, CONFIG.steps(6))
    train_from_scratch(model, encoded, None, CONFIG, seed=1, watches=[watch])
    assert same(model.trained_weights(), trained(small_model_folder, encoded)[0])
    (halfway,) = checkpoints(watch.finish(), [])
    other = untrained(small_model_folder)
    train_from_scratch(other, encoded, None, replace(CONFIG, epochs=1), seed=1)
    assert same(halfway, other.trained_weights())
    other.load_trained(model.trained_weights())
    assert same(other.trained_weights(), model.trained_weights())


def test_the_coco_model_is_the_published_one(small_model_folder):
    """Fifty million parameters, three stages with cross-attention of eight heads; linear betas as in DDPM."""
    model = untrained(small_model_folder, config=FromScratchConfig())
    unet = model.unet.config
    assert unet.block_out_channels == (128, 256, 256, 256) and unet.sample_size == 16 and unet.layers_per_block == 2
    assert [name.startswith("CrossAttn") for name in (*unet.down_block_types, *unet.up_block_types)] == [
        True, True, True, False, False, True, True, True
    ]  # fmt: skip
    attention = model.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    assert attention.heads == 8
    betas = 1 - model.scheduler.alphas_cumprod[1:] / model.scheduler.alphas_cumprod[:-1]
    torch.testing.assert_close(betas, torch.linspace(1e-4, 0.02, 1000)[1:], rtol=1e-2, atol=1e-6)
    assert FromScratchConfig().steps(118_287) == 200 * 925


def test_nothing_to_train_on_and_divergence_say_so(small_model_folder, encoded):
    with pytest.raises(ModelError, match="every training image is left out"):
        trained(small_model_folder, encoded, kept=())
    with pytest.raises(ModelError, match="lower the learning rate"):
        trained(small_model_folder, encoded, config=replace(CONFIG, epochs=9, learning_rate=1e25, max_gradient_norm=None))
    model = untrained(small_model_folder)
    weights = model.trained_weights()
    for odd in ({}, weights | {"unet.conv_in.weight": weights["unet.conv_in.weight"][:1]}):
        with pytest.raises(ModelError, match="of another model"):
            model.load_trained(odd)
