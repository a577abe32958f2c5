"""Encoders: what they return, where they come from, and what a user is told when the weights are not there."""

import os
import threading
import time

import numpy as np
import pytest
import torch
from attribench.methods.clip import ClipImage, ClipText
from attribench.methods.dinov2 import DinoV2
from attribench.methods.moco import Moco
from attribench.methods.montrage.ablations import MontrageVit
from attribench.methods.sscd import Sscd
from attribench.methods.vit import Vit
from PIL import Image

from attribench import encoders
from attribench.encoders import encoder as reading
from attribench.errors import MethodError, Unavailable, UsageError


def unit(features):
    return torch.nn.functional.normalize(features, dim=1)


@pytest.fixture
def small(small_clip_folder):
    return encoders.load_encoder(str(small_clip_folder))


# ----------------------------------------------------------------------------------------- features


def test_features_do_not_depend_on_the_batch(small, sixteen, monkeypatch):
    texts = ["a cat", "a dog", "a teddy bear"] * 5

    def encoded():
        return [unit(small.encode_images(sixteen)), unit(small.encode_texts(texts))]

    together = encoded()
    monkeypatch.setattr(reading, "BATCH", 1)
    for one_by_one, all_at_once in zip(encoded(), together, strict=True):
        np.testing.assert_allclose(one_by_one, all_at_once, atol=1e-6, rtol=0)


def test_features_are_float32_without_gradient_and_of_their_own_length(small, sixteen):
    features = small.encode_images(iter(sixteen[:2]))
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert (features.norm(dim=1) - 1).abs().min() > 1e-3


def test_pictures_of_any_mode_and_shape_are_taken(small_clip_folder, timm_folder, transformers_folder):
    pictures = [Image.new("L", (50, 20), 90), Image.new("RGBA", (8, 8)), Image.new("P", (33, 32))]
    for folder in (small_clip_folder, timm_folder, transformers_folder):
        assert torch.isfinite(encoders.load_encoder(str(folder)).encode_images(pictures)).all()


def test_loading_leaves_the_random_numbers_alone(small_clip_folder, timm_folder, transformers_folder):
    for folder in (small_clip_folder, timm_folder, transformers_folder):
        state = torch.get_rng_state()
        encoders.load_encoder(str(folder))
        assert torch.equal(state, torch.get_rng_state())


def test_pixels_are_the_pictures_own():
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5)
    features = encoders.load_encoder("pixels/4").encode_images([picture])
    np.testing.assert_allclose(np.sort(features[0]), np.sort(np.asarray(picture).ravel() / 127.5 - 1), atol=1e-6)
    with pytest.raises(UsageError, match="pixels/64"):
        encoders.load_encoder("pixels/large")


# -------------------------------------------------------------------------------------- reading ahead


class Slow:
    """Pictures that take a while to read; remembers which were read and by whom."""

    def __init__(self, pictures, seconds=0.0, bad=None):
        self.pictures, self.seconds, self.bad = pictures, seconds, bad
        self.read, self.threads = [], set()

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        if index == self.bad:
            raise MethodError(f"picture {index} cannot be read")
        time.sleep(self.seconds)
        self.read.append(index)
        self.threads.add(threading.current_thread())
        return self.pictures[index]


def test_pictures_are_read_while_the_encoder_works(small, sixteen, monkeypatch):
    monkeypatch.setattr(reading, "BATCH", 2)
    monkeypatch.setattr(reading, "AHEAD", 4)
    pictures = Slow(sixteen)
    batches = small.batches(pictures)
    next(batches)
    deadline = time.monotonic() + 5
    while len(pictures.read) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(pictures.read) == 6  # two encoded and four that wait for the encoder; no more
    assert threading.current_thread() not in pictures.threads
    assert sum(batch.shape[1] for batch in batches) == 14


def test_the_order_is_that_of_the_pictures_however_long_each_takes(small, sixteen):
    class Uneven(Slow):
        def __getitem__(self, index):
            time.sleep(0.01 * (index % 3))
            return super().__getitem__(index)

    np.testing.assert_array_equal(small.encode_images(Uneven(sixteen)), small.encode_images(sixteen))


def test_a_picture_that_cannot_be_read_is_told_and_nothing_runs_on(small, sixteen):
    with pytest.raises(MethodError, match="picture 9 cannot be read"):
        small.encode_images(Slow(sixteen, bad=9))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read pictures")]


# ------------------------------------------------------------------------------------------- folders


def test_a_folder_of_timm_gives_the_class_token_before_the_classifier(timm_folder, sixteen):
    import timm

    encoder = encoders.load_encoder(str(timm_folder))
    model = timm.create_model(f"local-dir:{timm_folder}", pretrained=True).eval()
    pixels = torch.stack([encoder.pixels(picture) for picture in sixteen[:3]])
    with torch.no_grad():
        expected = model.forward_features(pixels)[:, 0]
    torch.testing.assert_close(encoder.encode_images(sixteen[:3]), expected, atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match="no text"):
        encoder.encode_texts(["a cat"])


