"""One loading path, modifier tokens of their own, and randomness that belongs to the sample."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from attribench.diffusion import augmentation, noise
from attribench.diffusion.fingerprint import fingerprint
from attribench.diffusion.model import DiffusionModel
from attribench.errors import ModelError


def test_a_modifier_starts_as_its_word_and_changes_only_its_own_prompts(small_model):
    prompts = ["photo of a cat", "photo of a <new1> cat", "photo of a dog"]
    plain, modified, other = small_model.encode_prompts(prompts).detach()
    word = small_model.tokenizer("cat", add_special_tokens=False).input_ids
    assert len(word) == 1
    table = small_model.text_encoder.get_input_embeddings().weight
    assert torch.equal(small_model.modifiers["<new1>"], table[word[0]])
    with torch.no_grad():
        small_model.modifiers["<new1>"].add_(1.0)
    again = small_model.encode_prompts(prompts).detach()
    assert torch.equal(again[0], plain)
    assert torch.equal(again[2], other)
    assert not torch.equal(again[1], modified)


def test_modifiers_from_rare_tokens_differ_from_each_other(small_model_folder):
    model = DiffusionModel.load(small_model_folder)
    model.add_modifiers({f"<new{i}>": None for i in range(1, 11)})
    vectors = torch.stack(list(model.modifiers.values()))
    assert len(torch.unique(vectors, dim=0)) == 10


def test_a_token_that_the_model_knows_already_is_refused(small_model):
    with pytest.raises(ModelError, match="already holds '<new1>'"):
        small_model.add_modifiers({"<new1>": None})


def test_trained_weights_come_back_as_they_went(small_model_folder, small_model):
    with torch.no_grad():
        for weight in (*[layer.weight for layer in small_model.key_value_layers().values()], *small_model.modifiers.values()):
            weight.add_(0.1)
    saved = small_model.trained_weights()
    other = DiffusionModel.load(small_model_folder)
    other.load_trained(saved)
    assert all(torch.equal(saved[name], value) for name, value in other.trained_weights().items())


def test_weights_of_another_model_are_refused(small_model):
    weights = {name: value[..., :-1] for name, value in small_model.trained_weights().items()}
    with pytest.raises(ModelError, match="of another model"):
        small_model.load_trained(weights)


def test_generation_does_not_depend_on_the_rest_of_the_batch(small_model):
    latents = torch.stack([noise.normal(small_model.latent_shape, "g", i) for i in range(3)])
    prompts = ["a <new1> cat", "a dog", "a chair"]
    together = small_model.sample(prompts, latents, steps=4, guidance=5.0)
    alone = small_model.sample(prompts[1:2], latents[1:2], steps=4, guidance=5.0)[0]
    assert np.abs(np.asarray(together[1], dtype=int) - np.asarray(alone, dtype=int)).max() <= 1


def test_a_folder_without_a_model_says_what_is_expected(tmp_path):
    with pytest.raises(ModelError, match=r"model_index\.json"):
        DiffusionModel.load(tmp_path)


def test_a_hub_id_that_is_not_cached_is_one_line(monkeypatch):
    with pytest.raises(ModelError, match="nobody/nothing") as caught:
        DiffusionModel.load("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_loaded(small_model_folder, tmp_path):
    """A folder that offers only a .bin is refused: nothing is ever unpickled."""
    folder = tmp_path / "model"
    shutil.copytree(small_model_folder, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="cannot load the model"):
        DiffusionModel.load(folder)


def test_a_fingerprint_follows_the_content(small_model_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(small_model_folder, folder)
    assert fingerprint(folder) == fingerprint(small_model_folder)
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert fingerprint(folder) != fingerprint(small_model_folder)


def test_noise_is_a_function_of_its_key():
    assert torch.equal(noise.normal((2, 3), "a", 1), noise.normal((2, 3), "a", 1))
    assert not torch.equal(noise.normal((2, 3), "a", 1), noise.normal((2, 3), "a", 2))
    assert not torch.equal(noise.normal((2, 3), "a", "1"), noise.normal((2, 3), "a", 1))
    assert noise.seed_of("image.png", 500, True) == 2146257623161419806  # the same for ever, on every machine


def test_noise_is_standard_normal():
    from scipy import stats

    values = torch.cat([noise.normal((100,), "sample", i) for i in range(100)]).numpy()
    assert stats.kstest(values, "norm").pvalue > 0.01


def test_augmented_views_say_what_they_show(pictures):
    picture = pictures["cat/0.png"]
    words = set()
    for draw in range(300):
        view = augmentation.custom_diffusion(picture, "photo of a cat", noise.draws("view", draw))
        left, top, right, bottom = view.box
        assert view.picture.size == (32, 32)
        assert 0 <= left < right <= 32
        assert 0 <= top < bottom <= 32
        mask = augmentation.latent_mask(view.box, side=32, downscale=4)
        assert mask.sum() >= 1
        small = (right - left) < 0.6 * 32
        prefix = view.prompt.removesuffix("photo of a cat")
        words.add(prefix)
        assert small == (prefix in augmentation.SMALL_WORDS)
        if prefix in augmentation.LARGE_WORDS:
            assert mask.all()
    assert words == {"", *augmentation.SMALL_WORDS, *augmentation.LARGE_WORDS}


def test_the_latent_mask_covers_only_cells_wholly_on_the_picture():
    mask = augmentation.latent_mask((3, 8, 16, 32), side=32, downscale=4)
    expected = np.zeros((8, 8), dtype=np.float32)
    expected[2:8, 1:4] = 1
    assert np.array_equal(mask, expected)
