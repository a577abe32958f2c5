"""Exemplar retrieval: does a method find the pictures that a model was customized on, among many that it was not?

Wang et al., "Evaluating data attribution for text-to-image models", ICCV 2023 (AbC, the Customized Model Benchmark); used
by attribution by unlearning (§5.2, appendix C.2) and by MONTRAGE (supplement B.3). A model was customized on known
exemplars, and a query is a picture that it made. The pool is the distractors and that model's exemplars, of which only
the latter are relevant:

    recall@K = exemplars among the K with the highest scores / exemplars
    AP       = mean over exemplars i of ( i / place of the i-th exemplar found )              mAP: its mean over queries

A study is one customized model, so intervals are clustered by model. Queries are told apart by the family of prompts that
they were made with, and by the prompt that a method is told: with V* in it, as the model got it, or without (appendix C.2
of unlearning). The picture is the same, so that this matters to methods that read the prompt alone.

Pictures are given, so nothing has to be trained for methods that look at pictures and captions alone. For the others the
base model is customized on the exemplars anew, by the preset: the published models are not read. It also generates the
pictures that such methods learn from and are tuned on, by prompts of the preset's own. A recall@K of 1 is out of reach
for a model with more than K exemplars; the table's line "best possible" says what could be reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from attribench import plugins
from attribench.data import MODIFIER, ExemplarDataset, ExemplarModel, ExemplarSplit
from attribench.diffusion import noise
from attribench.diffusion.config import CustomizationConfig, Sampling
from attribench.editions import fingerprint
from attribench.errors import DatasetError, Unavailable
from attribench.interface import GenerationCase, Role, Split, TrainImage
from attribench.measurement import Metric
from attribench.protocols.protocol import Preset, Protocol
from attribench.study.plan import GivenPictures, Pool, SharedImages, StudyPlan
from attribench.study.training import Customization

MODELS: dict[Split, ExemplarSplit] = {"dev": "val", "test": "test"}
"""Which list of models a split means; those of the list "train" are for learning heads."""


class ExemplarRetrievalPreset(Preset):
    """What the TOML files hold."""

    cases: tuple[str, ...] | None = None
    """Lists that models are taken from ("artchive"); None: all."""
    models_per_case: PositiveInt | None = None
    """Drawn by seed; None: all."""
    pictures: PositiveInt | None = None
    """Queries per model and family of prompts, evenly spread over the list; None: all."""
    told: tuple[Literal["with V*", "without V*"], ...] = Field(("with V*", "without V*"), min_length=1)
    """The prompts that methods are told: as the model got it, and with V* left out."""
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


class ExemplarRetrieval(Protocol):
    """Exemplar retrieval: are a customized model's exemplars found among distractors? (Wang et al., ICCV 2023)"""

    name = "exemplar-retrieval"
    data = ExemplarDataset
    preset_type = ExemplarRetrievalPreset
    preset: ExemplarRetrievalPreset

    # -------------------------------------------------------------------------------------- plans

    def plans(self, dataset: ExemplarDataset, *, model: str, split: Split, seed: int, limit: int | None) -> list[StudyPlan]:
        distractors = self._distractors(dataset, seed)
        shared = SharedImages(data=fingerprint(dataset, [image.id for image in distractors]), images=distractors)
        return [self._plan(dataset, of, shared, model, split, seed, limit) for of in self._models(dataset, split, seed)]

    def notices(self, dataset: ExemplarDataset, split: Split) -> tuple[str, ...]:
        """How many prompts are not known."""
        models = dataset.models(MODELS[split])
        prompts = [picture.prompt for model in models for made in model.pictures.values() for picture in made]
        unknown = prompts.count(None)
        if not unknown:
            return ()
        return (
            f"the prompts of {unknown} of {len(prompts)} pictures are not known: methods are told their models' training prompts",
        )

    def base_images(self, dataset: ExemplarDataset, split: Split) -> SharedImages:
        """The distractors: as in the unlearning paper, the Fisher is that of the base model over them (appendix B.2)."""
        images = self._distractors(dataset, 0)
        if not images:
            raise Unavailable(f"{dataset.name} has no distractors to read a base model with; read the study's own pictures")
        return SharedImages(data=fingerprint(dataset, [image.id for image in images]), images=images)

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
            count = min(len(of_case), self.preset.models_per_case or len(of_case))
            order = noise.draws("exemplar models", dataset.name, case, seed).permutation(len(of_case))[:count]
            chosen += [of_case[i] for i in sorted(order)]
        return chosen

    def _distractors(self, dataset: ExemplarDataset, seed: int) -> tuple[TrainImage, ...]:
        """Sorted by id. Nothing was trained on them, so their captions stand for prompts."""
        images, wanted = dataset.distractors, self.preset.distractors
        if wanted is not None and len(images) > wanted:
            order = noise.draws("distractors", dataset.name, seed).permutation(len(images))[:wanted]
            images = [images[i] for i in sorted(order)]
        return tuple(TrainImage(id=image.id, prompt=image.caption, caption=image.caption, concept="") for image in images)

    def _plan(
        self, dataset: ExemplarDataset, model: ExemplarModel, shared: SharedImages, base: str, split: Split, seed: int,
        limit: int | None,
    ) -> StudyPlan:  # fmt: skip
        exemplars = tuple(
            TrainImage(id=image.id, prompt=model.prompt, caption=image.caption, concept=model.id) for image in model.exemplars
        )
        data = fingerprint(dataset, [image.id for image in exemplars])
        queries, pictures = self._queries(model, limit)
        pool = sorted((*exemplars, *shared.images), key=lambda image: noise.seed_of("pool", image.id))
        word = model.class_word if self.preset.customization.modifier_init == "class-word" else None
        return StudyPlan(
            id=f"{dataset.name}-{split}-{model.id.replace('/', '-')}",
            dataset=dataset.name,
            edition=dataset.edition,
            split=split,
            concepts=(model.id,),
            training=Customization(
                model=base,
                data=data,
                images=exemplars,
                modifiers=((MODIFIER, word),),
                customization=self.preset.customization,
                seed=customization_seed(model.id, seed),
            ),
            cases=(*queries, *self._to_learn_from(model)),
            sampling=self.preset.sampling,
            pool=Pool(data=f"{data} {shared.data}", images=tuple(pool), shared=shared if shared.images else None),
            given=GivenPictures(data=fingerprint(dataset, pictures.values()), pictures=tuple(pictures.items())),
        )

    # -------------------------------------------------------------------------------------- cases

    def _queries(self, model: ExemplarModel, limit: int | None) -> tuple[list[GenerationCase], dict[str, str]]:
        """The queries of a model, and the picture of each by its id."""
        cases, pictures = [], {}
        for family, made in model.pictures.items():
            for told in self.preset.told:
                for picture in _spread(made, min(len(made), self.preset.pictures or len(made), limit or len(made))):
                    prompt = picture.prompt or model.prompt
                    variant, has = f"{family}, {told}", told == "with V*" and MODIFIER in prompt
                    case_id = f"{variant}/{picture.id}"
                    pictures[case_id] = picture.id
                    cases.append(
                        GenerationCase(
                            id=case_id,
                            prompt=prompt if has else without_modifier(prompt),
                            plain_prompt=without_modifier(prompt),
                            seed=0,
                            concepts=(model.id,),
                            modifiers=(MODIFIER,) if has else (),
                            variant=variant,
                            role="query",
                        )
                    )
        return cases, pictures

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

    # -------------------------------------------------------------------------------------- truth

    def relevant(self, plan: StudyPlan, role: Role = "query") -> np.ndarray:
        """[n_query, n_pool] bool: the exemplars, whichever the query."""
        exemplars = {image.id for image in plan.training.images}
        return np.tile([image.id in exemplars for image in plan.rows], (len(plan.roles(role)), 1))

    # ------------------------------------------------------------------------------------ metrics

    def metrics(self, variant: str) -> list[Metric]:
        recall, precision = (plugins.find("metric", name).load() for name in ("recall", "average_precision"))
        return [precision(), *(recall(k=k) for k in self.preset.ks)]


def customization_seed(model_id: str, seed: int) -> int:
    """Of the training of the model that is customized on the exemplars of this one."""
    return noise.seed_of("exemplars", model_id, seed)


def without_modifier(prompt: str) -> str:
    """A prompt with V* left out: "a drawing of <new1> bird" -> "a drawing of bird"."""
    return " ".join(prompt.replace(MODIFIER, " ").split())


def _spread(items: Sequence, count: int) -> list:
    """`count` of the items, evenly spread."""
    return [items[i * len(items) // count] for i in range(count)]
