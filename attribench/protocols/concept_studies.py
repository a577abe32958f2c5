"""Studies of several concepts each, as in MONTRAGE's tables: which concepts a model is taught, and what it generates.

MONTRAGE (Brokman et al. 2024), main text §4.3 and supplement A. One model is customized on five (or ten) concepts.
Un-mixed queries show one concept, mixed ones two. Prompts are split once per study: a method may learn from the
pictures of the first part (role "fit"); the queries come from the second, 20 % by default, which no method learns from.

Choices where the paper is silent: the un-mixed prompts are the monitoring templates and the basic prompt of
each concept, so that a held-out share exists for every concept; the share is held out within each concept,
and of all pairs for mixed prompts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt

from attribench.data import Concept, ConceptDataset, GenerationCase, Role, Split, TrainImage
from attribench.data.contents import fingerprint
from attribench.diffusion import noise
from attribench.diffusion.config import CustomizationConfig, Sampling
from attribench.errors import DatasetError, Unavailable
from attribench.protocols.protocol import Preset, Protocol, some_of
from attribench.study.plan import SharedImages, StudyPlan
from attribench.study.training import Customization

UN_MIXED, MIXED = "un-mixed", "mixed"


def _both_variants(values: dict[str, int]) -> dict[str, int]:
    if set(values) != {UN_MIXED, MIXED}:
        raise ValueError(f"give a number for {UN_MIXED} and for {MIXED}, and for nothing else")
    return values


PerVariant = Annotated[dict[str, PositiveInt], AfterValidator(_both_variants)]


class StudyPreset(Preset):
    """How the models of a study are trained and asked, whatever is measured."""

    images_per_concept: PositiveInt | None = None
    """None: all of them."""
    templates: PositiveInt | None = None
    """How many of the data set's monitoring templates; None: all."""
    method_seeds: tuple[int, ...] = Field(min_length=1)
    """Seeds of methods that draw random numbers; metrics are averaged over them."""
    customization: CustomizationConfig
    sampling: Sampling


class TaughtConcepts(Protocol):
    """A study is one model that is customized on some concepts of a split. Which, and what it is asked, the protocol says."""

    data = ConceptDataset
    preset: StudyPreset

    def base_images(self, dataset: ConceptDataset, split: Split) -> SharedImages:
        """The pictures of all concepts of the other split, with captions for prompts, sorted by id."""
        others = [concept for concept in dataset.concepts if concept.split != split]
        records = sorted((record for concept in others for record in dataset.images(concept.name)), key=lambda r: r.id)
        if not records:
            raise Unavailable(
                f"{dataset.name} has no concepts beside its {split} split to read a base model with; read the study's"
            )
        return SharedImages(
            data=fingerprint(dataset, [record.id for record in records]),
            images=tuple(TrainImage(id=r.id, prompt=r.caption, caption=r.caption, concept=r.concept) for r in records),
        )

    def study(
        self, dataset: ConceptDataset, concepts: Sequence[Concept], study_id: str, cases: Sequence[GenerationCase], *,
        model: str, split: Split, seed: int,
    ) -> StudyPlan:  # fmt: skip
        """The plan of a model that is taught these concepts, and generates these cases. `model`: its fingerprint."""
        preset, tokens = self.preset, tokens_of(concepts)
        images = [image for c in concepts for image in images_of(dataset, c, tokens[c.name], preset.images_per_concept, seed)]
        images.sort(key=lambda image: image.id)
        from_word = preset.customization.modifier_init == "class-word"
        return StudyPlan(
            id=study_id,
            dataset=dataset.name,
            edition=dataset.edition,
            split=split,
            concepts=tuple(concept.name for concept in concepts),
            training=Customization(
                model=model,
                data=fingerprint(dataset, [image.id for image in images]),
                images=tuple(images),
                modifiers=tuple((tokens[c.name], c.class_word if from_word else None) for c in concepts),
                customization=preset.customization,
                seed=noise.seed_of("study", study_id, seed),
            ),
            cases=tuple(cases),
            sampling=preset.sampling,
        )


