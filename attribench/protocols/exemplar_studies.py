"""Studies of one customized model each, whose exemplars lie in a pool with many pictures that it was not customized on.

The Customized Model Benchmark (Wang et al., ICCV 2023). The pool is the distractors, the same for all studies, and the
model's own exemplars. Where training is needed the base model is customized on the exemplars anew, by the preset: published
models are not read. It generates the pictures that methods may learn from and are tuned on, by prompts of the preset's own.
What is asked for is up to the protocol.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from attribench.data import MODIFIER, ExemplarDataset, ExemplarModel, ExemplarSplit, GenerationCase, Role, Split, TrainImage
from attribench.data.contents import fingerprint
from attribench.diffusion import noise
from attribench.diffusion.config import CustomizationConfig, Sampling
from attribench.errors import DatasetError, Unavailable
from attribench.measurement import Metric
from attribench.protocols.protocol import Preset, Protocol, metric, some_of
from attribench.study.plan import Pool, SharedImages, StudyPlan
from attribench.study.training import Customization

MODELS: dict[Split, ExemplarSplit] = {"dev": "val", "test": "test"}
"""Which list of models a split means; those of the list "train" are for learning heads."""


class ExemplarStudiesPreset(Preset):
    cases: tuple[str, ...] | None = None
    """Lists that models are taken from ("artchive"); None: all."""
    models_per_case: PositiveInt | None = None
    """Drawn by seed; None: all."""
    distractors: NonNegativeInt | None = None
    """Drawn by seed, the same for all models; None: all."""
    ks: tuple[PositiveInt, ...] = (5, 10, 100)
    """K of recall@K."""
    method_seeds: tuple[int, ...] = Field(min_length=1)
    """Seeds of methods that draw random numbers; metrics are averaged over them."""
    object_templates: tuple[str, ...] = Field(min_length=1)
    """Prompts with {concept} of the pictures that methods may learn from, for models of an object."""
    style_templates: tuple[str, ...] = Field(min_length=1)
    """The same for models of a style."""
    fit_pictures: PositiveInt = 1
    """Pictures per such prompt."""
    customization: CustomizationConfig
    sampling: Sampling


class ExemplarStudies(Protocol):
    """Plans the studies; what is asked is up to the protocol."""

    data = ExemplarDataset
    preset: ExemplarStudiesPreset

    @abstractmethod
    def queries(
        self, dataset: ExemplarDataset, model: ExemplarModel, shared: SharedImages, limit: int | None, seed: int
    ) -> tuple[list[GenerationCase], Mapping[str, Any]]:
        """The queries of a study, and the fields of `StudyPlan` that say where their pictures come from."""

    def plans(self, dataset: ExemplarDataset, *, model: str, split: Split, seed: int, limit: int | None) -> list[StudyPlan]:
        preset, shared, plans = self.preset, self._distractors(dataset, seed), []
        for of in self._models(dataset, split, seed):
            exemplars = tuple(
                TrainImage(id=image.id, prompt=of.prompt, caption=image.caption, concept=of.id) for image in of.exemplars
            )
            data = fingerprint(dataset, [image.id for image in exemplars])
            queries, made_by = self.queries(dataset, of, shared, limit, seed)
            pool = sorted((*exemplars, *shared.images), key=lambda image: noise.seed_of("pool", image.id))
            word = of.class_word if preset.customization.modifier_init == "class-word" else None
            plans.append(
                StudyPlan(
                    id=f"{dataset.name}-{split}-{of.id.replace('/', '-')}",
                    dataset=dataset.name,
                    edition=dataset.edition,
                    split=split,
                    concepts=(of.id,),
                    training=Customization(
                        model=model,
                        data=data,
                        images=exemplars,
                        modifiers=((MODIFIER, word),),
                        customization=preset.customization,
                        seed=customization_seed(of.id, seed),
                    ),
                    cases=(*queries, *self._to_learn_from(of)),
                    sampling=preset.sampling,
                    pool=Pool(data=f"{data} {shared.data}", images=tuple(pool), shared=shared if shared.images else None),
                    **made_by,
                )
            )
        return plans

    def base_images(self, dataset: ExemplarDataset, split: Split) -> SharedImages:
        """The distractors: as in the unlearning paper, the Fisher is that of the base model over them (appendix B.2)."""
        shared = self._distractors(dataset, 0)
        if not shared.images:
            raise Unavailable(f"{dataset.name} has no distractors to read a base model with; read the study's own pictures")
        return shared

    def _models(self, dataset: ExemplarDataset, split: Split, seed: int) -> list[ExemplarModel]:
        found = dataset.models(MODELS[split])
        known = dict.fromkeys(model.case for model in found)
        wanted = known if self.preset.cases is None else self.preset.cases
        if not known:
            raise DatasetError(f"{dataset.name} has no {MODELS[split]} models, which a {split} split is made of; take the other")
        chosen = []
        for case in wanted:
            of_case = [model for model in found if model.case == case]
            if not of_case:
                there = ", ".join(known) or "none at all"
                raise DatasetError(f"{dataset.name} has no {MODELS[split]} models of the case {case!r}; it has {there}")
            chosen += some_of(of_case, self.preset.models_per_case, "exemplar models", dataset.name, case, seed)
        return chosen

    def _distractors(self, dataset: ExemplarDataset, seed: int) -> SharedImages:
        """Sorted by id. Nothing was trained on them, so their captions stand for prompts."""
        images = some_of(dataset.distractors, self.preset.distractors, "distractors", dataset.name, seed)
        return SharedImages(
            data=fingerprint(dataset, [image.id for image in images]),
            images=tuple(TrainImage(id=image.id, prompt=image.caption, caption=image.caption, concept="") for image in images),
        )

    def _to_learn_from(self, model: ExemplarModel) -> list[GenerationCase]:
        """The pictures that methods may learn from, and are tuned on."""
        templates = self.preset.style_templates if model.category is None else self.preset.object_templates
        prompts = [template.replace("{concept}", f"{MODIFIER} {model.class_word}") for template in templates]
        return [
            GenerationCase(
                id=f"to learn from/{prompt}/{seed}",
                prompt=prompt,
                plain_prompt=without_modifier(prompt),
                seed=seed,
                concepts=(model.id,),
                modifiers=(MODIFIER,),
                variant="to learn from",
                role="fit",
            )
            for prompt in prompts
            for seed in range(self.preset.fit_pictures)
        ]

    def relevant(self, plan: StudyPlan, role: Role = "query") -> np.ndarray:
        """[n_query, n_pool] bool: the exemplars, whichever the query."""
        exemplars = {image.id for image in plan.training.images}
        return np.tile([image.id in exemplars for image in plan.rows], (len(plan.roles(role)), 1))

    def metrics(self, variant: str) -> list[Metric]:
        return [metric("average_precision"), *(metric("recall", k=k) for k in self.preset.ks)]


def customization_seed(model_id: str, seed: int) -> int:
    """Of the training of the model that is customized on the exemplars of this one."""
    return noise.seed_of("exemplars", model_id, seed)


def without_modifier(prompt: str) -> str:
    """A prompt with V* left out: "a drawing of <new1> bird" -> "a drawing of bird"."""
    return " ".join(prompt.replace(MODIFIER, " ").split())
