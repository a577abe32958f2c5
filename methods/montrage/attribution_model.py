"""MONTRAGE's attribution model (section 3.2, figure 4): a siamese Scaler on a frozen embedder, shifted cosine.

P(x_gen, x_i) = (1 + cos(S(f(x_gen)), S(f(x_i)))) / 2          f: frozen embedder, S: Scaler, shared
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

ScalerForm = Literal["shift-scale", "affine"]
ScalerStart = Literal["identity", "standardize"]


class Scaler(nn.Module):
    """Trainable shift and scale of each of the d features.

    The paper calls it a "PyTorch ScalingLayer, which applies trainable normalization and shifting parameters"
    (section 4.2) and gives no formula. shift-scale: (y − shift) / scale, as LPIPS' ScalingLayer has it;
    affine: y · scale + shift.
    """

    def __init__(self, dimension: int, form: ScalerForm) -> None:
        super().__init__()
        self.form = form
        self.shift = nn.Parameter(torch.zeros(dimension))
        self.scale = nn.Parameter(torch.ones(dimension))

    @torch.no_grad()
    def standardize(self, features: Tensor) -> None:
        """Start from zero mean and unit variance over `features` [n, d] instead of from the identity."""
        mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0).clamp(min=1e-6)
        if self.form == "shift-scale":
            self.shift.copy_(mean)
            self.scale.copy_(deviation)
        else:
            self.scale.copy_(1 / deviation)
            self.shift.copy_(-mean / deviation)

    def forward(self, features: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        if self.form == "shift-scale":
            return (features - self.shift) / self.scale
        return features * self.scale + self.shift


class AttributionModel(nn.Module):
    """From features of the frozen embedder to predicted attributions in [0, 1]."""

    def __init__(self, dimension: int, form: ScalerForm) -> None:
        super().__init__()
        self.scaler = Scaler(dimension, form)

    def embed(self, features: Tensor) -> Tensor:
        """The final embedding [..., d], at unit length."""
        return functional.normalize(self.scaler(features), dim=-1)

    def forward(self, generations: Tensor, train: Tensor) -> Tensor:
        """P for pairs of generations [n, d] and training images [n, d]: [n]."""
        return shifted_cosine(self.embed(generations), self.embed(train))

    def attributions(self, generations: Tensor, train: Tensor) -> Tensor:
        """P for every generation [Q, d] and training image [n, d]: [Q, n]."""
        return (1 + self.embed(generations) @ self.embed(train).T) / 2


def shifted_cosine(a: Tensor, b: Tensor) -> Tensor:
    """(1 + cos) / 2 along the last axis: the cosine's [-1, 1] moved to [0, 1] (footnote 5)."""
    return (1 + functional.cosine_similarity(a, b, dim=-1)) / 2
