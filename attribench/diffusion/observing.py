"""The contract of what watches a training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from attribench.diffusion.model import DiffusionModel


@dataclass(frozen=True, kw_only=True)
class TrainingObserver(ABC):
    """Watches a training without changing it. The fields are the identity, as for a method."""

    version: ClassVar[int] = 1
    """Raise it when the same fields come to mean another observation."""

    @abstractmethod
    def start(self, model: DiffusionModel, n_train: int, n_steps: int) -> Watch:
        """Called once, before the first of `n_steps` optimizer steps, with the model that is about to be trained."""


class Watch(ABC):
    """One observer at one training. It may read the model; it may not touch weights, gradients or the RNG."""

    @abstractmethod
    def after_step(self, rows: Sequence[int]) -> None:
        """Called after every optimizer step with the rows (training images) of its batch, in batch order."""

    @abstractmethod
    def finish(self) -> dict[str, np.ndarray]:
        """Called once after the last step; the arrays are stored as they are."""
