"""Named image and text encoders.

    clip-tiny, dino-tiny     small ones that ship in attribench/assets (recipes/tiny)
    dino_vitb16 …            as their authors published them, preprocessing and layer included (published.py)
    MODEL/PRETRAINED         open_clip's names ("ViT-B-32/openai")
    timm/MODEL               timm's names ("timm/vit_small_patch16_224.dino")
    transformers/REPOSITORY  a vision transformer of the hub ("transformers/facebook/dinov2-small")
    /PATH, ./PATH, ~/PATH    a folder that one of the three libraries wrote
    pixels/SIDE              the picture's own pixels

Weights come from the package, the local cache, the hub or a folder; for a published encoder also from a file of weights
(`checkpoint`). They are safetensors, or read with `weights_only=True`; no code from a file is run. One file a library.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from attribench.data import Edition
from attribench.diffusion.fingerprint import fingerprint as folder_fingerprint
from attribench.encoders import from_open_clip, from_timm, from_transformers, pixels
from attribench.encoders.encoder import Encoder
from attribench.encoders.published import PUBLISHED
from attribench.encoders.weights import file_fingerprint
from attribench.errors import Unavailable, UsageError

__all__ = ["CLIP", "DINO", "Encoder", "available", "fingerprint", "load_encoder", "resolve"]

ASSETS = Path(__file__).parent.parent / "assets"
OPEN_CLIP_CONFIG = "open_clip_config.json"
SHIPPED = {"clip-tiny": "recipes/tiny/clip.py", "dino-tiny": "recipes/tiny/dino.py"}
"""Their recipes; each is a folder of assets."""
CLIP: Mapping[Edition, str] = {"mini": "clip-tiny", "paper": "ViT-B-32/openai"}
DINO: Mapping[Edition, str] = {"mini": "dino-tiny", "paper": "dino_vitb16"}
"""What "auto" means for an edition."""


def resolve(name: str, edition: Edition, by_edition: Mapping[Edition, str] = CLIP) -> str:
    """The encoder that "auto" means for an edition; any other name as it is."""
    return by_edition[edition] if name == "auto" else name


def available(name: str, checkpoint: str = "") -> str | None:
    """Why the encoder cannot be had here, or None; loads no weights. Raises UsageError for an unknown name."""
    if checkpoint:
        if name not in PUBLISHED:
            raise UsageError(f"{name} takes no checkpoint, a file of weights; those that do: {', '.join(PUBLISHED)}")
        file_fingerprint(checkpoint)
        return None
    if name in SHIPPED:
        if (ASSETS / name / "recipe.json").is_file():
            return None
        return f"{name} is not in {ASSETS / name}; build it with {SHIPPED[name]} or take a complete copy"
    if name in PUBLISHED:
        return PUBLISHED[name].unavailable(name)
    if folder := _folder_of(name):
        _loader_of(folder)
        return None
    if name.startswith(pixels.PIXELS):
        return None
    if name.startswith(from_transformers.TRANSFORMERS):
        return from_transformers.unavailable(name.removeprefix(from_transformers.TRANSFORMERS), name)
    _check_name(name)
    if name.startswith(from_timm.TIMM):
        return from_timm.unavailable(name.removeprefix(from_timm.TIMM), name)
    return from_open_clip.unavailable(name)


def fingerprint(name: str, checkpoint: str = "") -> str:
    """What the encoder's weights are, for cache keys: a hash of those that are here in the open, else where they are from."""
    if checkpoint:
        return file_fingerprint(checkpoint)
    if folder := _folder_of(name):
        return folder_fingerprint(folder)
    if name in PUBLISHED:
        return PUBLISHED[name].timm or PUBLISHED[name].transformers
    if name.startswith(from_timm.TIMM):
        _check_name(name)
        return from_timm.repository(name.removeprefix(from_timm.TIMM))
    return name


_failed: dict[tuple[str, str], Unavailable] = {}


@lru_cache(maxsize=4)
def load_encoder(name: str, device: str = "cpu", checkpoint: str = "") -> Encoder:
    """The encoder of that name. Raises Unavailable when its weights cannot be had."""
    reason = available(name, checkpoint)
    if reason:
        raise Unavailable(reason)
    if (name, checkpoint) in _failed:  # a hub that does not answer costs a minute of retries; once is enough
        raise _failed[name, checkpoint]
    try:
        return _load(name, device, checkpoint)
    except Unavailable as error:
        _failed[name, checkpoint] = error
        raise


def _load(name: str, device: str, checkpoint: str) -> Encoder:
    if checkpoint:
        return PUBLISHED[name].load_file(name, device, checkpoint)
    if name in PUBLISHED:
        return PUBLISHED[name].load(name, device)
    if folder := _folder_of(name):
        return _loader_of(folder)(folder, name, device)
    if name.startswith(pixels.PIXELS):
        return pixels.load(name, device)
    if name.startswith(from_transformers.TRANSFORMERS):
        return from_transformers.load(name.removeprefix(from_transformers.TRANSFORMERS), name, device)
    if name.startswith(from_timm.TIMM):
        return from_timm.load(name.removeprefix(from_timm.TIMM), name, device)
    return from_open_clip.load(name, device)


def _folder_of(name: str) -> Path | None:
    """The folder that a name stands for: one that ships, or a path."""
    if name in SHIPPED:
        return ASSETS / name
    return Path(name).expanduser().resolve() if name.startswith(("/", "./", "../", "~")) else None


def _loader_of(folder: Path) -> Callable[[Path, str, str], Encoder]:
    """What loads a folder (folder, name, device), told by its configuration file.

    Raises UsageError, one line, for a folder that none of the three libraries wrote, or without safetensors.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; give the path of one that holds an encoder")
    if not any(folder.glob("*.safetensors")):
        raise UsageError(f"{folder} holds no safetensors; save the encoder's weights in that format")
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return from_open_clip.load_folder
    path = folder / "config.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); give a folder that holds an encoder") from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}); give a folder that holds an encoder") from error
    for key, library in (("architecture", from_timm), ("model_type", from_transformers)):
        if isinstance(described, dict) and key in described:
            return library.load
    raise UsageError(
        f"{path} names neither an `architecture` (timm) nor a `model_type` (transformers), and there is no "
        f"{OPEN_CLIP_CONFIG}; give a folder that one of these libraries saved"
    )


def _check_name(name: str) -> None:
    """Raise UsageError, with the nearest name, unless a library knows it."""
    known = [*SHIPPED, *PUBLISHED]
    if name.startswith(from_timm.TIMM):
        known += [from_timm.TIMM + model for model in from_timm.names()]
    else:
        known += from_open_clip.names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else "try 'clip-tiny' or 'ViT-B-32/openai'"
        names = "open_clip's MODEL/PRETRAINED, timm/MODEL, transformers/REPOSITORY, a path, or one of "
        raise UsageError(f"no encoder is called {name!r}; {hint} (names are {names}{', '.join([*SHIPPED, *PUBLISHED])})")
