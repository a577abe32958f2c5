"""Between concepts: does a method name the images of the concepts that the prompt asked for?

MONTRAGE (Brokman et al. 2024), main text §4.3, supplement A and tables 1–2. One model is customized on five
(or ten) concepts. Un-mixed queries show one concept, mixed ones two. Truth: the training images of the
prompt's concepts. Prompts are split once per study: a method may learn from the pictures of the first part
(role "fit"); the queries come from the second, 20 % by default, which no method learns from.

Choices where the paper is silent: the un-mixed prompts are the monitoring templates and the basic prompt of
each concept, so that a held-out share exists for every concept; the share is held out within each concept,
and of all pairs for mixed prompts. Spearman is taken against the column of table M of the query's own
prompt, told apart as agreement with M, since it favours MONTRAGE.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field, PositiveInt

from attribench import plugins
from attribench.diffusion import noise
from attribench.diffusion.config import CustomizationConfig, Sampling
from attribench.diffusion.monitor import ValueMonitor
from attribench.editions import fingerprint
from attribench.errors import DatasetError
from attribench.interface import (
    Concept,
    Dataset,
    GenerationCase,
    Metric,
    Role,
    Split,
    TrainImage,
    TrainingObserver,
    Truth,
)
from attribench.protocols.protocol import Preset, Protocol
from attribench.study.plan import StudyPlan, Training

UN_MIXED, MIXED = "un-mixed", "mixed"


def _both_variants(values: dict[str, int]) -> dict[str, int]:
    if set(values) != {UN_MIXED, MIXED}:
        raise ValueError(f"give a number for {UN_MIXED} and for {MIXED}, and for nothing else")
    return values


PerVariant = Annotated[dict[str, PositiveInt], AfterValidator(_both_variants)]


class BetweenConceptsPreset(Preset):
    """What the TOML files hold."""

    n_concepts: int = Field(5, ge=2)
    n_studies: PositiveInt | dict[str, dict[str, PositiveInt]]
    """A number, or per data set and number of concepts, as the paper counts its tables."""
    images_per_concept: PositiveInt | None = None
    """None: all of them."""
    templates: PositiveInt | None = None
    """How many of the data set's monitoring templates; None: all."""
    held_out: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts that queries come from."""
    fit_pictures: PositiveInt = 5
    """Pictures per prompt that methods may learn from."""
    query_pictures: PerVariant
    """Pictures per held-out prompt, by variant."""
    k: PerVariant
    """K of recall@K and precision@K, by variant."""
    method_seeds: tuple[int, ...] = Field(min_length=1)
    """Seeds of methods that draw random numbers; metrics are averaged over them."""
    customization: CustomizationConfig
    sampling: Sampling


class BetweenConcepts(Protocol):
    """Between concepts: are the images of the prompt's concepts ranked first? (MONTRAGE §4.3)"""

    name = "between-concepts"
    preset_type = BetweenConceptsPreset
    preset: BetweenConceptsPreset

    # -------------------------------------------------------------------------------------- plans

    def plans(self, dataset: Dataset, *, model: str, split: Split, seed: int, limit: int | None) -> list[StudyPlan]:
        preset = self.preset
        concepts = sorted((c for c in dataset.concepts if c.split == split), key=lambda concept: concept.name)
        if len(concepts) < preset.n_concepts:
            raise DatasetError(
                f"{dataset.name} has {len(concepts)} concepts in its {split} split, a study needs {preset.n_concepts}; "
                f"lower between-concepts.n_concepts or give more data"
            )
        return [
            self._plan(dataset, members, number, model, split, seed, limit)
            for number, members in enumerate(self._groups(dataset, concepts, seed))
        ]

    def n_studies(self, dataset: str) -> int:
        """How many tables of `n_concepts` concepts the preset asks for."""
        counts = self.preset.n_studies
        if isinstance(counts, int):
            return counts
        try:
            return counts[dataset][str(self.preset.n_concepts)]
        except KeyError as error:
            raise DatasetError(
                f"the preset names no number of studies for {dataset} with {self.preset.n_concepts} concepts; "
                f"give --param between-concepts.n_studies=N"
            ) from error

    def _groups(self, dataset: Dataset, concepts: list[Concept], seed: int) -> list[list[Concept]]:
        """Disjoint groups of concepts; when they run out, a fresh permutation starts the next round."""
        groups: list[list[Concept]] = []
        for round_number in itertools.count():
            order = noise.draws("studies", dataset.name, seed, round_number).permutation(len(concepts))
            for start in range(0, len(concepts) - self.preset.n_concepts + 1, self.preset.n_concepts):
                if len(groups) == self.n_studies(dataset.name):
                    return groups
                members = [concepts[i] for i in order[start : start + self.preset.n_concepts]]
                groups.append(sorted(members, key=lambda concept: concept.name))
        raise AssertionError("unreachable")

    def _plan(
        self, dataset: Dataset, concepts: list[Concept], number: int, model: str, split: Split, seed: int,
        limit: int | None,
    ) -> StudyPlan:  # fmt: skip
        preset = self.preset
        study_id = f"{dataset.name}-{split}-{preset.n_concepts}c-{number:02d}"
        tokens = {concept.name: f"<new{i}>" for i, concept in enumerate(concepts, start=1)}
        images = tuple(
            sorted(
                (image for concept in concepts for image in self._images(dataset, concept, tokens[concept.name], seed)),
                key=lambda image: image.id,
            )
        )
        from_word = preset.customization.modifier_init == "class-word"
        return StudyPlan(
            id=study_id,
            dataset=dataset.name,
            edition=dataset.edition,
            split=split,
            concepts=tuple(concept.name for concept in concepts),
            training=Training(
                model=model,
                data=fingerprint(dataset, [image.id for image in images]),
                images=images,
                modifiers=tuple((tokens[c.name], c.class_word if from_word else None) for c in concepts),
                customization=preset.customization,
                seed=noise.seed_of("study", study_id, seed),
            ),
            cases=tuple(self._cases(dataset, concepts, tokens, study_id, seed, limit)),
            sampling=preset.sampling,
        )

    def _images(self, dataset: Dataset, concept: Concept, token: str, seed: int) -> list[TrainImage]:
        records = sorted(dataset.images(concept.name), key=lambda record: record.id)
        wanted = self.preset.images_per_concept
        if wanted is not None and len(records) > wanted:
            chosen = noise.draws("images", concept.name, seed).permutation(len(records))[:wanted]
            records = [records[i] for i in sorted(chosen)]
        prompt = concept.prompt.format(modifier=token)
        return [TrainImage(id=r.id, prompt=prompt, caption=r.caption, concept=concept.name) for r in records]

    # -------------------------------------------------------------------------------------- cases

    def _cases(
        self, dataset: Dataset, concepts: list[Concept], tokens: Mapping[str, str], study_id: str, seed: int,
        limit: int | None,
    ) -> list[GenerationCase]:  # fmt: skip
        templates = (*dataset.monitoring_templates[: self.preset.templates], dataset.basic_template)
        cases: list[GenerationCase] = []
        for concept in concepts:
            held_out = self._held_out(len(templates), "prompts", study_id, concept.name, seed)
            for i, template in enumerate(templates):
                cases += self._pictures(template, (concept,), tokens, UN_MIXED, i in held_out)
        pairs = list(itertools.combinations(concepts, 2))
        held_out = self._held_out(len(pairs), "pairs", study_id, seed)
        for i, pair in enumerate(pairs):
            cases += self._pictures(dataset.mixed_template, pair, tokens, MIXED, i in held_out)
        return _limited(cases, limit)

    def _held_out(self, n: int, *key: str | int) -> set[int]:
        count = max(1, min(round(self.preset.held_out * n), n - 1))
        return set(noise.draws("held out", *key).permutation(n)[:count].tolist())

    def _pictures(
        self, template: str, concepts: tuple[Concept, ...], tokens: Mapping[str, str], variant: str, held_out: bool
    ) -> list[GenerationCase]:
        names = ["concept"] if len(concepts) == 1 else ["concept1", "concept2"]
        phrases = [concept.phrase.format(modifier=tokens[concept.name]) for concept in concepts]
        words = [concept.class_word for concept in concepts]
        prompt = template.format(**dict(zip(names, phrases, strict=True)))
        plain = template.format(**dict(zip(names, words, strict=True)))
        count = self.preset.query_pictures[variant] if held_out else self.preset.fit_pictures
        return [
            GenerationCase(
                id=f"{variant}/{prompt}/{seed}",
                prompt=prompt,
                plain_prompt=plain,
                seed=seed,
                concepts=tuple(concept.name for concept in concepts),
                modifiers=tuple(tokens[concept.name] for concept in concepts),
                variant=variant,
                role="query" if held_out else "fit",
            )
            for seed in range(count)
        ]

    # -------------------------------------------------------------------------------------- truth

    def truth_observers(self, plan: StudyPlan) -> tuple[TrainingObserver, ...]:
        return (ValueMonitor(prompts=plan.prompts),)

    def truth(
        self, plan: StudyPlan, observed: Mapping[TrainingObserver, Mapping[str, np.ndarray]], role: Role = "query"
    ) -> Truth:
        queries = plan.roles(role)
        images = plan.training.images
        relevant = np.array([[image.concept in case.concepts for image in images] for case in queries])
        (monitor,) = self.truth_observers(plan)
        columns = {prompt: j for j, prompt in enumerate(monitor.prompts)}
        table = np.asarray(observed[monitor]["table"])  # M [n_train, n_prompts]
        agreement = np.stack([table[:, columns[case.prompt]] for case in queries])
        return Truth(
            query_ids=tuple(case.id for case in queries),
            train_ids=tuple(image.id for image in images),
            relevant=relevant,
            tables={"table": agreement},
        )

    # ------------------------------------------------------------------------------------ metrics

    def metrics(self, variant: str) -> list[Metric]:
        k = self.preset.k[variant]
        metric = {name: plugins.find("metric", name).load() for name in
                  ("recall", "precision", "average_precision", "spearman_with_table")}  # fmt: skip
        return [
            metric["recall"](k=k),
            metric["precision"](k=k),
            metric["average_precision"](),
            metric["spearman_with_table"](),
        ]

    def tuning_metric(self, variant: str) -> Metric:
        """Average precision: it moves with every place of every image, where recall at K mostly stands still."""
        return plugins.find("metric", "average_precision").load()()


def _limited(cases: list[GenerationCase], limit: int | None) -> list[GenerationCase]:
    """At most `limit` queries per variant, spread over the prompts; what methods learn from stays whole."""
    if limit is None:
        return cases
    kept: set[str] = set()
    for variant in (UN_MIXED, MIXED):
        queries = sorted((c for c in cases if c.role == "query" and c.variant == variant), key=lambda c: c.seed)
        kept |= {case.id for case in queries[:limit]}
    return [case for case in cases if case.role == "fit" or case.id in kept]
