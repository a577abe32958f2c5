"""Training the attribution model on pairs of generations and training images (section 3.2, supplement A)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .adaptive_loss import adaptive_dml_loss, triplet_loss
from .attribution_model import AttributionModel

OPTIMIZERS = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What there is to learn from: [G] generations and [n] training images as features, and their attributions."""

    generations: Tensor
    """[G, d]."""
    train: Tensor
    """[n, d]."""
    truth: Tensor
    """GT [G, n]."""
    positive: Tensor
    """bool [G, n]: the training image's prompt shares a modifier with the generation's."""
    prompts: Sequence[str]
    """[G]; generations of one prompt share their column of M, hence stay on one side of the split."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Hyper-parameters of the training; documented at `Montrage`."""

    loss: Literal["adaptive", "triplet"]
    steps: int
    batch_size: int
    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    weight_decay: float
    plateau_factor: float
    plateau_patience: int
    negatives_per_positive: int
    validation_share: float


LOOKS = 10
"""How often a plateau is looked for: the paper trains for ten epochs."""


def train(model: AttributionModel, pairs: Pairs, schedule: Schedule, seed: int) -> list[float]:
    """Train the head in place for `schedule.steps` steps; the loss that the plateau is judged by, at each of its tenths.

    Without a single (anchor, positive, negative), as in a study of one concept, the model stays as it is.
    """
    random = torch.Generator().manual_seed(seed)
    learning, validating = _split(pairs, schedule.validation_share, random)
    held_out = _triplets(pairs, validating, schedule.negatives_per_positive, random)
    optimizer = OPTIMIZERS[schedule.optimizer](model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=schedule.plateau_factor, patience=schedule.plateau_patience
    )
    batches = _batches(pairs, learning, schedule, random)
    history: list[float] = []
    for look in range(LOOKS):
        losses = []
        for batch in itertools.islice(batches, schedule.steps * (look + 1) // LOOKS - schedule.steps * look // LOOKS):
            loss = _loss(model, pairs, batch, schedule.loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if not losses:
            continue
        with torch.no_grad():
            judged = _loss(model, pairs, held_out, schedule.loss).item() if len(held_out) else sum(losses) / len(losses)
        history.append(judged)
        plateau.step(judged)
    return history


def _batches(pairs: Pairs, learning: Tensor, schedule: Schedule, random: torch.Generator) -> Iterator[Tensor]:
    """Batches of triplets without end, round after round; none if there is no triplet."""
    while len(triplets := _triplets(pairs, learning, schedule.negatives_per_positive, random)):
        yield from triplets[torch.randperm(len(triplets), generator=random)].split(schedule.batch_size)


def _loss(model: AttributionModel, pairs: Pairs, triplets: Tensor, loss: str) -> Tensor:
    """The loss of triplets [B, 3]: rows of (generation, positive training image, negative training image)."""
    a, p, n = triplets.T
    anchor, positive, negative = pairs.generations[a], pairs.train[p], pairs.train[n]
    if loss == "triplet":
        return triplet_loss(model.embed(anchor), model.embed(positive), model.embed(negative))
    return adaptive_dml_loss(model(anchor, positive), model(anchor, negative), pairs.truth[a, p], pairs.truth[a, n])


def _triplets(pairs: Pairs, anchors: Tensor, negatives_per_positive: int, random: torch.Generator) -> Tensor:
    """Every (anchor, positive) pair with as many random negatives of the anchor each: [N, 3]."""
    chosen = anchors[(~pairs.positive[anchors]).any(dim=1)]
    local, p = pairs.positive[chosen].nonzero(as_tuple=True)
    a = chosen[local].repeat_interleave(negatives_per_positive)
    p = p.repeat_interleave(negatives_per_positive)
    if not len(a):
        return torch.empty(0, 3, dtype=torch.long)
    n = torch.multinomial((~pairs.positive[a]).float(), 1, generator=random)[:, 0]
    return torch.stack([a, p, n], dim=1)


def _split(pairs: Pairs, share: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Generations to learn from and to judge the plateau by, whole prompts on either side."""
    prompts = sorted(set(pairs.prompts))
    order = torch.randperm(len(prompts), generator=random).tolist()
    held_out = {prompts[k] for k in order[: int(share * len(prompts))]}
    outside = torch.tensor([prompt in held_out for prompt in pairs.prompts], dtype=torch.bool)
    return (~outside).nonzero()[:, 0], outside.nonzero()[:, 0]
