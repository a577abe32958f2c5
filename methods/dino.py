"""DINO as an attribution method: nearest training images by self-supervised features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from attribench import encoders
from attribench.interface import Edition

from .features import NearestEncoded


@dataclass(frozen=True, kw_only=True)
class Dino(NearestEncoded):
    """Cosine of DINO features.

        score(x_gen, x_i) = cos(f(x_gen), f(x_i)),   f: the class token of ViT-B/16 after the last norm

    Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021 (dino_vitb16); as the
    baseline of Wang et al. (ICCV 2023). On a mini edition dino-tiny stands in. Needs the pictures alone; one pass
    of the encoder over each.
    """

    name: ClassVar[str] = "dino"
    by_edition: ClassVar[Mapping[Edition, str]] = encoders.DINO
