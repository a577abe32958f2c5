"""DINOv2 as an attribution method: nearest training images by self-supervised features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from attribench.interface import Edition

from .features import NearestEncoded


@dataclass(frozen=True, kw_only=True)
class DinoV2(NearestEncoded):
    """Cosine of DINOv2 features.

        score(x_gen, x_i) = cos(f(x_gen), f(x_i)),   f: the class token of ViT-L/14 with registers, after the last norm

    Oquab et al., "DINOv2: learning robust visual features without supervision", TMLR 2024; Darcet et al., "Vision
    transformers need registers", ICLR 2024; a baseline of the unlearning paper's later version. Needs the pictures
    and the weights of the hub; one pass of the encoder over each.
    """

    name: ClassVar[str] = "dinov2"
    memory: ClassVar[int] = 2**31  # ViT-L's weights are 1.2 GB
    by_edition: ClassVar[Mapping[Edition, str]] = {"mini": "dinov2_vitl14_reg", "paper": "dinov2_vitl14_reg"}
