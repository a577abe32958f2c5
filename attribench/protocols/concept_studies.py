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

from attribench.data import Concept, ConceptDataset, GenerationCase, Split, TrainImage
from attribench.data.contents import fingerprint
from attribench.diffusion import noise
from attribench.diffusion.config import CustomizationConfig, Sampling
from attribench.errors import DatasetError, Unavailable
from attribench.protocols.protocol import Preset, Protocol
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


class ConceptStudiesPreset(StudyPreset):
    """What the TOML files of these protocols hold."""

    n_concepts: int = Field(5, ge=2)
    n_studies: PositiveInt | dict[str, dict[str, PositiveInt]]
    """A number, or per data set and number of concepts, as the paper counts its tables."""
    held_out: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts that queries come from."""
    fit_pictures: PositiveInt = 5
    """Pictures per prompt that methods may learn from."""
    query_pictures: PerVariant
    """Pictures per held-out prompt, by variant."""


class ConceptStudies(Protocol):
    """Plans the studies; what is measured on them is up to the protocol."""

    data = ConceptDataset
    preset: ConceptStudiesPreset

    # -------------------------------------------------------------------------------------- plans

    def plans(self, dataset: ConceptDataset, *, model: str, split: Split, seed: int, limit: int | None) -> list[StudyPlan]:
        preset = self.preset
        concepts = sorted((c for c in dataset.concepts if c.split == split), key=lambda concept: concept.name)
        if len(concepts) < preset.n_concepts:
            raise DatasetError(
                f"{dataset.name} has {len(concepts)} concepts in its {split} split, a study needs {preset.n_concepts}; "
                f"lower {self.name}.n_concepts or give more data"
            )
        return [
            self._plan(dataset, members, number, model, split, seed, limit)
            for number, members in enumerate(self._groups(dataset, concepts, seed))
        ]

    def base_images(self, dataset: ConceptDataset, split: Split) -> SharedImages:
        """The pictures of all concepts of the other split, each with its caption."""
        return other_concepts(dataset, split)

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

    def _groups(self, dataset: ConceptDataset, concepts: list[Concept], seed: int) -> list[list[Concept]]:
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
        self, dataset: ConceptDataset, concepts: list[Concept], number: int, model: str, split: Split, seed: int,
        limit: int | None,
    ) -> StudyPlan:  # fmt: skip
        study_id = f"{dataset.name}-{split}-{self.preset.n_concepts}c-{number:02d}"
        cases = self._cases(dataset, concepts, tokens_of(concepts), study_id, seed, limit)
        return study_plan(dataset, concepts, study_id, cases, self.preset, model=model, split=split, seed=seed)

    # -------------------------------------------------------------------------------------- cases

    def _cases(
        self, dataset: ConceptDataset, concepts: list[Concept], tokens: Mapping[str, str], study_id: str, seed: int,
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


def tokens_of(concepts: Sequence[Concept]) -> dict[str, str]:
    """The modifier token of each concept of a study, by name: <new1>, <new2>, …"""
    return {concept.name: f"<new{i}>" for i, concept in enumerate(concepts, start=1)}


def images_of(dataset: ConceptDataset, concept: Concept, token: str, wanted: int | None, seed: int) -> list[TrainImage]:
    """A concept's training images, sorted by id; `wanted` of them drawn by seed, or all."""
    records = sorted(dataset.images(concept.name), key=lambda record: record.id)
    if wanted is not None and len(records) > wanted:
        chosen = noise.draws("images", concept.name, seed).permutation(len(records))[:wanted]
        records = [records[i] for i in sorted(chosen)]
    prompt = concept.prompt.format(modifier=token)
    return [TrainImage(id=r.id, prompt=prompt, caption=r.caption, concept=concept.name) for r in records]


def other_concepts(dataset: ConceptDataset, split: Split) -> SharedImages:
    """The pictures of the concepts that no study of `split` is about, with captions for prompts, sorted by id."""
    others = [concept for concept in dataset.concepts if concept.split != split]
    records = sorted((record for concept in others for record in dataset.images(concept.name)), key=lambda record: record.id)
    if not records:
        raise Unavailable(f"{dataset.name} has no concepts beside its {split} split to read a base model with; read the study's")
    return SharedImages(
        data=fingerprint(dataset, [record.id for record in records]),
        images=tuple(TrainImage(id=r.id, prompt=r.caption, caption=r.caption, concept=r.concept) for r in records),
    )


def study_plan(
    dataset: ConceptDataset, concepts: Sequence[Concept], study_id: str, cases: Sequence[GenerationCase], preset: StudyPreset, *,
    model: str, split: Split, seed: int,
) -> StudyPlan:  # fmt: skip
    """The plan of a model that is taught these concepts, and generates these cases. `model`: its fingerprint."""
    tokens, wanted = tokens_of(concepts), preset.images_per_concept
    images = [image for concept in concepts for image in images_of(dataset, concept, tokens[concept.name], wanted, seed)]
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


def _limited(cases: list[GenerationCase], limit: int | None) -> list[GenerationCase]:
    """At most `limit` queries per variant, spread over the prompts; what methods learn from stays whole."""
    if limit is None:
        return cases
    kept: set[str] = set()
    for variant in (UN_MIXED, MIXED):
        queries = sorted((c for c in cases if c.role == "query" and c.variant == variant), key=lambda c: c.seed)
        kept |= {case.id for case in queries[:limit]}
    return [case for case in cases if case.role == "fit" or case.id in kept]
