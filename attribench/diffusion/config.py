"""Hyper-parameters of training and sampling: plain values, part of what identifies a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge


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
