"""A supervised ViT as an attribution method: nearest training images by features learned from ImageNet's labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from attribench.interface import Edition

from .features import NearestEncoded


@dataclass(frozen=True, kw_only=True)
class Vit(NearestEncoded):
    """Cosine of the features of a ViT trained to classify ImageNet.

        score(x_gen, x_i) = cos(f(x_gen), f(x_i)),   f: what goes into the classifier of ViT-B/16 at 384 pixels

    Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, in timm's weights (Steiner et al., "How to train
    your ViT?", TMLR 2022: ImageNet-21k, then 1k); as the baseline of Wang et al. (ICCV 2023). Needs the pictures and
    the weights of the hub; one pass of the encoder over each.
    """

    name: ClassVar[str] = "vit"
    by_edition: ClassVar[Mapping[Edition, str]] = {"mini": "vit_base_patch16_384", "paper": "vit_base_patch16_384"}
