"""Cosine between pixels: the simplest feature baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attribench.encoders.features import EncoderFeatures

from .features import NearestPictures


@dataclass(frozen=True, kw_only=True)
class Pixel(NearestPictures):
    """Cosine of flattened pictures.

        score(x_gen, x_i) = cos(x_gen, x_i),   pixels in [-1, 1]

    The pixel baseline of Zheng et al. (D-TRAK, ICLR 2024) and Wang et al. (attribution by unlearning,
    NeurIPS 2024); the range is D-TRAK's. Needs the pictures alone; one matrix product.
    """

    name: ClassVar[str] = "pixel"

    size: int = 64
    """Both pictures are cut to their centre square and resized to `size` pixels a side."""

    @property
    def pictures(self) -> EncoderFeatures:
        return EncoderFeatures(encoder=f"pixels/{self.size}")
