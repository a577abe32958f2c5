"""What a method sees of a study: only what its `needs` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from attribench.errors import AccessError, MethodError
from attribench.interface import (
    Access,
    Dataset,
    Queries,
    State,
    Study,
    TrainingImages,
    TrainingObserver,
)
from attribench.study.plan import StudyPlan


@dataclass
class Materials:
    """Where the artifacts of a study lie; None for what the method's access does not cover."""

    plan: StudyPlan
    dataset: Dataset
    base_model: str
    weights: Path | None
    generations: Path | None
    observations: Mapping[TrainingObserver, Path]


class GrantedStudy(Study):
    """A study behind the access that a method declared."""

    def __init__(self, materials: Materials, access: Access, method: str, seed: int, device: str) -> None:
        plan = materials.plan
        self.id, self.edition, self.seed, self.device = plan.id, plan.edition, seed, device
        self.flips = plan.training.customization.flips
        self.train = TrainingImages(plan.training.images, materials.dataset.load)
        self._materials, self._access, self._method = materials, access, method

    def _require(self, access: Access, what: str) -> None:
        if access not in self._access:
            raise AccessError(
                f"{self._method} asked for {what} but declares no Access.{access.name}; add it to the class's `needs`"
            )

    @cached_property
    def model(self):
        """The trained model; needs GRADIENTS."""
        self._require(Access.GRADIENTS, "the trained model")
        from attribench.study.steps import load_trained

        return load_trained(self._materials.base_model, self._materials.weights, self._materials.plan.training, self.device)

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt, sorted; needs TRAINING."""
        self._require(Access.TRAINING, "the prompts of all generations")
        return prompts_of(self._materials.plan)

    @property
    def generations(self) -> Queries:
        """Pictures of the monitored prompts; needs TRAINING."""
        self._require(Access.TRAINING, "the monitored generations")
        return generated(self._materials.plan, self._materials.generations, "fit")

    def observation(self, observer: TrainingObserver) -> Mapping[str, np.ndarray]:
        """The arrays that `observer` kept; needs TRAINING."""
        self._require(Access.TRAINING, "what its observer saw")
        if observer not in self._materials.observations:
            raise MethodError(f"{self._method} did not return this observer from observers(): {observer}")
        return State(self._materials.observations[observer])


def prompts_of(plan: StudyPlan) -> tuple[str, ...]:
    """Every prompt that a picture is generated for, each once, sorted."""
    return tuple(sorted({case.prompt for case in plan.cases}))


def generated(plan: StudyPlan, folder: Path, role: str) -> Queries:
    """The generated pictures of the cases of one role."""
    numbers = {case.id: number for number, case in enumerate(plan.cases)}

    def load(case_id: str) -> Image.Image:
        with Image.open(folder / picture_name(numbers[case_id])) as picture:
            return picture.convert("RGB")

    return Queries(plan.roles(role), load)


def picture_name(number: int) -> str:
    """File of the `number`-th case."""
    return f"{number:05d}.png"
