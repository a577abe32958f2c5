"""Encoders as their authors published them: the architecture, the weights, the preprocessing, the layer.

All but DINOv2 as Wang et al. (ICCV 2023) read them (PeterWang512/GenDataAttribution, models/*.py: where an interpolation is
not given there, torchvision's default, bilinear, is meant); DINOv2 as in its own evaluation.

SSCD and MoCo v3 are on no hub in a form that these libraries load: they take a file of weights. SSCD's authors publish one
for torchvision's ResNet-50, which is read here into that architecture; their TorchScript file holds the same weights as a
program, which is not run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional

from attribench.encoders import from_timm, from_transformers
from attribench.encoders.encoder import Encoder
from attribench.encoders.weights import load_weights
from attribench.errors import UsageError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation of each colour."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize of the shorter side, centre crop, pixels in [0, 1], normalisation."""

    resize: int
    crop: int
    interpolation: Literal["bilinear", "bicubic"]
    normalize: tuple[tuple[float, float, float], tuple[float, float, float]]

    def __call__(self, picture: Image) -> Tensor:
        """[3, crop, crop]."""
        from torchvision.transforms import v2  # takes seconds to import, and `attribench list` names encoders alone
        from torchvision.transforms.functional import InterpolationMode, to_tensor

        mode = InterpolationMode(self.interpolation)
        cut = v2.functional.center_crop(v2.functional.resize(picture.convert("RGB"), [self.resize], mode), [self.crop])
        return v2.functional.normalize(to_tensor(cut), *map(list, self.normalize))


@dataclass(frozen=True, kw_only=True)
class Published:
    """One of them."""

    preprocessing: Preprocessing
    timm: str = ""
    """timm's name of it on the hub, if it is there."""
    transformers: str = ""
    """Its repository for transformers, if timm does not serve it."""
    architecture: Callable[[], nn.Module] | None = None
    """What a file of weights is loaded into."""
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    """As in `load_weights`."""
    file: str = ""
    """What its authors call the file of weights."""

    def unavailable(self, name: str) -> str | None:
        """Why its weights cannot be had here without a file, or None."""
        if self.timm:
            return from_timm.unavailable(self.timm, name)
        if self.transformers:
            return from_transformers.unavailable(self.transformers, name)
        return f"{name} takes a file of weights: give checkpoint=PATH of its authors' {self.file}"

    def load(self, name: str, device: str) -> Encoder:
        """With the weights of the hub or the cache."""
        if self.timm:
            return from_timm.load(self.timm, name, device, self.preprocessing)
        return from_transformers.load(self.transformers, name, device, self.preprocessing)

    def load_file(self, name: str, device: str, checkpoint: str) -> Encoder:
        """With the weights of a file. Raises UsageError when they are of another model."""
        if self.architecture is None:
            raise UsageError(f"{name} is read by transformers, from a folder: give encoder=PATH of it, and no checkpoint")
        model = self.architecture()
        load_weights(model, checkpoint, self.prefix, self.ignored)
        return from_timm.encoder(model, name, device, self.preprocessing)


class _GeneralizedMean(nn.Module):
    """GeM pooling with p = 3: (mean of x³)^(1/3) of each channel, x ≥ 1e-6."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=1e-6).pow(3).mean(dim=(2, 3), keepdim=True).pow(1 / 3)


class Sscd(nn.Module):
    """SSCD's ResNet-50: GeM pooling instead of the mean, a linear layer to 512, unit length (Pizzi et al., CVPR 2022)."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet50

        with torch.random.fork_rng():  # weights are drawn before they are overwritten
            self.backbone = resnet50(weights=None, num_classes=512)
        self.backbone.avgpool = _GeneralizedMean()

    def forward(self, images: Tensor) -> Tensor:
        return functional.normalize(self.backbone(images), dim=1)


TO_224 = {"resize": 256, "crop": 224, "normalize": IMAGENET}
PUBLISHED: dict[str, Published] = {
    "dino_vitb16": Published(  # DINO, ViT-B/16: class token, 768
        preprocessing=Preprocessing(interpolation="bicubic", **TO_224),
        timm="vit_base_patch16_224.dino",
        architecture=partial(from_timm.architecture, "vit_base_patch16_224"),
        file="dino_vitbase16_pretrain.pth",
    ),
    "dinov2_vitl14_reg": Published(  # DINOv2 with registers, ViT-L/14: class token, 1024
        preprocessing=Preprocessing(interpolation="bicubic", **TO_224),
        transformers="facebook/dinov2-with-registers-large",
    ),
    "vit_base_patch16_384": Published(  # supervised, ImageNet-21k then 1k: class token (head = identity), 768
        preprocessing=Preprocessing(resize=384, crop=384, interpolation="bilinear", normalize=HALF),
        timm="vit_base_patch16_384.augreg_in21k_ft_in1k",
        architecture=partial(from_timm.architecture, "vit_base_patch16_384"),
        ignored=("head.",),
        file="model.safetensors of timm/vit_base_patch16_384.augreg_in21k_ft_in1k",
    ),
    "mocov3_vitb_300ep": Published(  # MoCo v3, ViT-B/16, 300 epochs: class token, 768
        preprocessing=Preprocessing(interpolation="bilinear", **TO_224),
        architecture=partial(from_timm.architecture, "vit_base_patch16_224"),
        prefix="module.base_encoder.",
        ignored=("head.",),
        file="vit-b-300ep.pth.tar",
    ),
    "sscd_disc_mixup": Published(  # SSCD, ResNet-50: unit descriptor, 512
        preprocessing=Preprocessing(resize=288, crop=288, interpolation="bilinear", normalize=IMAGENET),
        architecture=Sscd,
        file="sscd_disc_mixup.torchvision.pt",
    ),
}
