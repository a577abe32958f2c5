"""Every feature method, with local encoders: a planted duplicate first, flips, one reading for all of them."""

import json

import numpy as np
import pytest
from attribench.methods.abc import Abc
from attribench.methods.clip import ClipImage
from attribench.methods.dino import Dino
from attribench.methods.dinov2 import DinoV2
from attribench.methods.moco import Moco
from attribench.methods.montrage.ablations import MontrageDino
from attribench.methods.pixel import Pixel
from attribench.methods.sscd import Sscd
from attribench.methods.vit import Vit

from attribench import encoders
from attribench.data import Queries
from attribench.encoders import encoder as reading
from attribench.encoders.features import EncoderFeatures
from attribench.errors import MethodError
from attribench.files.state import State


@pytest.fixture(scope="module")
def local_encoder(tmp_path_factory) -> str:
    """The path of a small random encoder of timm."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("encoder")
    args = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **args)
    with torch.no_grad():  # fresh weights are too small to tell pictures apart
        for name, weight in model.named_parameters():
            if name.endswith("weight") and weight.ndim > 1:
                weight.mul_(10)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "config.json").write_text(json.dumps({
        "architecture": "vit_tiny_patch16_224", "num_classes": 0, "model_args": args,
        "pretrained_cfg": {"num_classes": 0, "first_conv": "patch_embed.proj", "classifier": "head", **config},
    }))  # fmt: skip
    return str(folder)


@pytest.mark.parametrize("kind", [ClipImage, Dino, DinoV2, Vit, Sscd, Moco], ids=lambda kind: kind.name)
def test_a_duplicate_of_the_query_scores_highest(duplicates, local_encoder, kind, tmp_path):
    study, queries = duplicates
    method, state = kind(encoder=local_encoder).resolve("paper"), State(tmp_path)
    assert method.skip("paper") is None
    method.fit(study, state)
    values = method.score(study, state, queries).values
    own = np.arange(7)
    assert (values[:7].argmax(axis=1) == own).all()
    np.testing.assert_allclose(values[own, own], 1, atol=1e-5)
    assert values[7].max() < 0.9999


def test_methods_on_one_encoder_name_the_same_features():
    on_clip = [ClipImage(), Abc(heads="x"), Abc(heads="y", output="influence")]
    assert len({method.resolve("mini").features() for method in on_clip}) == 1
    assert MontrageDino().resolve("mini").features() == Dino().resolve("mini").features()
    assert MontrageDino().resolve("paper").features() == Dino().resolve("paper").features()
    assert MontrageDino(attribution="table").resolve("mini").features() == ()
    assert Pixel(size=32).features() != Pixel().features()


def test_a_killed_reading_goes_on_where_it_stopped(duplicates, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BATCH", 3)
    monkeypatch.setattr(reading, "AHEAD", 1)
    monkeypatch.setattr(reading, "READERS", 1)
    study, _ = duplicates
    features, load, seen = EncoderFeatures(encoder="pixels/16"), study.train._load, []
    whole = State(tmp_path / "whole")
    features.of_training(study, whole)

    def failing(name):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(name)
        return load(name)

    study.train._load = failing
    state = State(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        features.of_training(study, state)
    again = []
    study.train._load = lambda name: again.append(name) or load(name)
    features.of_training(study, state)
    assert again == list(study.train.ids[3:])  # the first three were written, and are not read again
    np.testing.assert_array_equal(state["features"], whole["features"])


def test_training_images_are_read_once_for_both_versions(duplicates, tmp_path):
    study, _ = duplicates
    load, seen = study.train._load, []
    study.train._load = lambda name: seen.append(name) or load(name)
    study.flips = True
    state = State(tmp_path)
    EncoderFeatures(encoder="pixels/16").of_training(study, state)
    assert sorted(seen) == sorted(study.train.ids)
    straight, mirrored = np.array(state["features"]).reshape(2, 8, 3, 16, 16)
    np.testing.assert_allclose(mirrored, straight[..., ::-1], atol=0.02)  # resizing rounds


def test_features_that_are_not_finite_name_the_picture(duplicates, local_encoder, tmp_path):
    from safetensors.torch import load_file, save_file

    study, queries = duplicates
    weights = load_file(f"{local_encoder}/model.safetensors")
    weights["norm.bias"][0] = float("nan")
    (tmp_path / "config.json").write_bytes((encoders._folder_of(local_encoder) / "config.json").read_bytes())
    save_file(weights, tmp_path / "model.safetensors")
    features = EncoderFeatures(encoder=str(tmp_path))
    for read in (lambda s: features.of_training(study, s), lambda s: features.of_queries(study, s, queries)):
        with pytest.raises(MethodError, match="gives features of (train/0.png|query-0) that are NaN or infinite; check"):
            read(State(tmp_path / "state"))


def test_no_queries_have_no_features(duplicates, tmp_path):
    state = State(tmp_path)
    EncoderFeatures(encoder="pixels/16").of_queries(duplicates[0], state, Queries([], None))
    assert "features" not in state
