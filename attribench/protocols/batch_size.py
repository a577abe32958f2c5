"""Batch size: how fast does the attribution table tell concepts apart, when a step's change is credited to a whole batch?

MONTRAGE (Brokman et al. 2024), supplement B.1 and Figure 2. Each study of a few concepts is trained once for every batch
size, and the table M is copied along the way. A column of M (a monitored prompt) is asked for the images of its concept:
recall at K, with K the number of these images. With larger batches an image is credited with changes that its companions
caused, which averages out over the epochs.

The studies are those of between-concepts, with un-mixed prompts alone, and each batch size is a variant of its own, so
that methods that learn from the table are measured for each too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field, PositiveInt

from attribench.data import ConceptDataset, Role, Split
from attribench.diffusion.monitor import ValueMonitor
from attribench.diffusion.observing import TrainingObserver
from attribench.diffusion.table_over_time import TableOverTime
from attribench.measurement import Metric
from attribench.protocols.between_concepts import BetweenConcepts, BetweenConceptsPreset
from attribench.protocols.concept_studies import UN_MIXED
from attribench.protocols.protocol import Results
from attribench.study.plan import StudyPlan

PICTURE = "recall-over-epochs.png"


class BatchSizePreset(BetweenConceptsPreset):
    batch_sizes: tuple[PositiveInt, ...] = Field((1, 2, 4), min_length=1)
    moments: PositiveInt = 5
    """At which the table is looked at, evenly spaced, the last at the end."""


class BatchSize(BetweenConcepts):
    """Batch size: how soon does the attribution table find the images of a prompt's concept? (MONTRAGE, supplement Figure 2)"""

    name = "batch-size"
    preset_type = BatchSizePreset
    preset: BatchSizePreset
    pictures: ClassVar[Mapping[str, str]] = {PICTURE: "the table's recall over the epochs for each batch size, and the table"}

    def plans(self, dataset: ConceptDataset, *, model: str, split: Split, seed: int, limit: int | None) -> list[StudyPlan]:
        base = super().plans(dataset, model=model, split=split, seed=seed, limit=limit)
        return [self._with_batch(plan, size) for plan in base for size in dict.fromkeys(self.preset.batch_sizes)]

    def _with_batch(self, plan: StudyPlan, size: int) -> StudyPlan:
        """The same images, prompts and seed."""
        customization = replace(plan.training.customization, batch_size=size)
        return replace(
            plan,
            id=f"{plan.id}-batch{size}",
            training=replace(plan.training, customization=customization),
            cases=tuple(replace(case, variant=f"batch {size}") for case in plan.cases if case.variant == UN_MIXED),
        )

    def truth_observers(self, plan: StudyPlan) -> tuple[TrainingObserver, ...]:
        monitor = ValueMonitor(prompts=plan.prompts)
        return (monitor, TableOverTime(monitor=monitor, moments=self.preset.moments))

    def tables(
        self, plan: StudyPlan, observed: Mapping[TrainingObserver, Mapping[str, np.ndarray]], role: Role
    ) -> Mapping[str, np.ndarray]:
        """As between concepts, with the tables of each moment ("epoch 8", …) beside the last one ("table")."""
        monitor, over_time = self.truth_observers(plan)
        columns = [monitor.prompts.index(case.prompt) for case in plan.roles(role)]
        tables = np.asarray(observed[over_time]["tables"])  # [moments, n_train, n_prompts]
        epochs = plan.training.customization.epochs
        named = {f"epoch {epochs * (moment + 1) / len(tables):g}": table[:, columns].T for moment, table in enumerate(tables)}
        return {**super().tables(plan, observed, role), **named}

    def metrics(self, variant: str) -> list[Metric]:
        return super().metrics(UN_MIXED)

    def draw(self, folder: Path, results: Results) -> None:
        """Supplement Figure 2: recall over the epochs, and the tables of the first study."""
        from attribench.report.figures.table_plot import GrownTable, table_plot  # matplotlib is slow to import

        grown = [
            GrownTable(
                batch_size=plan.training.customization.batch_size,
                study=plan.concepts,
                relevant=results.truths[plan.id].relevant,
                tables={
                    float(name.removeprefix("epoch ")): table
                    for name, table in results.truths[plan.id].tables.items()
                    if name.startswith("epoch ")
                },
            )
            for plan in results.plans
        ]
        table_plot(folder / PICTURE, grown, seed=0)
