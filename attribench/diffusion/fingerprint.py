"""What a base model is, for cache keys. Apart from the loading code, so that a cached run imports no diffusers."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from attribench.errors import ModelError

CONTENT = (".json", ".safetensors", ".txt")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
NOT_CONTENT = ("recipe.json",)
"""How a model was made is beside it, and does not change what it is."""


def fingerprint(reference: str | Path) -> str:
    """sha256 over the names and contents of a model's folder, or of the cached snapshot of a hub id.

    A hub id that is not in the cache yet is known by its name alone.
    """
    folder = folder_of(reference)
    if folder is None:
        return f"hub:{reference}"
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in CONTENT and p.name not in NOT_CONTENT):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(json.dumps([path.relative_to(folder).as_posix(), content]).encode())
    return f"sha256:{digest.hexdigest()[:32]}"


def require_layout(reference: str | Path) -> None:
    """Raises ModelError for a path that is no folder of diffusers'; what a hub id holds is known when it is read."""
    folder = Path(reference)
    if not folder.is_dir() and not _HUB_ID.fullmatch(str(reference)):
        raise ModelError(f"there is no folder {reference}; give a folder in the diffusers layout or a hub id (owner/name)")
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise ModelError(f"{folder} holds no model_index.json; give a folder in the diffusers layout or a hub id")


def folder_of(reference: str | Path) -> Path | None:
    """Where a model lies: its folder, or the cached snapshot of a hub id; None for one that is not in the cache yet."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if (folder := Path(reference)).is_dir():
        return folder
    try:
        index = try_to_load_from_cache(str(reference), "model_index.json")
    except HFValidationError:
        return None
    return Path(index).parent if isinstance(index, str) else None


def picture_side(reference: str | Path, latent_side: int | None = None) -> int | None:
    """Pixels of a side, from the configurations in a model's folder or cached hub snapshot; None where they are not there.

    `latent_side`: cells of a side, of a UNet that is not the model's own.
    """
    folder = folder_of(reference)
    if folder is None:
        return None
    try:
        unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
        return (latent_side or unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    except (OSError, KeyError, ValueError, TypeError):
        return None
