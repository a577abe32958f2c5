"""Folders with small random encoders, as the libraries write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attribench import encoders


@pytest.fixture
def sixteen() -> list[Image.Image]:
    """Sixteen unlike pictures of 64×64."""
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((64, 64)) for _ in range(16)]


@pytest.fixture(scope="session")
def timm_folder(tmp_path_factory) -> Path:
    """A random vision transformer of timm for 32×32 pictures."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("timm-encoder")
    torch.manual_seed(0)
    args = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **args)
    save_file(model.state_dict(), folder / "model.safetensors")
    preprocessing = {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "config.json").write_text(json.dumps({
        "architecture": "vit_tiny_patch16_224", "num_classes": 5, "num_features": 16, "model_args": args,
        "pretrained_cfg": {"num_classes": 5, "first_conv": "patch_embed.proj", "classifier": "head", **preprocessing},
    }))  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def transformers_folder(tmp_path_factory) -> Path:
    """A random DINOv2 with registers of transformers, and its image processor."""
    import torch
    from transformers import BitImageProcessor, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    folder = tmp_path_factory.mktemp("transformers-encoder")
    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=28, patch_size=14
    )
    Dinov2WithRegistersModel(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_loaded():
    """Each test loads anew."""
    encoders.load_encoder.cache_clear()
    yield
    encoders.load_encoder.cache_clear()
