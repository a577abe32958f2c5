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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field, PositiveInt

from attribench import plugins
from attribench.attribution.scores import ScoreTable
from attribench.data import Concept, ConceptDataset, GenerationCase, Role, Split
from attribench.diffusion import noise
from attribench.errors import DatasetError
from attribench.measurement import Metric, Truth
from attribench.measurement.ordered_halves import ordered_halves
from attribench.protocols.concept_studies import StudyPreset, images_of, other_concepts, study_plan, tokens_of
from attribench.protocols.protocol import Protocol
from attribench.study.plan import SharedImages, StudyPlan
from attribench.study.retrainings import Look, LossMeasure, Part, Retrainings

if TYPE_CHECKING:
    import pandas as pd

    from attribench.report.record import Row

MONITORED = "monitored"
PICTURE = "share-above.png"


class WithinConceptPreset(StudyPreset):
    """What the TOML files hold."""

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


class WithinConcept(Protocol):
    """Within a concept: is the half of the images that a method ranks higher the better one to train on? (MONTRAGE Eq. 10–13)"""

    name = "within-concept"
    data = ConceptDataset
    preset_type = WithinConceptPreset
    preset: WithinConceptPreset
    pictures: ClassVar[Mapping[str, str]] = {PICTURE: "the share of concepts above each accuracy, and where guessing lies"}

    @property
    def tunes(self) -> bool:
        return self.preset.tune

    def base_images(self, dataset: ConceptDataset, split: Split) -> SharedImages:
        """The pictures of all concepts of the other split, each with its caption."""
        return other_concepts(dataset, split)

    # -------------------------------------------------------------------------------------- plans

    def plans(self, dataset: ConceptDataset, *, model: str, split: Split, seed: int, limit: int | None) -> list[StudyPlan]:
        concepts, few = self._concepts(dataset, split)
        groups = self._groups(dataset, concepts, seed)
        if not groups:
            raise DatasetError(
                f"{dataset.name} has {len(concepts)} concepts with enough images in its {split} split ({len(few)} have too "
                f"few), a study needs {self.preset.n_concepts} with {self.preset.min_images} images; lower "
                "within-concept.min_images or give more data"
            )
        return [self._plan(dataset, group, number, model, split, seed, limit) for number, group in enumerate(groups)]

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
        concepts = sorted((c for c in dataset.concepts if c.split == split), key=lambda concept: concept.name)
        taken = {c.name: len(images_of(dataset, c, "", self.preset.images_per_concept, 0)) for c in concepts}
        few = [concept for concept in concepts if taken[concept.name] < self._wanted()]
        return [concept for concept in concepts if concept not in few], few

    def _groups(self, dataset: ConceptDataset, concepts: list[Concept], seed: int) -> list[list[Concept]]:
        """Disjoint groups of concepts, in a random order."""
        n, most = self.preset.n_concepts, self.preset.max_studies
        order = noise.draws("within-concept", dataset.name, seed).permutation(len(concepts))
        starts = range(0, len(concepts) - n + 1, n)
        groups = [[concepts[i] for i in order[start : start + n]] for start in starts]
        return [sorted(group, key=lambda concept: concept.name) for group in groups[:most]]

    def _plan(
        self, dataset: ConceptDataset, concepts: list[Concept], number: int, model: str, split: Split, seed: int,
        limit: int | None,
    ) -> StudyPlan:  # fmt: skip
        study_id = f"{dataset.name}-{split}-within-{self.preset.n_concepts}c-{number:03d}"
        cases = self._cases(dataset, concepts, tokens_of(concepts), limit)
        return study_plan(dataset, concepts, study_id, cases, self.preset, model=model, split=split, seed=seed)

    def _cases(
        self, dataset: ConceptDataset, concepts: list[Concept], tokens: Mapping[str, str], limit: int | None
    ) -> list[GenerationCase]:
        """Every prompt's pictures: the queries first, then those to learn from. At most `limit` queries, spread over prompts."""
        preset = self.preset
        cases = []
        for seed in range(preset.pictures + preset.fit_pictures):
            for concept in concepts:
                phrase, token = concept.phrase.format(modifier=tokens[concept.name]), tokens[concept.name]
                for template in dataset.monitoring_templates[: preset.templates]:
                    prompt = template.format(concept=phrase)
                    cases.append(
                        GenerationCase(
                            id=f"{MONITORED}/{prompt}/{seed}",
                            prompt=prompt,
                            plain_prompt=template.format(concept=concept.class_word),
                            seed=seed,
                            concepts=(concept.name,),
                            modifiers=(token,),
                            variant=MONITORED,
                            role="query" if seed < preset.pictures else "fit",
                            monitored=True,
                        )
                    )
        kept = {case.id for case in [case for case in cases if case.role == "query"][:limit]}
        return [case for case in cases if case.role == "fit" or case.id in kept]

    # -------------------------------------------------------------------------------------- truth

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

    # ------------------------------------------------------------------------------------ metrics

    def metrics(self, variant: str) -> list[Metric]:
        metric = {name: plugins.find("metric", name).load() for name in ("accuracy", "area_above", "share_above", "tied_cuts")}
        shares = [metric["share_above"](eta=eta) for eta in self.preset.etas]
        return [metric["accuracy"](), metric["area_above"](), *shares, metric["tied_cuts"]()]

    def draw(
        self, folder: Path, plans: Sequence[StudyPlan], truths: Mapping[str, Truth], rows: Sequence[Row],
        per_query: pd.DataFrame,
    ) -> None:  # fmt: skip
        """Figure 5 of the paper, or with several concepts Figure 1 of its supplement."""
        from attribench.measurement.share_curve import null_of_prompts
        from attribench.report.figures.share_plot import share_plot

        pictures = [list(Counter(case.prompt for case in plan.roles("query")).values()) for plan in plans]
        share_plot(folder / PICTURE, rows, per_query, null_of_prompts(pictures))


def _looks(tables: Sequence[np.ndarray], seed: int) -> tuple[Look, ...]:
    """Each query under both halves of each of its cuts, for every table of scores [n_query, n_train]; in whichever order."""
    looks = []
    for scores in tables:
        for query, row in enumerate(scores):
            for half in (half for halves in ordered_halves(row) for half in halves):
                looks.append(Look(Part(tuple(np.flatnonzero(~half).tolist()), seed), (query,)))
    return tuple(sorted(looks, key=lambda look: (look.part.left_out, look.queries)))
