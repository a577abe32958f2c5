"""The encoder that is none: a picture's own pixels, "pixels/SIDE"."""

from __future__ import annotations

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from attribench.data.pictures import square
from attribench.encoders.encoder import Encoder
from attribench.errors import UsageError

PIXELS = "pixels/"


def load(name: str, device: str) -> Encoder:
    """Features [3 · side · side] in [-1, 1] of the centre square at `side` pixels. Raises UsageError for no such side."""
    text = name.removeprefix(PIXELS)
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{name!r} is no size of a picture; write {PIXELS}64, say")
    side = int(text)

    def pixels(picture: Image) -> Tensor:
        array = np.asarray(square(picture, side), dtype=np.float32) / 127.5 - 1.0
        return torch.from_numpy(array).permute(2, 0, 1)

    return Encoder(name=name, pixels=pixels, image_features=lambda images: images.flatten(start_dim=1), device=device)
