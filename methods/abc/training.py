"""Training AbC's heads on pairs of exemplars and what a model customized on them made.

    L = ½ [ CE(S / τ, i) + CE(Sᵀ / τ, i) ]  +  λ Σ_heads ‖HᵀH − I‖²_F / d          S_ij = s(exemplar_i, synthesized_j)

Symmetric NT-Xent: pair i is right, the other pairs of the batch are wrong, each from another model. The authors' training
code is not public (issue 4 of their repository): what is not in methods.md §5 is our choice, see docs/abc.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .heads import Heads


@dataclass(frozen=True)
class Group:
    """One customized model, as features: its exemplars [n, d] and what it made [m, d]."""

    exemplars: Tensor
    synthesized: Tensor


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Hyper-parameters of the training."""

    temperature: float
    """τ."""
    orthogonality: float
    """λ."""
    epochs: int
    """In one, every synthesized picture is in one pair, with an exemplar of its model drawn at random."""
    batch_size: int
    """Pairs, each of another model; as many as there are models if these are fewer."""
    learning_rate: float
    """Adam's."""


def nt_xent(exemplars: Tensor, synthesized: Tensor, temperature: float) -> Tensor:
    """The contrastive loss of unit embeddings [B, d], pair by pair; both ways, mean over the batch."""
    logits = exemplars @ synthesized.T / temperature
    right = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


def off_orthogonality(heads: Heads) -> Tensor:
    """Σ over the heads of ‖HᵀH − I‖²_F / d; 0 for heads that are no d × d maps."""
    total = torch.zeros(())
    for square in heads.squares:
        total = total + (square.T @ square - torch.eye(len(square))).square().sum() / len(square)
    return total


def train_heads(
    heads: Heads,
    groups: Sequence[Group],
    schedule: Schedule,
    seed: int,
    after_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train in place; the mean loss of each epoch. Fewer than two models have no negatives: the heads stay as they are."""
    if len(groups) < 2:
        return []
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(heads.parameters(), schedule.learning_rate)
    history: list[float] = []
    for epoch in range(schedule.epochs):
        heads.train()
        losses = []
        for batch in _batches(groups, schedule.batch_size, random):
            exemplars = torch.stack([_drawn(groups[g].exemplars, random) for g, _ in batch])
            synthesized = torch.stack([groups[g].synthesized[row] for g, row in batch])
            contrast = nt_xent(heads.embed_training(exemplars), heads.embed_synthesized(synthesized), schedule.temperature)
            loss = contrast + schedule.orthogonality * off_orthogonality(heads)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        heads.eval()
        history.append(sum(losses) / len(losses))
        after_epoch(epoch + 1, history[-1])
    heads.eval().requires_grad_(False)
    return history


def _batches(groups: Sequence[Group], size: int, random: torch.Generator) -> list[list[tuple[int, int]]]:
    """(group, row of a synthesized picture) of each pair of an epoch: no group twice in a batch, none alone in one."""
    orders = [torch.randperm(len(group.synthesized), generator=random).tolist() for group in groups]
    batches = []
    for place in range(max(map(len, orders))):
        there = [g for g, order in enumerate(orders) if place < len(order)]
        shuffled = [there[k] for k in torch.randperm(len(there), generator=random).tolist()]
        batches += [[(g, orders[g][place]) for g in shuffled[k : k + size]] for k in range(0, len(shuffled), size)]
    return [batch for batch in batches if len(batch) > 1]


def _drawn(rows: Tensor, random: torch.Generator) -> Tensor:
    return rows[int(torch.randint(len(rows), (), generator=random))]
