"""Encoders: what they return, and what a user is told when the weights are not there."""

import numpy as np
import pytest
import torch
from attribench.methods.clip import ClipImage, ClipText
from PIL import Image

from attribench import encoders
from attribench.errors import Unavailable, UsageError


def unit(features):
    return torch.nn.functional.normalize(features, dim=1)


def test_features_do_not_depend_on_the_batch(small_clip, toy, monkeypatch):
    pictures = [toy.noise_picture(i) for i in range(16)]
    texts = ["a cat", "a dog", "a teddy bear"] * 5

    def encoded():
        return [unit(small_clip.encode_images(pictures)), unit(small_clip.encode_texts(texts))]

    together = encoded()
    monkeypatch.setattr(encoders, "BATCH", 1)
    for one_by_one, all_at_once in zip(encoded(), together, strict=True):
        np.testing.assert_allclose(one_by_one, all_at_once, atol=1e-6, rtol=0)


def test_features_are_float32_without_gradient_and_of_their_own_length(small_clip, toy):
    features = small_clip.encode_images(iter([toy.noise_picture(0), toy.noise_picture(1)]))
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert (features.norm(dim=1) - 1).abs().min() > 1e-3


def test_pictures_of_any_mode_and_shape_are_taken(small_clip):
    pictures = [Image.new("L", (50, 20), 90), Image.new("RGBA", (8, 8)), Image.new("P", (33, 32))]
    assert torch.isfinite(small_clip.encode_images(pictures)).all()


def test_loading_leaves_the_random_numbers_alone(small_clip_folder):
    state = torch.get_rng_state()
    encoders.local_encoder(small_clip_folder, "small")
    assert torch.equal(state, torch.get_rng_state())


def test_missing_weights_are_a_reason_with_a_remedy_not_a_crash(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(encoders, "_cached", lambda model, tag: False)
    reason = encoders.available("ViT-B-32/openai")
    assert "not in the local cache" in reason
    assert "open_clip.create_model('ViT-B-32', 'openai')" in reason
    assert "\n" not in reason
    with pytest.raises(Unavailable, match="while online"):
        encoders.load_encoder("ViT-B-32/openai")
    assert ClipImage().skip("paper") == ClipText().skip("paper") == reason


def test_weights_in_the_cache_are_found(monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: asked.append((repo, file)) or "/some/file")
    assert encoders.available("ViT-B-32/openai") is None
    assert asked == [("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors")]


@pytest.mark.parametrize("name", ["ViT-B-32/opena", "clip-tny", "nothing like it"])
def test_unknown_names_get_a_near_one(name):
    with pytest.raises(UsageError, match="no encoder is called"):
        encoders.available(name)


def test_a_damaged_folder_is_unavailable(tmp_path):
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(Unavailable, match="cannot load the encoder"):
        encoders.local_encoder(tmp_path, "small")


@pytest.mark.skipif(encoders.available(encoders.TINY) is not None, reason="clip-tiny is not built")
def test_clip_tiny_ranks_the_caption_with_the_prompts_noun_first():
    tiny = encoders.load_encoder(encoders.TINY)
    captions = ["a panda", "a clock", "a red apple", "a guitar"]
    train, query = tiny.encode_texts(captions), tiny.encode_texts(["a drawing of an apple", "a photo of a panda"])
    assert (unit(query) @ unit(train).T).argmax(dim=1).tolist() == [2, 0]


# ------------------------------------------------------------------------------------------- timm


def test_a_timm_model_encodes_pictures_of_any_mode_and_no_text(toy):
    import timm

    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0)
    encoder = encoders.timm_encoder(model, "timm/vit_tiny_patch16_224")
    features = encoder.encode_images([toy.noise_picture(0), Image.new("L", (50, 20), 90), Image.new("RGBA", (8, 8))])
    assert features.shape == (3, model.num_features) and features.dtype == torch.float32
    assert torch.isfinite(features).all() and not features.requires_grad
    with pytest.raises(UsageError, match="no text"):
        encoder.encode_texts(["a cat"])


def test_timm_weights_that_are_not_here_are_a_reason_with_a_remedy(monkeypatch):
    from attribench.methods.montrage.ablations import MontrageDino, MontrageVit

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(encoders, "_in_cache", lambda repository, files: False)
    for method in (MontrageVit(), MontrageDino()):
        reason = method.skip("mini")
        assert method.encoder in reason and "while online" in reason and "timm.create_model(" in reason
        with pytest.raises(Unavailable):
            encoders.load_encoder(method.encoder)


def test_an_unknown_timm_model_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'timm/vit_base_patch16_224.dino'"):
        encoders.available("timm/vit_base_patch16_224.dinoo")
