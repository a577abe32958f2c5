"""Steps that no study enters, so that all studies share what they read: of the base model, and of pictures in every pool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from attribench.attribution.reading import CHEAP, keep_state, reader_name
from attribench.data import Dataset, Edition, Queries, TrainingImages, Trajectory
from attribench.diffusion.observing import TrainingObserver
from attribench.engine.steps import Step, StepContext
from attribench.errors import AccessError, MethodError
from attribench.interface import Features, Study
from attribench.study.plan import SharedImages

if TYPE_CHECKING:
    from attribench.diffusion.model import DiffusionModel
    from attribench.study.study_steps import StudySteps


class SharedStudy(Study):
    """Pictures that belong to no study, and maybe the base model: what features see that are read once for all studies."""

    id, seed = "shared", 0

    def __init__(
        self, images: SharedImages, dataset: Dataset, edition: Edition, device: str, reader: str, *,
        base_model: str | None = None, flips: bool = False,
    ) -> None:  # fmt: skip
        self.edition, self.device, self.flips, self._base_model, self._reader = edition, device, flips, base_model, reader
        self.train = TrainingImages(images.images, dataset.load)

    @cached_property
    def model(self) -> DiffusionModel:
        """The base model."""
        from attribench.diffusion.model import DiffusionModel  # here, since torch takes seconds to import

        if self._base_model is None:
            self._refuse("a model")
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
        of = "pictures" if self._base_model is None else "the base model"
        raise AccessError(f"{self._reader} is read once for all studies, of {of} without {what}; read that of a study")


def base_step(study: StudySteps, features: Features) -> Step:
    """Read features of the base model."""
    plan, name = study.plan, reader_name(features)
    if plan.base is None:
        raise MethodError(f"{name} reads the base model, and the plan of {plan.id} names no pictures for that")
    if features.ensemble().n_models > 1:
        raise MethodError(f"{name} reads the base model, which is no ensemble; mend the plugin")
    return _step(study, features, f"read {name}", plan.base, model=plan.training.model)


def shared_step(study: StudySteps, features: Features) -> Step | None:
    """Read features of the pictures that are in every study's pool; None where they cannot be shared."""
    pool, flips = study.plan.pool, study.plan.training.hyper_parameters.flips
    if features.of_base() or pool is None or pool.shared is None or not features.images_axis:
        return None
    return _step(study, features, f"read {reader_name(features)} of distractors", pool.shared, flips=flips)


def _step(study: StudySteps, features: Features, name: str, images: SharedImages, **params: str | bool) -> Step:
    """Nothing of the study enters its key but what all studies share."""
    return Step(
        name=name,
        label="for all studies",
        function=read_shared,
        params={
            "features": features,
            "assets": features.assets(),
            "edition": study.plan.edition,
            "data": images.data,
            "images": images.images,
            **params,
        },
        inputs={},
        outputs={"state": None},
        bindings={key: study.bindings[key] for key in ("model", "dataset")} | {"shared": images},
        version=features.version,
        estimate=CHEAP,
        gpu=True,
    )


def read_shared(ctx: StepContext) -> None:
    """`features.of_training` of pictures that no study owns, timed."""
    params, features = ctx.params, ctx.params["features"]
    study = SharedStudy(
        ctx.bindings["shared"], ctx.bindings["dataset"], params["edition"], ctx.device, reader_name(features),
        base_model=ctx.bindings["model"] if "model" in params else None, flips=params.get("flips", False),
    )  # fmt: skip
    keep_state(ctx, features, lambda state: features.of_training(study, state))