class ConceptStudiesPreset(StudyPreset):
    n_concepts: int = Field(5, ge=2)
    n_studies: PositiveInt | dict[str, dict[str, PositiveInt]]
    """A number, or per data set and number of concepts, as the paper counts its tables."""
    held_out: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts that queries come from."""
    fit_pictures: PositiveInt = 5
    """Pictures per prompt that methods may learn from."""
    query_pictures: PerVariant
    """Pictures per held-out prompt, by variant."""


class ConceptStudies(TaughtConcepts):
    """Plans the studies; what is measured on them is up to the protocol."""

    preset: ConceptStudiesPreset

    def plans(self, dataset: ConceptDataset, *, model: str, split: Split, seed: int, limit: int | None) -> list[StudyPlan]:
        n, concepts = self.preset.n_concepts, concepts_of(dataset, split)
        if len(concepts) < n:
            raise DatasetError(
                f"{dataset.name} has {len(concepts)} concepts in its {split} split, a study needs {n}; "
                f"lower {self.name}.n_concepts or give more data"
            )
        # When the concepts run out, a fresh permutation starts the next round.
        rounds = (disjoint_groups(concepts, n, "studies", dataset.name, seed, number) for number in itertools.count())
        groups = itertools.islice(itertools.chain.from_iterable(rounds), self.n_studies(dataset.name))
        plans = []
        for number, group in enumerate(groups):
            study_id = f"{dataset.name}-{split}-{n}c-{number:02d}"
            cases = limited(self._cases(dataset, group, study_id, seed), limit)
            plans.append(self.study(dataset, group, study_id, cases, model=model, split=split, seed=seed))
        return plans

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
                f"give --param {self.name}.n_studies=N"
            ) from error

    def _cases(self, dataset: ConceptDataset, concepts: list[Concept], study_id: str, seed: int) -> list[GenerationCase]:
        tokens = tokens_of(concepts)
        templates = (*dataset.monitoring_templates[: self.preset.templates], dataset.basic_template)
        pairs = list(itertools.combinations(concepts, 2))
        asked: list[tuple[str, tuple[Concept, ...], str, bool]] = []
        for concept in concepts:
            held_out = self._held_out(len(templates), "prompts", study_id, concept.name, seed)
            asked += [(template, (concept,), UN_MIXED, i in held_out) for i, template in enumerate(templates)]
        held_out = self._held_out(len(pairs), "pairs", study_id, seed)
        asked += [(dataset.mixed_template, pair, MIXED, i in held_out) for i, pair in enumerate(pairs)]
        return [
            case_of(template, shown, tokens, variant=variant, role="query" if is_query else "fit", seed=number)
            for template, shown, variant, is_query in asked
            for number in range(self.preset.query_pictures[variant] if is_query else self.preset.fit_pictures)
        ]

    def _held_out(self, n: int, *key: str | int) -> set[int]:
        count = max(1, min(round(self.preset.held_out * n), n - 1))
        return set(noise.draws("held out", *key).permutation(n)[:count].tolist())


def concepts_of(dataset: ConceptDataset, split: Split) -> list[Concept]:
    """By name."""
    return sorted((c for c in dataset.concepts if c.split == split), key=lambda concept: concept.name)


def disjoint_groups(concepts: Sequence[Concept], size: int, *key: str | int) -> list[list[Concept]]:
    """All whole groups of concepts in a random order that the key gives; within a group they are by name."""
    order = noise.draws(*key).permutation(len(concepts))
    starts = range(0, len(concepts) - size + 1, size)
    return [sorted((concepts[i] for i in order[start : start + size]), key=lambda concept: concept.name) for start in starts]


def tokens_of(concepts: Sequence[Concept]) -> dict[str, str]:
    """The modifier token of each concept of a study, by name: <new1>, <new2>, …"""
    return {concept.name: f"<new{i}>" for i, concept in enumerate(concepts, start=1)}


def images_of(dataset: ConceptDataset, concept: Concept, token: str, wanted: int | None, seed: int) -> list[TrainImage]:
    """A concept's training images, sorted by id; `wanted` of them drawn by seed, or all."""
    records = sorted(dataset.images(concept.name), key=lambda record: record.id)
    prompt = concept.prompt.format(modifier=token)
    return [
        TrainImage(id=r.id, prompt=prompt, caption=r.caption, concept=concept.name)
        for r in some_of(records, wanted, "images", concept.name, seed)
    ]


def case_of(
    template: str, concepts: Sequence[Concept], tokens: Mapping[str, str], *, variant: str, role: Role, seed: int,
    monitored: bool = False,
) -> GenerationCase:  # fmt: skip
    """A picture of one concept, or of two, by the prompt that the template makes of them."""
    names = ["concept"] if len(concepts) == 1 else ["concept1", "concept2"]
    phrases = [concept.phrase.format(modifier=tokens[concept.name]) for concept in concepts]
    words = [concept.class_word for concept in concepts]
    prompt = template.format(**dict(zip(names, phrases, strict=True)))
    return GenerationCase(
        id=f"{variant}/{prompt}/{seed}",
        prompt=prompt,
        plain_prompt=template.format(**dict(zip(names, words, strict=True))),
        seed=seed,
        concepts=tuple(concept.name for concept in concepts),
        modifiers=tuple(tokens[concept.name] for concept in concepts),
        variant=variant,
        role=role,
        monitored=monitored,
    )


def limited(cases: Sequence[GenerationCase], limit: int | None) -> list[GenerationCase]:
    """At most `limit` queries per variant, spread over the prompts; what methods learn from stays whole."""
    kept: set[str] = set()
    for variant in dict.fromkeys(case.variant for case in cases):
        queries = sorted((c for c in cases if c.role == "query" and c.variant == variant), key=lambda c: c.seed)
        kept |= {case.id for case in queries[:limit]}
    return [case for case in cases if case.role == "fit" or case.id in kept]
