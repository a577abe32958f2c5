"""Encoders of pictures by timm: a name from the cache or the hub, a folder, or an architecture and a file of weights.

The features are what goes into the classifier: for a vision transformer with a class token, that token after the norm.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from attribench.encoders.encoder import Encoder
from attribench.encoders.hub import fetch_once, loading, missing

TIMM = "timm/"
Pixels = Callable[[Image], Tensor]


def names() -> list[str]:
    """Every name with weights, without "timm/"."""
    import timm

    return timm.list_pretrained()


def repository(model: str) -> str:
    """Where timm takes a model's weights from."""
    import timm

    return timm.get_pretrained_cfg(model).hf_hub_id or ""


def unavailable(model: str, name: str) -> str | None:
    """Why the weights of timm's `model`, that a user asked for as `name`, cannot be had here, or None."""
    return missing(name, repository(model), ("model.safetensors", "pytorch_model.bin"), _remedy(model))


def load(model: str, name: str, device: str, pixels: Pixels | None = None) -> Encoder:
    """timm's `model` with its published weights, and the transformation it was trained for unless `pixels` is given."""
    import timm

    with loading(name, _remedy(model)):
        built = timm.create_model(model, pretrained=True, num_classes=0)
    return encoder(built, name, device, pixels)


def load_folder(folder: Path, name: str, device: str) -> Encoder:
    """An encoder from a folder that timm's `local-dir:` reads: config.json and model.safetensors."""
    import timm

    with loading(f"the encoder in {folder}", "take a complete copy of it"):
        built = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    return encoder(built, name, device)


def architecture(model: str) -> torch.nn.Module:
    """timm's `model` without a classifier, its weights still random: they come from a file."""
    import timm

    with loading(model, "install the timm of constraints.txt"):
        return timm.create_model(model, pretrained=False, num_classes=0)


def encoder(model: torch.nn.Module, name: str, device: str, pixels: Pixels | None = None) -> Encoder:
    """An encoder of pictures from a timm model without its classifier."""
    from timm.data import create_transform, resolve_model_data_config

    if pixels is None:
        transform = create_transform(**resolve_model_data_config(model), is_training=False)

        def pixels(picture: Image) -> Tensor:
            return transform(picture.convert("RGB"))

    return Encoder(name=name, pixels=pixels, image_features=model.to(device).eval().requires_grad_(False), device=device)


def _remedy(model: str) -> str:
    return fetch_once(f"import timm; timm.create_model('{model}', pretrained=True)")
