"""Encoders of pictures by transformers: vision models of a hub repository or a folder. Features: the class token.

That token is taken from the last hidden state, which a ViT, DINO or DINOv2 of transformers gives after the last norm.
Weights are safetensors; no code of a repository is run.
"""

from __future__ import annotations

from pathlib import Path

from PIL.Image import Image
from torch import Tensor

from attribench.encoders.encoder import Encoder, Pixels
from attribench.encoders.hub import fetch_once, loading, missing
from attribench.errors import Unavailable

TRANSFORMERS = "transformers/"


def unavailable(repository: str, name: str) -> str | None:
    """Why the weights of a hub repository, that a user asked for as `name`, cannot be had here, or None."""
    return missing(name, repository, ("model.safetensors", "model.safetensors.index.json"), _remedy(repository))


def load(source: str | Path, name: str, device: str, pixels: Pixels | None = None) -> Encoder:
    """The vision model of a repository or folder, and its own image processor unless `pixels` is given."""
    from transformers import AutoImageProcessor, AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # ours is the only progress display
    remedy = "take a complete copy of it" if isinstance(source, Path) else _remedy(source)
    with loading(name, remedy):
        model = AutoModel.from_pretrained(source, use_safetensors=True).to(device).eval().requires_grad_(False)
        processor = AutoImageProcessor.from_pretrained(source) if pixels is None else None
    if not hasattr(model.config, "patch_size"):
        raise Unavailable(f"{name} is a {model.config.model_type}, not a vision transformer with a class token; take another")

    def processed(picture: Image) -> Tensor:
        return processor(images=picture.convert("RGB"), return_tensors="pt")["pixel_values"][0]

    return Encoder(
        name=name,
        pixels=pixels or processed,
        image_features=lambda images: model(pixel_values=images).last_hidden_state[:, 0],
        device=device,
    )


def _remedy(repository: str) -> str:
    return fetch_once(f"import transformers; transformers.AutoModel.from_pretrained('{repository}')")
