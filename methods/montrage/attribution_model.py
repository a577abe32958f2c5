"""MONTRAGE's attribution model (section 3.2, figure 4): a siamese head on standardized features, shifted cosine.

    P(x_gen, x_i) = (1 + cos(S(z(x_gen)), S(z(x_i)))) / 2          z = (f − μ) / σ,  f: the embedder,  S: the head, shared

μ and σ are the mean and the deviation of each feature over a study's training images and generations. So a head's parameters
are in units of the spread of the features, and one learning rate means the same for every embedder.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Head = Literal["scaler", "linear"]


class Scaler(nn.Module):
    """S(z) = z · exp(a) + b: "trainable normalization and shifting parameters" (section 4.2), from a = b = 0."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dimension))
        self.shift = nn.Parameter(torch.zeros(dimension))

    def forward(self, features: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        return features * self.log_scale.exp() + self.shift


class Linear(nn.Module):
    """S(z) = (I + A) z, from A = 0: weight decay pulls it back to the features themselves."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.zeros(dimension, dimension))

    def forward(self, features: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        return features + features @ self.change.T


HEADS = {"scaler": Scaler, "linear": Linear}


class AttributionModel(nn.Module):
    """From features of the embedder to predicted attributions in [0, 1]."""

    def __init__(self, dimension: int, head: Head) -> None:
        super().__init__()
        self.head = HEADS[head](dimension)
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("deviation", torch.ones(dimension))

    def standardize(self, features: Tensor) -> None:
        """Take μ and σ from `features` [n, d]; a feature that never changes keeps its place."""
        self.mean.copy_(features.mean(dim=0))
        self.deviation.copy_(features.std(dim=0, correction=0).clamp(min=1e-6))

    def embed(self, features: Tensor) -> Tensor:
        """The final embedding [..., d], at unit length."""
        return functional.normalize(self.head((features - self.mean) / self.deviation), dim=-1)

    def forward(self, generations: Tensor, train: Tensor) -> Tensor:
        """P for pairs of generations [n, d] and training images [n, d]: [n]."""
        return shifted_cosine(self.embed(generations), self.embed(train))

    def attributions(self, generations: Tensor, train: Tensor) -> Tensor:
        """P for every generation [Q, d] and training image [n, d]: [Q, n]."""
        return (1 + self.embed(generations) @ self.embed(train).T) / 2


def shifted_cosine(a: Tensor, b: Tensor) -> Tensor:
    """(1 + cos) / 2 along the last axis: the cosine's [-1, 1] moved to [0, 1] (footnote 5)."""
    return (1 + functional.cosine_similarity(a, b, dim=-1)) / 2
