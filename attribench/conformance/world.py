"""The small real study that methods are checked on.

    two concepts of a mini edition, three pictures each ──► the tiny model, customized briefly
                                                                  │
        pictures to learn from, queries (un-mixed, mixed) ◄───────┘
        and planted queries: each training picture once more, with its prompt, its caption, its id and its latents

Made by the ordinary steps and kept in the store. A planted query has the id of its training image, so that noise that
belongs to the sample is the same for both; for methods that ask how a query was sampled, the model's guess of the clean
latents was right from the first step on.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from attribench import plugins
from attribench.attribution.granted import Materials
from attribench.attribution.reading import MODELS, Reader
from attribench.conformance.renumbered import Renumbered
from attribench.data import ConceptDataset, Dataset, GenerationCase, Queries
from attribench.data.contents import fingerprint as fingerprint_of_images
from attribench.diffusion.fingerprint import fingerprint
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.observing import TrainingObserver
from attribench.editions import open_dataset
from attribench.engine.run import execute
from attribench.engine.steps import Ref, Step, StepContext
from attribench.engine.store import ArtifactStore
from attribench.errors import MethodError, UsageError
from attribench.interface import Access, AttributionMethod
from attribench.protocols.between_concepts import BetweenConcepts
from attribench.run.places import default_store, tiny_model
from attribench.study.ensemble import member_inputs, members, train_steps
from attribench.study.generated import TIMESTEPS, estimates_name, generated, picture_name
from attribench.study.plan import SharedImages, StudyPlan
from attribench.study.steps import generate_step, observation_name

SIZE = {
    "n_concepts": 2, "n_studies": 1, "images_per_concept": 3, "templates": 2, "fit_pictures": 1,
    "query_pictures.un-mixed": 1, "query_pictures.mixed": 1, "customization.epochs": 8, "customization.batch_size": 2,
    "sampling.steps": 4, "sampling.batch_size": 4,
}  # fmt: skip
BASE_IMAGES = 8
"""That features of the base model are read from."""
PLANTED = "planted"


@dataclass(frozen=True)
class World:
    """The study's plan with all its cases, planted ones last, and where its parts are."""

    plan: StudyPlan
    dataset: Dataset
    model: str
    store: ArtifactStore

    @classmethod
    def open(cls, store: Path | None = None, *, model: str | Path | None = None, dataset: Dataset | None = None) -> World:
        """The world in a store (the user's own by default), of the tiny model and the first mini edition by default."""
        model, dataset = str(model or tiny_model()), dataset or _first_mini_edition()
        protocol = BetweenConcepts.with_preset("mini", SIZE)
        (plan,) = protocol.plans(dataset, model=fingerprint(model), split="test", seed=0, limit=None)
        base = protocol.base_images(dataset, "test")
        few = base.images[:: max(1, len(base.images) // BASE_IMAGES)][:BASE_IMAGES]
        plan = replace(
            plan,
            id=f"conformance-{dataset.name}",
            edition="mini",
            cases=(*plan.cases, *_planted_cases(plan)),
            base=SharedImages(data=fingerprint_of_images(dataset, [image.id for image in few]), images=few),
        )
        return cls(plan, dataset, model, ArtifactStore(store or default_store()))

    @property
    def order(self) -> tuple[int, ...]:
        """A permutation of the training images that moves each and parts those of a concept."""
        n = len(self.plan.training.images)
        return (*range(2, n), 0, 1)

    def stage(self, method: AttributionMethod) -> Stage:
        """The world made ready for a method: trained, watched by its observers, generated.

        Raises MethodError, naming the method, for one that cannot be watched.
        """
        bindings: dict[str, Any] = {"model": self.model, "dataset": self.dataset}
        readers: list[Reader] = [method, *method.features()]
        observers = tuple(method.observers(self.plan.prompts)) if Access.TRAINING in method.needs else ()
        watching = [*observers, *(Renumbered(observer=observer, order=self.order) for observer in observers)]
        trainings = train_steps(self.plan, [reader.ensemble() for reader in readers], watching, bindings)
        own = replace(self.plan, cases=tuple(case for case in self.plan.cases if case.variant != PLANTED))
        pictures = generate_step(own, trainings[0], bindings, trajectory=True)
        planted = Step(
            name="plant",
            label=self.plan.id,
            function=plant,
            params={"training": self.plan.training, "cases": self.plan.cases, "generated": len(own.cases)},
            inputs={name: Ref(pictures, name) for name in ("pictures", "trajectory")},
            outputs={"pictures": None, "trajectory": None},
            bindings=bindings,
        )
        for outcome in execute([*trainings, planted], self.store, workers=0).values():
            if not outcome.ok:
                raise outcome.error or MethodError(outcome.reason)
        return Stage(self, trainings, planted, observers)


@dataclass(frozen=True)
class Stage:
    """The world as one method needs it, whole on disk."""

    world: World
    trainings: tuple[Step, ...]
    planted: Step
    observers: tuple[TrainingObserver, ...]

    @property
    def plan(self) -> StudyPlan:
        return self.world.plan

    @property
    def planted_queries(self) -> tuple[GenerationCase, ...]:
        """Query i is training image i once more."""
        return tuple(case for case in self.plan.cases if case.variant == PLANTED)

    @property
    def queries(self) -> tuple[GenerationCase, ...]:
        """Those that the model made."""
        return tuple(case for case in self.plan.roles("query") if case.variant != PLANTED)

    def pictures_of(self, cases: Sequence[GenerationCase]) -> Queries:
        """Some queries, in this order."""
        every = generated(self.plan, self._folder(self.planted["pictures"]), "query")
        return Queries(cases, lambda case_id: every[every.ids.index(case_id)])

    def materials(self, reader: Reader, order: Sequence[int] | None) -> Materials:
        """What a reader's access covers, with the training images as they stand or in another order."""
        plan, needs, ensemble = self.plan, reader.needs, reader.ensemble()
        watches = Access.TRAINING in needs
        if order is not None:
            images = tuple(plan.training.images[row] for row in order)
            plan = replace(plan, training=replace(plan.training, images=images))
        inputs = member_inputs(ensemble, self.trainings)
        return Materials(
            plan=plan,
            dataset=self.world.dataset,
            base_model=self.world.model,
            ensemble=ensemble,
            members=members(ensemble, lambda name: self._folder(inputs[name])) if needs & MODELS else (),
            generations=self._folder(self.planted["pictures"]) if watches else None,
            observations={o: self._observation(o, order) for o in self.observers} if watches else {},
            trajectory=self._folder(self.planted["trajectory"]) if Access.TRAJECTORY in needs else None,
        )

    def _observation(self, observer: TrainingObserver, order: Sequence[int] | None) -> Path:
        seen = observer if order is None else Renumbered(observer=observer, order=tuple(order))
        return self._folder(self.trainings[0][observation_name(seen)])

    def _folder(self, ref: Ref) -> Path:
        return self.world.store.path(ref.key)


def plant(ctx: StepContext) -> None:
    """The pictures and trajectories of the generated cases, and behind them those of the planted ones."""
    n, cases, dataset = ctx.params["generated"], ctx.params["cases"], ctx.bindings["dataset"]
    model = DiffusionModel.load(ctx.bindings["model"], ctx.device)
    names = {"pictures": picture_name, "trajectory": estimates_name}
    for output, name in names.items():
        for number in range(n):
            shutil.copyfile(ctx.input(output) / name(number), ctx.out(output) / name(number))
    shutil.copyfile(ctx.input("trajectory") / TIMESTEPS, ctx.out("trajectory") / TIMESTEPS)
    steps = len(np.load(ctx.input("trajectory") / TIMESTEPS, allow_pickle=False))
    for number, case in enumerate(cases[n:], n):
        picture = dataset.load(case.id)
        picture.save(ctx.out("pictures") / picture_name(number), format="PNG")
        clean = model.latent_moments(model.pixels([picture]))[0][0].cpu().numpy()
        np.save(ctx.out("trajectory") / estimates_name(number), np.repeat(clean[None], steps, axis=0), allow_pickle=False)


def _planted_cases(plan: StudyPlan) -> list[GenerationCase]:
    tokens = [token for token, _ in plan.training.modifiers]
    return [
        GenerationCase(
            id=image.id,
            prompt=image.prompt,
            plain_prompt=image.caption,
            seed=0,
            concepts=(image.concept,),
            modifiers=tuple(token for token in tokens if token in image.prompt),
            variant=PLANTED,
            role="query",
        )
        for image in plan.training.images
    ]


def _first_mini_edition() -> ConceptDataset:
    """Of the data sets that show concepts, the first one that ships with the package."""
    for _, plugin in sorted(plugins.all_plugins("dataset").items()):
        if plugin.built_in and issubclass(plugin.load(), ConceptDataset):
            return open_dataset(plugin, "mini")
    raise UsageError("no mini edition that shows concepts is installed; install attribench-diffusion again")
