"""The models along a training: the trained weights at evenly spaced steps.

An observer, so that keeping them changes no training and is asked for like any observation. What it holds until
the training ends are copies of what is trained (77 MB a checkpoint for a customization of Stable Diffusion v1-4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attribench.diffusion.observing import TrainingObserver, Watch
from attribench.errors import MethodError

if TYPE_CHECKING:
    from attribench.diffusion.model import DiffusionModel

MODIFIERS = "modifiers"


def checkpoint_steps(count: int, n_steps: int) -> list[int]:
    """After which of `n_steps` optimizer steps the `count` checkpoints are taken, the last one at the end.

    Raises MethodError where there are fewer steps than checkpoints.
    """
    if count > n_steps:
        raise MethodError(
            f"{count} checkpoints of a training of {n_steps} optimizer steps: ask for fewer, or train for more epochs"
        )
    return [n_steps * number // count for number in range(1, count + 1)]


@dataclass(frozen=True, kw_only=True)
class Checkpoints(TrainingObserver):
    """Keeps all of `count` evenly spaced checkpoints but the last, which is the trained model itself.

    The observation holds each weight as [count - 1, *its shape] float32 by its name in
    `DiffusionModel.trained_weights`, and the modifier tokens, whose names no file could have, as
    "modifiers" [count - 1, n_modifiers, d_text].
    """

    count: int

    def start(self, model: DiffusionModel, n_train: int, n_steps: int) -> Watch:
        return _Keeper(model, checkpoint_steps(self.count, n_steps)[:-1])


class _Keeper(Watch):
    def __init__(self, model: DiffusionModel, steps: Sequence[int]) -> None:
        self.model, self.steps, self.done = model, frozenset(steps), 0
        self.kept: dict[str, list[np.ndarray]] = {}

    def after_step(self, rows: Sequence[int]) -> None:
        self.done += 1
        if self.done not in self.steps:
            return
        modifiers = []
        for name, weight in self.model.trained_weights().items():
            copied = weight.numpy().copy()  # on the CPU it is the model's own memory
            if name.startswith("modifier."):
                modifiers.append(copied)
            else:
                self.kept.setdefault(name, []).append(copied)
        if modifiers:
            self.kept.setdefault(MODIFIERS, []).append(np.stack(modifiers))

    def finish(self) -> dict[str, np.ndarray]:
        return {name: np.stack(arrays) for name, arrays in self.kept.items()}


def checkpoints(kept: Mapping[str, np.ndarray], tokens: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What `Checkpoints` kept, first to last, as `DiffusionModel.load_trained` takes it.

    `tokens` are the model's modifiers in their order.
    """
    weights = {name: kept[name] for name in kept if name != MODIFIERS}
    for number in range(len(next(iter(weights.values()), ()))):
        of_number = {name: torch.from_numpy(np.array(array[number])) for name, array in weights.items()}
        if tokens:
            vectors = torch.from_numpy(np.array(kept[MODIFIERS][number]))
            of_number |= {f"modifier.{token}": vector for token, vector in zip(tokens, vectors, strict=True)}
        yield of_number
