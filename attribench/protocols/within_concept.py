"""Within a concept: does a model retrained on the half that a method ranks higher fit the query better?

MONTRAGE (Brokman et al. 2024), Eq. 10–13, Figure 5 and supplement A. One model is customized on each concept, so that
telling concepts apart is of no use. It generates several pictures of each monitored prompt, and these are the queries. For
each query and method the training images are sorted by score and cut into two ordered halves, a model is retrained on
each, and the query's loss is taken under both, over evenly spaced timesteps and with the same noise. A method is right
about a query when the half with the higher scores gives the lower loss; the accuracy of a concept is the share of its
queries that the method is right about, and what is reported is the share of concepts whose accuracy is above η.

Which halves are asked for depends on the scores, so they are retrained once these are known; each distinct half is
retrained once, whichever queries, methods, seeds and runs ask for it (eight images have only 70). What the metric does
with them, and that the sign of Eq. 10 is flipped, is in `attribench.metrics.within_concept`; ties and odd numbers of
images are in `ordered_halves`.

With `n_concepts` above one a study is a model of several concepts: the multi-concept LDS of the supplement's Figure 1.
Attributions may then be right because concepts are told apart, and the halves are far too many to be shared.

Choices where the paper is silent. A concept has at least `min_images`: halves of a three-image concept are single images
(or, cut as in the paper, one against two, which measures size). Retraining starts from the seed of the study's own
training. Candidates of a method are told apart (`tune`) by further pictures of the same prompts, which are not reported
on; each candidate may ask for halves of its own, so this is affordable only where the halves are few, and otherwise the
default candidate stands.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, PositiveInt

from attribench.attribution.scores import ScoreTable
from attribench.data import Concept, ConceptDataset, GenerationCase, Role, Split
from attribench.errors import DatasetError
from attribench.measurement import Metric
from attribench.measurement.ordered_halves import ordered_halves
from attribench.protocols.concept_studies import (
    StudyPreset,
    TaughtConcepts,
    case_of,
    concepts_of,
    disjoint_groups,
    images_of,
    limited,
    tokens_of,
)
from attribench.protocols.protocol import Results, metric
from attribench.study.plan import StudyPlan
from attribench.study.retrainings import Look, LossMeasure, Part, Retrainings

MONITORED = "monitored"
PICTURE = "share-above.png"


class WithinConceptPreset(StudyPreset):
    n_concepts: PositiveInt = 1
    """Concepts that a model is taught; more than one is the multi-concept LDS of supplement B.1."""
    max_studies: PositiveInt | None = None
    """None: as many as there are concepts, each in one study."""
    min_images: int = Field(4, ge=2)
    """Training images of a study; concepts with too few are left out, and the run says so."""
    pictures: PositiveInt = 5
    """Queries per prompt."""
    fit_pictures: PositiveInt = 1
    """Further pictures per prompt that methods may learn from, and are tuned on."""
    tune: bool = False
    """Whether candidates of a method are told apart, each by the halves that it asks for."""
    timesteps: PositiveInt = 100
    """At which a loss is taken."""
    draws: PositiveInt = 1
    """Noises per timestep."""
    etas: tuple[Annotated[float, Field(ge=0.5, lt=1)], ...] = (0.9, 0.8, 0.7, 0.6)


class WithinConcept(TaughtConcepts):
    """Within a concept: is the half of the images that a method ranks higher the better one to train on? (MONTRAGE Eq. 10–13)"""

    name = "within-concept"
    preset_type = WithinConceptPreset
    preset: WithinConceptPreset
    pictures: ClassVar[Mapping[str, str]] = {PICTURE: "the share of concepts above each accuracy, and where guessing lies"}

    @property
    def tunes(self) -> bool:
        return self.preset.tune

    def plans(self, dataset: ConceptDataset, *, model: str, split: Split, seed: int, limit: int | None) -> list[StudyPlan]:
        n = self.preset.n_concepts
        concepts, few = self._concepts(dataset, split)
        groups = disjoint_groups(concepts, n, "within-concept", dataset.name, seed)[: self.preset.max_studies]
        if not groups:
            raise DatasetError(
                f"{dataset.name} has {len(concepts)} concepts with enough images in its {split} split ({len(few)} have too "
                f"few), a study needs {n} with {self.preset.min_images} images; lower "
                "within-concept.min_images or give more data"
            )
        plans = []
        for number, group in enumerate(groups):
            study_id = f"{dataset.name}-{split}-within-{n}c-{number:03d}"
            cases = limited(list(self._cases(dataset, group)), limit)
            plans.append(self.study(dataset, group, study_id, cases, model=model, split=split, seed=seed))
        return plans

    def notices(self, dataset: ConceptDataset, split: Split) -> tuple[str, ...]:
        """Which concepts are left out."""
        _, few = self._concepts(dataset, split)
        if not few:
            return ()
        names = ", ".join(concept.name for concept in few)
        return (
            f"{len(few)} concepts are left out, since halves of fewer than {self._wanted()} images say more of size than of "
            f"attribution (--param within-concept.min_images=N takes them in): {names}",
        )

    def _wanted(self) -> int:
        """Images that a concept needs for its study to have `min_images`."""
        return -(-self.preset.min_images // self.preset.n_concepts)

    def _concepts(self, dataset: ConceptDataset, split: Split) -> tuple[list[Concept], list[Concept]]:
        """The split's concepts by name: those with enough images, and those with too few."""
        concepts = concepts_of(dataset, split)
        taken = {c.name: len(images_of(dataset, c, "", self.preset.images_per_concept, 0)) for c in concepts}
        few = [concept for concept in concepts if taken[concept.name] < self._wanted()]
        return [concept for concept in concepts if concept not in few], few

    def _cases(self, dataset: ConceptDataset, concepts: list[Concept]) -> Iterator[GenerationCase]:
        """Every prompt's pictures: the queries first, then those to learn from."""
        preset, tokens = self.preset, tokens_of(concepts)
        for seed in range(preset.pictures + preset.fit_pictures):
            role: Role = "query" if seed < preset.pictures else "fit"
            for concept in concepts:
                for template in dataset.monitoring_templates[: preset.templates]:
                    yield case_of(template, [concept], tokens, variant=MONITORED, role=role, seed=seed, monitored=True)

    def further_retrainings(self, plan: StudyPlan, tables: Sequence[ScoreTable]) -> tuple[Retrainings, ...]:
        """Both halves of every query, for every method and seed."""
        roles: tuple[Role, ...] = ("query", "fit")
        scores = {role: [table.scores.values for table in tables if table.role == role] for role in roles}
        requests = (self.request(plan, role, _looks(of_role, plan.training.seed)) for role, of_role in scores.items() if of_role)
        return tuple(filter(None, requests))

    def request(self, plan: StudyPlan, role: Role, looks: Sequence[Look] = ()) -> Retrainings | None:
        measure = LossMeasure(timesteps=self.preset.timesteps, draws=self.preset.draws)
        return Retrainings(role=role, n_train=len(plan.training.images), looks=tuple(looks), measure=measure) if looks else None

    def further_at_most(self, plan: StudyPlan, n_tables: int) -> int:
        """All halves that there are, or two cuts of two halves for every query and table."""
        n_train = len(plan.training.images)
        return min(math.comb(n_train, n_train // 2), 4 * n_tables * len(plan.cases))

    def metrics(self, variant: str) -> list[Metric]:
        shares = [metric("share_above", eta=eta) for eta in self.preset.etas]
        return [metric("accuracy"), metric("area_above"), *shares, metric("tied_cuts")]

    def draw(self, folder: Path, results: Results) -> None:
        """Figure 5 of the paper, or with several concepts Figure 1 of its supplement."""
        from attribench.measurement.share_curve import null_of_prompts
        from attribench.report.figures.share_plot import share_plot  # matplotlib is slow to import

        pictures = [list(Counter(case.prompt for case in plan.roles("query")).values()) for plan in results.plans]
        share_plot(folder / PICTURE, results.rows, results.per_query, null_of_prompts(pictures))


def _looks(tables: Sequence[np.ndarray], seed: int) -> tuple[Look, ...]:
    """Each query under both halves of each of its cuts, for every table of scores [n_query, n_train]; in whichever order."""
    looks = [
        Look(Part(tuple(np.flatnonzero(~half).tolist()), seed), (query,))
        for scores in tables
        for query, row in enumerate(scores)
        for halves in ordered_halves(row)
        for half in halves
    ]
    return tuple(sorted(looks, key=lambda look: (look.part.left_out, look.queries)))
