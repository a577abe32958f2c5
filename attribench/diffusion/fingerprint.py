"""What a base model is, for cache keys. Apart from the loading code, so that a cached run imports no diffusers."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


def fingerprint(reference: str | Path) -> str:
    """What a model is, for cache keys: sha256 over names and contents of a folder, or the hub id itself.

    Files above 256 MiB count by size and their first and last MiB, so that a Stable Diffusion folder costs
    no minute of hashing at each start.
    """
    folder = Path(reference)
    if not folder.is_dir():
        return f"hub:{reference}"
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in (".json", ".safetensors", ".txt")):
        size = path.stat().st_size
        digest.update(json.dumps([path.relative_to(folder).as_posix(), size]).encode())
        with path.open("rb") as file:
            if size <= 2**28:
                digest.update(hashlib.file_digest(file, "sha256").digest())
            else:
                digest.update(file.read(2**20))
                file.seek(-(2**20), os.SEEK_END)
                digest.update(file.read())
    return f"sha256:{digest.hexdigest()[:32]}"
