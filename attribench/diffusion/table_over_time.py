"""The attribution table M as it grows: copies at evenly spaced moments of a training (MONTRAGE, supplement Figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge

from attribench.diffusion.monitor import ValueMonitor
from attribench.diffusion.observing import TrainingObserver, Watch

if TYPE_CHECKING:
    from attribench.diffusion.model import DiffusionModel


@dataclass(frozen=True, kw_only=True)
class TableOverTime(TrainingObserver):
    """Records M at `moments` moments, the last at the end: {"tables": [moments, n_train, n_prompts] float64}.

    A training of fewer steps than that has moments at which the table is still the one before.
    """

    monitor: ValueMonitor
    moments: Annotated[int, Ge(1)] = 5

    def start(self, model: DiffusionModel, n_train: int, n_steps: int) -> Watch:
        after = [n_steps * (number + 1) // self.moments for number in range(self.moments)]
        return _Copies(self.monitor.start(model, n_train, n_steps), after)


class _Copies(Watch):
    """Another watch's table, copied after some of the steps [moments]."""

    def __init__(self, watch: Watch, after: Sequence[int]) -> None:
        self.watch, self.after = watch, after
        self.steps = 0
        self.tables: list[np.ndarray] = []
        self._copy()

    def after_step(self, rows: Sequence[int]) -> None:
        self.watch.after_step(rows)
        self.steps += 1
        self._copy()

    def finish(self) -> dict[str, np.ndarray]:
        return {"tables": np.stack(self.tables)}

    def _copy(self) -> None:
        due = self.after.count(self.steps)
        if due:
            table = self.watch.finish()["table"]
            self.tables += [np.array(table) for _ in range(due)]
