"""Encoders of pictures and texts by open_clip_torch: MODEL/PRETRAINED from the cache or the hub, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribench.encoders.encoder import Encoder
from attribench.encoders.hub import fetch_once, loading, missing

if TYPE_CHECKING:
    import open_clip


def names() -> list[str]:
    """Every MODEL/PRETRAINED."""
    import open_clip

    return [f"{model}/{tag}" for model, tag in open_clip.list_pretrained()]


def unavailable(name: str) -> str | None:
    """Why its weights cannot be had here, or None."""
    import open_clip
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    config = open_clip.get_pretrained_cfg(*_parts(name))
    repository, _, file = config.get("hf_hub", "").rpartition("/")
    return missing(name, repository, [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME], _remedy(name))


def load(name: str, device: str) -> Encoder:
    """The encoder MODEL/PRETRAINED. Raises Unavailable when its weights cannot be had."""
    import open_clip

    model_name, tag = _parts(name)
    quick_gelu = bool(open_clip.get_pretrained_cfg(model_name, tag).get("quick_gelu"))
    with loading(name, _remedy(name)):
        model, _, preprocess = open_clip.create_model_and_transforms(
            model_name, pretrained=tag, device=device, force_quick_gelu=quick_gelu
        )
    return _encoder(name, model, preprocess, open_clip.get_tokenizer(model_name), device)


def load_folder(folder: Path, name: str, device: str) -> Encoder:
    """An encoder from a folder that open_clip's `local-dir:` reads: config, safetensors, tokenizer files."""
    import open_clip

    source = f"local-dir:{folder}"
    with loading(f"the encoder in {folder}", "take a complete copy of it"):
        model, _, preprocess = open_clip.create_model_and_transforms(source, device=device)
        tokenize = open_clip.get_tokenizer(source)
    return _encoder(name, model, preprocess, tokenize, device)


def _encoder(name: str, model: open_clip.CLIP, preprocess: Any, tokenize: Any, device: str) -> Encoder:
    model.eval().requires_grad_(False)
    return Encoder(
        name=name,
        pixels=preprocess,
        image_features=model.encode_image,
        device=device,
        text_features=lambda texts: model.encode_text(tokenize(texts).to(device)),
    )


def _parts(name: str) -> tuple[str, str]:
    """ "ViT-B-32/openai" -> ("ViT-B-32", "openai")."""
    model, _, tag = name.rpartition("/")
    return model, tag


def _remedy(name: str) -> str:
    model, tag = _parts(name)
    return fetch_once(f"import open_clip; open_clip.create_model('{model}', '{tag}')")
