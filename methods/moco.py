"""MoCo v3 as an attribution method: nearest training images by self-supervised features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from attribench.interface import Edition

from .features import NearestEncoded


@dataclass(frozen=True, kw_only=True)
class Moco(NearestEncoded):
    """Cosine of MoCo v3 features.

        score(x_gen, x_i) = cos(f(x_gen), f(x_i)),   f: the class token of ViT-B/16 after the last norm

    Chen et al., "An empirical study of training self-supervised vision transformers", ICCV 2021 (vit-b-300ep); as the
    baseline of Wang et al. (ICCV 2023). Needs the pictures and its authors' weights:
    -p moco.checkpoint=PATH/vit-b-300ep.pth.tar; one pass of the encoder over each.
    """

    name: ClassVar[str] = "moco"
    by_edition: ClassVar[Mapping[Edition, str]] = {"mini": "mocov3_vitb_300ep", "paper": "mocov3_vitb_300ep"}
