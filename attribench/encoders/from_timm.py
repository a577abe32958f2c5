"""Encoders of pictures by timm: a name from the cache or the hub, a folder, or an architecture and a file of weights.

The features are what goes into the classifier: for a vision transformer with a class token, that token after the norm.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from attribench.encoders.encoder import Encoder, Pixels
from attribench.encoders.hub import fetch_once, loading, missing

TIMM = "timm/"


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


def load(source: str | Path, name: str, device: str, pixels: Pixels | None = None) -> Encoder:
    """A model of timm with its published weights, or of a folder that timm's `local-dir:` reads: config.json, safetensors.

    Pictures take the transformation that it was trained for unless `pixels` is given.
    """
    import timm

    if isinstance(source, Path):
        model, what, remedy = f"local-dir:{source}", f"the encoder in {source}", "take a complete copy of it"
    else:
        model, what, remedy = source, name, _remedy(source)
    with loading(what, remedy):
        built = timm.create_model(model, pretrained=True, num_classes=0)
    return encoder(built, name, device, pixels)


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
