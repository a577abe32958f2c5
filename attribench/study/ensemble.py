"""Which models a study needs beyond its own: checkpoints along a training, and trainings by further seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from attribench.diffusion import noise
from attribench.diffusion.checkpoints import Checkpoints, checkpoints
from attribench.diffusion.observing import TrainingObserver
from attribench.engine.steps import Ref, Step
from attribench.files.state import State
from attribench.interface import Ensemble
from attribench.study.plan import StudyPlan
from attribench.study.steps import WEIGHTS, observation_name, train_step

if TYPE_CHECKING:
    from attribench.diffusion.model import DiffusionModel


@dataclass(frozen=True)
class Member:
    """One training of an ensemble, in the store."""

    weights: Path
    checkpoints: Path | None
    """What `Checkpoints` kept before the end, where the ensemble has more than one checkpoint."""

    def each(self, model: DiffusionModel) -> Iterator[DiffusionModel]:
        """`model` with the weights of every checkpoint put in place in turn, the end of the training last."""
        from safetensors.torch import load_file

        if self.checkpoints is not None:
            for weights in checkpoints(State(self.checkpoints), list(model.modifiers)):
                model.load_trained(weights)
                yield model
        model.load_trained(load_file(self.weights / WEIGHTS))
        yield model


def member_plan(plan: StudyPlan, member: int) -> StudyPlan:
    """The same study trained with another seed; the study itself is member 0."""
    if member == 0:
        return plan
    seed = noise.seed_of("ensemble", plan.training.seed, member)
    return replace(plan, id=f"{plan.id} member {member}", training=replace(plan.training, seed=seed))


def train_steps(
    plan: StudyPlan,
    ensembles: Iterable[Ensemble],
    observers: Sequence[TrainingObserver],
    bindings: dict,
    estimate: Mapping[str, float] | None = None,
) -> tuple[Step, ...]:
    """The study's own training, which serves the observers, then those of the further seeds that an ensemble has.

    Each keeps the checkpoints that are asked of it.
    """
    ensembles = [ensemble for ensemble in ensembles if ensemble.n_models > 1]
    steps = []
    for member in range(max((ensemble.seeds for ensemble in ensembles), default=1)):
        counts = sorted({e.checkpoints for e in ensembles if e.seeds > member and e.checkpoints > 1})
        watching = [*(observers if member == 0 else ()), *(Checkpoints(count=count) for count in counts)]
        steps.append(train_step(member_plan(plan, member), watching, bindings, estimate))
    return tuple(steps)


def member_inputs(ensemble: Ensemble, trainings: Sequence[Step]) -> dict[str, Ref]:
    """The inputs of a step that reads these models."""
    inputs = {}
    for member, trained in enumerate(trainings[: ensemble.seeds]):
        inputs[f"weights-{member}"] = Ref(trained, "weights")
        if ensemble.checkpoints > 1:
            kept = observation_name(Checkpoints(count=ensemble.checkpoints))
            inputs[f"checkpoints-{member}"] = Ref(trained, kept)
    return inputs


def members(ensemble: Ensemble, folder_of: Callable[[str], Path]) -> tuple[Member, ...]:
    """What `member_inputs` named, found by the name of the input."""
    return tuple(
        Member(folder_of(f"weights-{m}"), folder_of(f"checkpoints-{m}") if ensemble.checkpoints > 1 else None)
        for m in range(ensemble.seeds)
    )