def test_a_folder_of_transformers_gives_the_class_token_after_the_last_norm(transformers_folder, sixteen):
    from transformers import AutoImageProcessor, Dinov2WithRegistersModel

    encoder = encoders.load_encoder(str(transformers_folder))
    model = Dinov2WithRegistersModel.from_pretrained(transformers_folder).eval()
    processor = AutoImageProcessor.from_pretrained(transformers_folder)
    pixels = processor(images=sixteen[:3], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(pixels).pooler_output
    torch.testing.assert_close(encoder.encode_images(sixteen[:3]), expected, atol=1e-5, rtol=0)


def test_a_folder_is_known_by_its_weights(timm_folder, tmp_path):
    import shutil

    shutil.copytree(timm_folder, tmp_path / "copy")
    assert encoders.fingerprint(str(timm_folder)) == encoders.fingerprint(str(tmp_path / "copy"))
    (tmp_path / "copy" / "config.json").write_text('{"architecture": "resnet18"}')
    assert encoders.fingerprint(str(timm_folder)) != encoders.fingerprint(str(tmp_path / "copy"))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no safetensors"),
        ({"model.safetensors": ""}, "config.json cannot be read"),
        ({"model.safetensors": "", "config.json": "{"}, "is no JSON"),
        ({"model.safetensors": "", "config.json": "[]"}, "names neither an `architecture`"),
    ],
)
def test_a_folder_that_is_no_encoder_is_one_line(tmp_path, files, said):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=said) as raised:
        encoders.available(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_damaged_folder_is_unavailable(tmp_path):
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_model.safetensors").write_text("")
    with pytest.raises(Unavailable, match="cannot load the encoder"):
        encoders.load_encoder(str(tmp_path))


# -------------------------------------------------------------------------------------------- weights


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and a cache with nothing in it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", os.fspath(tmp_path))


def test_missing_weights_are_a_reason_with_a_remedy_not_a_crash(offline):
    reason = encoders.available("ViT-B-32/openai")
    assert "not in the local cache" in reason
    assert "open_clip.create_model('ViT-B-32', 'openai')" in reason
    assert "\n" not in reason
    with pytest.raises(Unavailable, match="while online"):
        encoders.load_encoder("ViT-B-32/openai")
    assert ClipImage().skip("paper") == ClipText().skip("paper") == reason


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        (Vit(), "timm.create_model('vit_base_patch16_384.augreg_in21k_ft_in1k', pretrained=True)"),
        (MontrageVit(), "timm.create_model('vit_base_patch16_384.augreg_in21k_ft_in1k', pretrained=True)"),
        (DinoV2(), "transformers.AutoModel.from_pretrained('facebook/dinov2-with-registers-large')"),
        (Sscd(), "give checkpoint=PATH of its authors' sscd_disc_mixup.torchvision.pt"),
        (Moco(), "give checkpoint=PATH of its authors' vit-b-300ep.pth.tar"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_method_without_weights_is_a_row_with_a_reason(offline, method, remedy):
    for edition in ("mini", "paper"):
        reason = method.skip(edition)
        assert method.resolve(edition).encoder in reason and remedy in reason and "\n" not in reason
    with pytest.raises(Unavailable):
        encoders.load_encoder(method.resolve("paper").encoder)


def test_weights_in_the_cache_are_found(monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: asked.append((repo, file)) or "/some/file")
    assert encoders.available("ViT-B-32/openai") is None
    assert encoders.available("vit_base_patch16_384") is None
    assert asked == [
        ("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"),
        ("timm/vit_base_patch16_384.augreg_in21k_ft_in1k", "model.safetensors"),
    ]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ViT-B-32/opena", "'ViT-B-32/openai'"),
        ("clip-tny", "'clip-tiny'"),
        ("dino_vitb6", "'dino_vitb16'"),
        ("timm/vit_base_patch16_224.dinoo", "'timm/vit_base_patch16_224.dino'"),
        ("nothing like it", "no encoder is called"),
    ],
)
def test_unknown_names_get_a_near_one(name, near):
    with pytest.raises(UsageError, match=near):
        encoders.available(name)


def test_only_published_encoders_take_a_file_of_weights(tmp_path):
    with pytest.raises(UsageError, match="clip-tiny takes no checkpoint, a file of weights; those that do: dino_vitb16"):
        encoders.available("clip-tiny", str(tmp_path / "weights.pt"))
    with pytest.raises(UsageError, match="cannot be read"):
        encoders.available("sscd_disc_mixup", str(tmp_path / "weights.pt"))


# ---------------------------------------------------------------------------------- what ships


def shipped(name):
    return pytest.mark.skipif(encoders.available(name) is not None, reason=f"{name} is not built")


@shipped("clip-tiny")
def test_clip_tiny_ranks_the_caption_with_the_prompts_noun_first():
    tiny = encoders.load_encoder("clip-tiny")
    captions = ["a panda", "a clock", "a red apple", "a guitar"]
    train, query = tiny.encode_texts(captions), tiny.encode_texts(["a drawing of an apple", "a photo of a panda"])
    assert (unit(query) @ unit(train).T).argmax(dim=1).tolist() == [2, 0]


@shipped("dino-tiny")
def test_dino_tiny_finds_another_view_of_an_object_more_often_than_pixels():
    root = encoders.ASSETS / "editions" / "customconcept101" / "benchmark_dataset"
    files = sorted(root.rglob("*.webp"))[:320]
    labels = np.array([file.parent.name for file in files])

    def accuracy(encoder):
        features = unit(encoder.encode_images([Image.open(file) for file in files]))
        similar = features @ features.T
        return (labels[similar.fill_diagonal_(-2).argmax(dim=1)] == labels).mean()

    assert accuracy(encoders.load_encoder("dino-tiny")) > accuracy(encoders.load_encoder("pixels/64")) + 0.1
