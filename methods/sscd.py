"""SSCD as an attribution method: nearest training images by a descriptor made to find copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from attribench.interface import Edition

from .features import NearestEncoded


@dataclass(frozen=True, kw_only=True)
class Sscd(NearestEncoded):
    """Cosine of SSCD descriptors.

        score(x_gen, x_i) = cos(f(x_gen), f(x_i)),   f: ResNet-50, GeM pooling, linear to 512, unit length

    Pizzi et al., "A self-supervised descriptor for image copy detection", CVPR 2022 (sscd_disc_mixup); as the baseline
    of Wang et al. (ICCV 2023). Needs the pictures and its authors' weights:
    -p sscd.checkpoint=PATH/sscd_disc_mixup.torchvision.pt; one pass of the encoder over each.
    """

    name: ClassVar[str] = "sscd"
    by_edition: ClassVar[Mapping[Edition, str]] = {"mini": "sscd_disc_mixup", "paper": "sscd_disc_mixup"}
