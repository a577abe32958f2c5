"""One training seen with its images in another order.

An observer is told of training images by their rows and of nothing else of them. So to see the very same training with
the images permuted, it is told of other rows: no second training is needed, and weights, batches and losses are the
same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.observing import TrainingObserver, Watch


@dataclass(frozen=True, kw_only=True)
class Renumbered(TrainingObserver):
    """What `observer` sees if the training images stand in this order."""

    observer: TrainingObserver
    order: tuple[int, ...]
    """The row of the training that stands at each place."""

    def start(self, model: DiffusionModel, n_train: int, n_steps: int) -> Watch:
        return _Renumbering(self.observer.start(model, n_train, n_steps), self.order)


class _Renumbering(Watch):
    def __init__(self, watch: Watch, order: Sequence[int]) -> None:
        self._watch = watch
        self._place = {row: place for place, row in enumerate(order)}

    def after_step(self, rows: Sequence[int]) -> None:
        self._watch.after_step([self._place[row] for row in rows])

    def finish(self) -> dict[str, np.ndarray]:
        return self._watch.finish()
