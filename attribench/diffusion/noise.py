"""The noise bank: randomness that belongs to the sample (rule 1 of docs/design.md).

Every draw is a function of what it is for: (sample id, caption, timestep, flip, draw number …), never of
its place in a batch. So a loss, a score or a training does not depend on batch size, order, worker count or
a resume, and before/after losses use the same noise.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def seed_of(*key: str | int | bool) -> int:
    """A 63-bit seed from a key. Stable across processes and versions: sha256 of its JSON."""
    text = json.dumps(key, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def normal(shape: tuple[int, ...], *key: str | int | bool) -> Tensor:
    """Standard normal float32 noise of `shape` for this key, on the CPU (the same on every device)."""
    import torch

    generator = torch.Generator().manual_seed(seed_of(*key))
    return torch.randn(shape, generator=generator)


def draws(*key: str | int | bool) -> np.random.Generator:
    """A generator of small random numbers (timesteps, crops, orders) for this key."""
    return np.random.default_rng(seed_of(*key))
