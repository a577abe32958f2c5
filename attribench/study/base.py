"""Features of the base model: a step that no study enters, so that all studies of one base share what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from attribench.data import Dataset
from attribench.engine.steps import Step, StepContext
from attribench.errors import AccessError, MethodError
from attribench.interface import Edition, Features, Queries, Study, TrainingImages, TrainingObserver, Trajectory
from attribench.study.plan import BaseImages

if TYPE_CHECKING:
    from attribench.diffusion.model import DiffusionModel
    from attribench.study.runs import StudySteps


class BaseStudy(Study):
    """The base model itself, with pictures that stand for what it knows: what `Features.of_base` reads."""

    id, seed, flips = "base", 0, False

    def __init__(self, base_model: str, images: BaseImages, dataset: Dataset, edition: Edition, device: str, reader: str) -> None:
        self.edition, self.device, self._base_model, self._reader = edition, device, base_model, reader
        self.train = TrainingImages(images.images, dataset.load)

    @cached_property
    def model(self) -> DiffusionModel:
        """The base model."""
        from attribench.diffusion.model import DiffusionModel

        return DiffusionModel.load(self._base_model, self.device)

    @property
    def models(self) -> Iterable[DiffusionModel]:
        """The base model alone."""
        return iter([self.model])

    @property
    def prompts(self) -> tuple[str, ...]:
        self._refuse("prompts of generations")

    @property
    def generations(self) -> Queries:
        self._refuse("generations")

    def features(self, features: Features, queries: Queries | None = None) -> Mapping[str, np.ndarray]:
        self._refuse("further features")

    def trajectory(self, query_id: str) -> Trajectory:
        self._refuse("samplings")

    def observation(self, observer: TrainingObserver) -> Mapping[str, np.ndarray]:
        self._refuse("observed training")

    def _refuse(self, what: str) -> NoReturn:
        raise AccessError(f"{self._reader} reads the base model, which has no {what}; read them of a study")


def base_step(study: StudySteps, features: Features, name: str, estimate: Mapping[str, float]) -> Step:
    """Read features of the base model. Nothing of the study enters its key but what all studies of a base share."""
    plan = study.plan
    if plan.base is None:
        raise MethodError(f"{name} reads the base model, and the plan of {plan.id} names no pictures for that")
    if features.ensemble().n_models > 1:
        raise MethodError(f"{name} reads the base model, which is no ensemble; mend the plugin")
    return Step(
        name=f"read {name}",
        label="for all studies",
        function=read_base,
        params={
            "features": features,
            "assets": features.assets(),
            "edition": plan.edition,
            "model": plan.training.model,
            "data": plan.base.data,
            "images": plan.base.images,
        },
        inputs={},
        outputs={"state": None},
        bindings={key: study.bindings[key] for key in ("model", "dataset")} | {"base": plan.base, "reader": name},
        version=features.version,
        estimate=estimate,
        gpu=True,
    )


def read_base(ctx: StepContext) -> None:
    """`features.of_training` of the base model, timed."""
    from attribench.study.attribution import keep_features

    bindings, features = ctx.bindings, ctx.params["features"]
    study = BaseStudy(
        bindings["model"], bindings["base"], bindings["dataset"], ctx.params["edition"], ctx.device, bindings["reader"]
    )
    keep_features(ctx, features, lambda state: features.of_training(study, state))
