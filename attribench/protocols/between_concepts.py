"""Between concepts: does a method name the images of the concepts that the prompt asked for?

MONTRAGE (Brokman et al. 2024), main text §4.3, supplement A and tables 1–2, on the studies of `concept_studies`.
Truth: the training images of the prompt's concepts. Spearman is taken against the column of table M of the query's
own prompt, told apart as agreement with M, since it favours MONTRAGE.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from attribench.data import Role
from attribench.diffusion.monitor import ValueMonitor
from attribench.diffusion.observing import TrainingObserver
from attribench.measurement import Metric
from attribench.protocols.concept_studies import ConceptStudies, ConceptStudiesPreset, PerVariant
from attribench.protocols.protocol import metric
from attribench.study.plan import StudyPlan


class BetweenConceptsPreset(ConceptStudiesPreset):
    k: PerVariant
    """K of recall@K and precision@K, by variant."""


class BetweenConcepts(ConceptStudies):
    """Between concepts: are the images of the prompt's concepts ranked first? (MONTRAGE §4.3)"""

    name = "between-concepts"
    preset_type = BetweenConceptsPreset
    preset: BetweenConceptsPreset

    def truth_observers(self, plan: StudyPlan) -> tuple[TrainingObserver, ...]:
        return (ValueMonitor(prompts=plan.prompts),)

    def relevant(self, plan: StudyPlan, role: Role = "query") -> np.ndarray:
        """Whether the image shows a concept of the query's prompt."""
        images = plan.training.images
        return np.array([[image.concept in case.concepts for image in images] for case in plan.roles(role)])

    def tables(
        self, plan: StudyPlan, observed: Mapping[TrainingObserver, Mapping[str, np.ndarray]], role: Role
    ) -> Mapping[str, np.ndarray]:
        """The table: the columns of M that belong to the queries' prompts."""
        monitor, *_ = self.truth_observers(plan)
        columns = [monitor.prompts.index(case.prompt) for case in plan.roles(role)]
        return {"table": np.asarray(observed[monitor]["table"])[:, columns].T}  # M [n_train, n_prompts]

    def metrics(self, variant: str) -> list[Metric]:
        k = self.preset.k[variant]
        return [metric("recall", k=k), metric("precision", k=k), metric("average_precision"), metric("spearman_with_table")]

    def tuning_metric(self, variant: str) -> Metric:
        """Average precision: it moves with every place of every image, where recall at K mostly stands still."""
        return metric("average_precision")
