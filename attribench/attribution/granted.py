"""What a method, or features, see of a study: only what their `needs` name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attribench.data import Dataset, Queries, TrainImage, TrainingImages, Trajectory
from attribench.diffusion.observing import TrainingObserver
from attribench.errors import AccessError, MethodError
from attribench.files.state import State
from attribench.interface import Access, Ensemble, Features, Study
from attribench.study.ensemble import Member
from attribench.study.generated import generated, sampled
from attribench.study.plan import StudyPlan
from attribench.study.steps import load_trained

if TYPE_CHECKING:
    from attribench.diffusion.model import DiffusionModel


@dataclass(kw_only=True)
class Materials:
    """Where the artifacts of a study lie; what the reader's access does not cover is empty."""

    plan: StudyPlan
    images: tuple[TrainImage, ...] | None = None
    """What the reader is shown for training images; None: all rows of the plan."""
    dataset: Dataset
    base_model: str
    ensemble: Ensemble = Ensemble()
    members: tuple[Member, ...] = ()
    """The trainings of the ensemble; the study's own is the first."""
    generations: Path | None = None
    observations: Mapping[TrainingObserver, Path] = field(default_factory=dict)
    features: Mapping[Features, Path] = field(default_factory=dict)
    """Of the training images, or of the study's own among them."""
    shared_features: Mapping[Features, Path] = field(default_factory=dict)
    """Of those that are in every study's pool."""
    query_features: Mapping[Features, Path] = field(default_factory=dict)
    queries: Queries | None = None
    """Those that are being scored or read, if any are."""
    trajectory: Path | None = None


class GrantedStudy(Study):
    """A study behind the access that its reader, a method or features, declared."""

    def __init__(self, materials: Materials, access: Access, reader: str, seed: int, device: str) -> None:
        plan = materials.plan
        self.id, self.edition, self.seed, self.device = plan.id, plan.edition, seed, device
        self.flips = plan.training.hyper_parameters.flips
        self.train = TrainingImages(plan.rows if materials.images is None else materials.images, materials.dataset.load)
        self._materials, self._access, self._reader = materials, access, reader

    def _require(self, access: Access, what: str) -> None:
        if access not in self._access:
            raise AccessError(
                f"{self._reader} asked for {what} but declares no Access.{access.name}; add it to the class's `needs`"
            )

    # -------------------------------------------------------------------------------------- models

    @property
    def model(self) -> DiffusionModel:
        """The trained model; needs GRADIENTS."""
        self._require(Access.GRADIENTS, "the trained model")
        return self._trained

    @property
    def models(self) -> Iterable[DiffusionModel]:
        """The ensemble, one model after the other; needs CHECKPOINTS, or for one model alone GRADIENTS."""
        alone = self._materials.ensemble.n_models == 1
        if not (alone and Access.GRADIENTS in self._access):
            self._require(Access.CHECKPOINTS, "the models of an ensemble")
        if alone:
            return iter([self._trained])
        return (model for member in self._materials.members for model in member.each(self._changing))

    @cached_property
    def _trained(self) -> DiffusionModel:
        return self._load()

    @cached_property
    def _changing(self) -> DiffusionModel:
        """Another one than `model` gives, whose weights stay."""
        return self._load()

    def _load(self) -> DiffusionModel:
        materials = self._materials
        return load_trained(materials.base_model, materials.members[0].weights, materials.plan.training, self.device)

    # ------------------------------------------------------------------------------------ training

    @property
    def trained_rows(self) -> tuple[int, ...]:
        """The rows that are no distractors; needs TRAINING where there are any."""
        if self._materials.plan.pool is None:
            return super().trained_rows
        self._require(Access.TRAINING, "which images the model was trained on")
        return self._materials.plan.trained_rows

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt of the trained model, sorted; needs TRAINING."""
        self._require(Access.TRAINING, "the prompts of all generations")
        return self._materials.plan.prompts

    @property
    def generations(self) -> Queries:
        """Pictures of the monitored prompts; needs TRAINING."""
        self._require(Access.TRAINING, "the monitored generations")
        return generated(self._materials.plan, self._materials.generations, "fit")

    def observation(self, observer: TrainingObserver) -> Mapping[str, np.ndarray]:
        """The arrays that `observer` kept; needs TRAINING."""
        self._require(Access.TRAINING, "what its observer saw")
        if observer not in self._materials.observations:
            raise MethodError(f"{self._reader} did not return this observer from observers(): {observer}")
        return State(self._materials.observations[observer])

    # ------------------------------------------------------------------------- features, trajectory

    def features(self, features: Features, queries: Queries | None = None) -> Mapping[str, np.ndarray]:
        """The arrays of `features`: of the training images, of the queries that are being scored, or of `generations`."""
        if queries is None:
            kept = self._materials.features
        else:
            own = self._materials.queries
            expected = tuple(case.id for case in self._materials.plan.roles("fit")) if own is None else own.ids
            if expected != queries.ids:
                raise MethodError(
                    f"{self._reader} asked for features of queries that are not being scored; "
                    "ask in score, for the queries as they came, or in fit, for study.generations"
                )
            kept = self._materials.query_features
        if features not in kept and features in self._materials.features:
            raise MethodError(f"{self._reader} asked for {features} of study.generations, and they do not read pictures alone")
        if features not in kept:
            raise MethodError(f"{self._reader} did not name these features in features(): {features}; name them there")
        if queries is None and features in self._materials.shared_features:
            return self._joined(features)
        return State(kept[features])

    def _joined(self, features: Features) -> Mapping[str, np.ndarray]:
        """The arrays of all training images, in their order, of two readings."""
        plan = self._materials.plan
        own, shared = State(self._materials.features[features]), State(self._materials.shared_features[features])
        ids = [image.id for image in (*plan.own_rows, *plan.pool.shared.images)]
        place = {image_id: number for number, image_id in enumerate(ids)}
        order = [place[image.id] for image in plan.rows]
        return {
            name: np.concatenate([own[name], shared[name]], axis=axis).take(order, axis=axis)
            for name, axis in features.images_axis.items()
        }

    def trajectory(self, query_id: str) -> Trajectory:
        """How a query was sampled that is being scored or read; needs TRAJECTORY."""
        self._require(Access.TRAJECTORY, "how a query was sampled")
        queries = self._materials.queries
        if queries is None or query_id not in queries.ids:
            raise MethodError(f"{self._reader} asked how {query_id!r} was sampled, which is not being scored; ask in score")
        return sampled(self._materials.plan, self._materials.trajectory, query_id)
