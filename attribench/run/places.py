"""Where a run finds what it is not told: the tiny model, the store, a folder of its own."""

from __future__ import annotations

import os
import time
from importlib import resources
from pathlib import Path

from attribench.data import Dataset
from attribench.errors import UsageError


def tiny_model() -> Path:
    """The folder of the tiny model that ships with the package."""
    folder = Path(str(resources.files("attribench") / "assets" / "tiny"))
    if not (folder / "model_index.json").is_file():
        raise UsageError(f"the tiny model is missing at {folder}; install the package again, or give --model")
    return folder


def default_store() -> Path:
    """`$ATTRIBENCH_STORE`, or a folder in the user's cache."""
    if "ATTRIBENCH_STORE" in os.environ:
        return Path(os.environ["ATTRIBENCH_STORE"])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "attribench"


def new_folder(dataset: Dataset) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{dataset.name}-{dataset.edition}-{stamp}"
