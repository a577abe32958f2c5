"""Tensors from files that strangers made: safetensors, or torch files read with `weights_only=True`. No code is run.

A TorchScript file is a program, and `torch.jit.load` runs parts of it: it is refused, with what to take instead.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attribench.errors import UsageError

BYTE_LIMIT = 8 * 2**30
"""Of a file, and of what a zipped one unpacks to; a ViT-L has 1.2 GB."""
TAKES = "take the file as its authors publish it: safetensors, or a torch file of plain tensors"


def read_tensors(path: str | Path) -> dict[str, Any]:
    """Tensors by name; a torch file's dictionaries keep their nesting. Raises UsageError, one line, for anything else."""
    path = Path(path).expanduser()
    try:
        size = path.stat().st_size
        if size > BYTE_LIMIT:
            raise UsageError(f"{path} has {size:,} bytes, more than the {BYTE_LIMIT:,} allowed; {TAKES}")
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        _refuse_programs(path)
        read = torch.load(path, map_location="cpu", weights_only=True)
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}); give the path of a file of weights") from error
    except Exception as error:  # unpickling and unzipping raise anything on damaged or hostile files
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"{path} holds no tensors that can be read safely ({reason}); {TAKES}") from error
    if not isinstance(read, Mapping):
        raise UsageError(f"{path} holds a {type(read).__name__} and no named tensors; {TAKES}")
    return dict(read)


def _refuse_programs(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > BYTE_LIMIT:
        raise UsageError(f"{path} unpacks to more than the {BYTE_LIMIT:,} bytes allowed; {TAKES}")
    if any(entry.filename.partition("/")[2].startswith("code/") for entry in entries):
        raise UsageError(
            f"{path} is TorchScript, which is a program, and none is run from a file; take the same weights as plain "
            "tensors (SSCD: the file that ends in .torchvision.pt)"
        )


def load_weights(model: nn.Module, path: str | Path, prefix: str = "", ignored: tuple[str, ...] = ()) -> None:
    """Put a file's tensors into `model`, every one of them.

    A training's checkpoint is looked into (`state_dict`, `model`, `teacher`); of its names those under `prefix` count,
    and of these those that begin with `ignored` do not. Raises UsageError, one line, when what is left does not fit.
    """
    tensors = read_tensors(path)
    for wrapped in ("state_dict", "model", "teacher"):
        if isinstance(tensors.get(wrapped), Mapping):
            tensors = dict(tensors[wrapped])
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    own = {name: value for name, value in own.items() if not name.startswith(ignored)}
    fit_weights(model, own, str(path))


def fit_weights(model: nn.Module, tensors: Mapping[str, Any], source: str) -> None:
    """`load_state_dict` whose misfit is one line: what is missing, what is too much, what has another shape."""
    wanted = model.state_dict()
    wrong = [f"lacks {name}" for name in wanted if name not in tensors]
    wrong += [f"holds {name}, which the model does not" for name in tensors if name not in wanted]
    wrong += [
        f"{name} is {_shape(value)}, not {_shape(wanted[name])}"
        for name, value in tensors.items()
        if name in wanted and (not isinstance(value, Tensor) or value.shape != wanted[name].shape)
    ]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UsageError(f"the weights in {source} are of another model: {wrong[0]}{more}; give those of this encoder")
    model.load_state_dict(dict(tensors))


def _shape(value: Any) -> str:
    return (" × ".join(map(str, value.shape)) or "a number") if isinstance(value, Tensor) else type(value).__name__


def file_fingerprint(path: str | Path) -> str:
    """sha256 of a file's bytes."""
    path = Path(path).expanduser()
    try:
        found = path.stat()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); give the path of a file of weights") from error
    return _hash(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=64)
def _hash(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"
