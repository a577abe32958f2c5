"""Hyper-parameters of training and sampling: plain values, part of what identifies a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt


@dataclass(frozen=True, kw_only=True)
class CustomizationConfig:
    """Hyper-parameters of one customization; the defaults are MONTRAGE's (supplement A)."""

    epochs: Annotated[int, Ge(1)] = 100
    batch_size: Annotated[int, Ge(1)] = 1
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 1e-5
    modifier_learning_rate: float | None = None
    """None: the same as `learning_rate`."""
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    augmentation: Literal["custom-diffusion", "none"] = "custom-diffusion"
    flips: bool = False
    train_modifiers: bool = True
    modifier_init: Literal["rare", "class-word"] = "rare"
    detach_first_token: bool = True
    """The public attention processor cuts the gradient of K and V at the start token."""
    vae_posterior: Literal["sample", "mean"] = "sample"

    def steps(self, n_images: int) -> int:
        """Optimizer steps for `n_images` training images."""
        return self.epochs * -(-n_images // self.batch_size)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How pictures are generated."""

    steps: Annotated[int, Ge(1)] = 25
    guidance: float = 7.5
    batch_size: Annotated[int, Ge(1)] = 8
    """Pictures generated together. Part of the identity: it moves the last bits of a picture."""


DOWN, UP, CROSS_DOWN, CROSS_UP = "DownBlock2D", "UpBlock2D", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "coco": {
        "sample_size": 16, "layers_per_block": 2, "block_out_channels": (128, 256, 256, 256), "attention_head_dim": 8,
        "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN), "up_block_types": (UP, CROSS_UP, CROSS_UP, CROSS_UP),
    },
    "small": {
        "sample_size": 8, "layers_per_block": 1, "block_out_channels": (32, 64), "attention_head_dim": 4,
        "down_block_types": (DOWN, CROSS_DOWN), "up_block_types": (CROSS_UP, UP), "norm_num_groups": 8,
    },
}  # fmt: skip
"""What UNet2DConditionModel is given, beside the channels of the VAE and the width of the text encoder (1,024 for Stable
Diffusion 2). diffusers takes the *number* of heads by the name attention_head_dim."""
PARAMETERS = {"coco": 57_373_316, "small": 1_036_904}
"""Of the UNets that are trained from scratch, with Stable Diffusion 2's text encoder and with the tiny one: for estimates."""


@dataclass(frozen=True, kw_only=True)
class FromScratchConfig:
    """Hyper-parameters of a UNet that is trained from scratch; the defaults are those of the COCO model (docs/leave-k-out.md)."""

    architecture: Literal["coco", "small"] = "coco"
    """Of the UNet: `ARCHITECTURES`."""
    schedule: Literal["linear", "base", "velocity"] = "linear"
    """Of the noise: diffusers' DDPM defaults with epsilon prediction, that of the base model, or that with v-prediction
    (Salimans and Ho, 2022), which makes recognisable colours in far fewer steps."""
    epochs: Annotated[int, Ge(1)] = 200
    batch_size: Annotated[int, Ge(1)] = 128
    learning_rate: Annotated[float, Gt(0)] = 1e-4
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the steps over which the learning rate rises from 0."""
    decay: Literal["none", "cosine"] = "none"
    """Of the learning rate after the warmup: to the end, to 0."""
    weight_decay: Annotated[float, Ge(0)] = 0.01
    max_gradient_norm: Annotated[float, Gt(0)] | None = 1.0
    flips: bool = True
    caption_dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Share of the samples that are seen without their caption, for classifier-free guidance."""
    vae_posterior: Literal["sample", "mean"] = "sample"
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward pass; weights and optimizer stay in float32."""
    stored: Literal["float32", "float16"] = "float16"
    """How text embeddings are kept. 118,287 pictures with five captions are 93 GB in float16."""

    def steps(self, n_images: int) -> int:
        """Optimizer steps for `n_images` training images."""
        return self.epochs * -(-n_images // self.batch_size)
