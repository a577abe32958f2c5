"""Which library wrote a folder with an encoder, told by its configuration file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from attribench.encoders import from_open_clip, from_timm, from_transformers
from attribench.encoders.encoder import Encoder
from attribench.errors import UsageError

Loader = Callable[[Path, str, str], Encoder]
"""(folder, name, device) -> the encoder."""
OPEN_CLIP_CONFIG = "open_clip_config.json"
CONFIG = "config.json"


def library_of(folder: Path) -> Loader:
    """What loads the folder. Raises UsageError, one line, for one that is none of the three, or without safetensors."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; give the path of one that holds an encoder")
    if not any(folder.glob("*.safetensors")):
        raise UsageError(f"{folder} holds no safetensors; save the encoder's weights in that format")
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return from_open_clip.load_folder
    described = _described(folder / CONFIG)
    if "architecture" in described:
        return from_timm.load_folder
    if "model_type" in described:
        return from_transformers.load
    raise UsageError(
        f"{folder / CONFIG} names neither an `architecture` (timm) nor a `model_type` (transformers), and there is no "
        f"{OPEN_CLIP_CONFIG}; give a folder that one of these libraries saved"
    )


def _described(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); give a folder that holds an encoder") from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}); give a folder that holds an encoder") from error
    return found if isinstance(found, dict) else {}
