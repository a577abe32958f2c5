"""The two heads of AbC: one for training images, one for synthesized images, on the features of a frozen encoder.

    linear    h(f) = W f + b           W = I, b = 0 at the start
    channel   h(f) = w ⊙ f             w = 1 at the start
    mlp       h(f) = BN(W₂ ReLU(BN(W₁ f)))      hidden 512, out 256
    embedding = h(f) / |h(f)|

The shapes and the names of their weights are those of the authors' checkpoints, {"real_mapper", "synth_mapper"}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from attribench.diffusion.loading import LOADING
from attribench.encoders.weights import fit_weights, read_tensors
from attribench.errors import UsageError

Shape = Literal["linear", "channel", "mlp"]
HIDDEN, OUT = 512, 256
MAPPERS = ("real_mapper", "synth_mapper")
TELLING: dict[str, Shape] = {"weight": "linear", "weights": "channel", "0.weight": "mlp"}
"""The weight that tells a head's shape; its last axis is as wide as the features."""


class Channel(nn.Module):
    """A weight for each feature."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(1, dimension))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.weights


def head(shape: Shape, dimension: int) -> nn.Module:
    """A head before training."""
    if shape == "channel":
        return Channel(dimension)
    if shape == "mlp":
        return nn.Sequential(
            nn.Linear(dimension, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Dropout(0.0),
            nn.Linear(HIDDEN, OUT, bias=False), nn.BatchNorm1d(OUT, affine=False),
        )  # fmt: skip
    linear = nn.Linear(dimension, dimension)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class Heads(nn.Module):
    """Both heads, and the similarity that they make of features."""

    def __init__(self, shape: Shape, dimension: int) -> None:
        super().__init__()
        self.shape, self.dimension = shape, dimension
        self.real_mapper = head(shape, dimension)
        self.synth_mapper = head(shape, dimension)

    def embed_training(self, features: Tensor) -> Tensor:
        """Unit embeddings of training images [n, d]."""
        return functional.normalize(self.real_mapper(features), dim=-1)

    def embed_synthesized(self, features: Tensor) -> Tensor:
        """Unit embeddings of synthesized images [m, d]."""
        return functional.normalize(self.synth_mapper(features), dim=-1)

    @torch.no_grad()
    def similarity(self, queries: Tensor, train: Tensor) -> Tensor:
        """s: cosine of the embeddings of queries [Q, d] and training images [n, d], [Q, n]."""
        return self.embed_synthesized(queries) @ self.embed_training(train).T

    @property
    def squares(self) -> tuple[Tensor, ...]:
        """H of each head as a d × d map, where it is one; an mlp is none."""
        if self.shape == "channel":
            return tuple(torch.diag(mapper.weights[0]) for mapper in (self.real_mapper, self.synth_mapper))
        if self.shape == "linear":
            return self.real_mapper.weight, self.synth_mapper.weight
        return ()


def drawn_heads(shape: Shape, dimension: int, seed: int) -> Heads:
    """Heads before training, those of this seed."""
    # Another thread that loads a model has torch's initialisers replaced and its default dtype changed meanwhile.
    with LOADING, torch.random.fork_rng():
        torch.manual_seed(seed)
        return Heads(shape, dimension)


def load_heads(path: Path, dimension: int, encoder: str) -> Heads:
    """Heads from a checkpoint: the authors' file, or safetensors with the same names ("real_mapper.weight").

    Raises UsageError, one line, for a file that is none, or whose heads are for features of another width.
    """
    mappers = _by_mapper(read_tensors(path))
    for mapper in MAPPERS:
        if not mappers[mapper]:
            raise UsageError(f"{path} holds no {mapper}; give a checkpoint of AbC's heads, {{'real_mapper', 'synth_mapper'}}")
    found = {TELLING[name]: value for name, value in mappers["real_mapper"].items() if name in TELLING}
    if len(found) != 1 or not isinstance(next(iter(found.values())), Tensor):
        known = ", ".join(TELLING.values())
        raise UsageError(f"{path} holds heads of none of the shapes {known}: {', '.join(mappers['real_mapper'])}")
    ((shape, telling),) = found.items()
    width = telling.shape[-1] if telling.ndim else 1
    if width != dimension:
        raise UsageError(
            f"the heads in {path} take features of width {width}, but {encoder} gives {dimension}; "
            "take heads that were trained on this encoder, or name theirs with encoder=NAME"
        )
    heads = drawn_heads(shape, dimension, seed=0)
    for mapper in MAPPERS:
        fit_weights(getattr(heads, mapper), mappers[mapper], f"{path} ({mapper})")
    return heads.eval().requires_grad_(False)


def _by_mapper(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Weights of each mapper, from nested dictionaries or from dotted names."""
    found: dict[str, dict[str, Any]] = {mapper: {} for mapper in MAPPERS}
    for name, value in tensors.items():
        mapper, _, rest = name.partition(".")
        if mapper not in found:
            continue
        found[mapper] |= dict(value) if isinstance(value, Mapping) else {rest: value}
    return found
