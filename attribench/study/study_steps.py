"""What all methods of a study build on: its trainings and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attribench.diffusion.checkpoints import checkpoint_steps
from attribench.diffusion.observing import TrainingObserver
from attribench.engine.steps import Step
from attribench.interface import Access, AttributionMethod
from attribench.study.blame import blame
from attribench.study.ensemble import train_steps
from attribench.study.plan import StudyPlan
from attribench.study.steps import generate_step


@dataclass(frozen=True)
class StudySteps:
    """What all methods of a study build on."""

    plan: StudyPlan
    trainings: tuple[Step, ...]
    """The study's own, then those of the further seeds that an ensemble has."""
    pictures: Step
    bindings: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        plan: StudyPlan,
        methods: Sequence[AttributionMethod],
        bindings: dict,
        *,
        observers: Sequence[TrainingObserver] = (),
        estimates: tuple[Mapping[str, float] | None, Mapping[str, float] | None] = (None, None),
    ) -> StudySteps:
        """The trainings and the generation that these methods and `observers` need.

        `estimates` are of a training and of the generation. Raises MethodError, naming the method, for one that
        asks for what cannot be.
        """
        watching, readers = list(observers), []
        for method in methods:
            with blame(f"the method {method.name!r}"):
                readers += (own := [method, *method.features()])
                for reader in own:
                    checkpoint_steps(reader.ensemble().checkpoints, plan.training.n_steps)
                watching += [o for o in method.observers(plan.prompts) if o not in watching]
        trainings = train_steps(plan, [reader.ensemble() for reader in readers], watching, bindings, estimates[0])
        trajectory = any(Access.TRAJECTORY in reader.needs for reader in readers)
        pictures = generate_step(plan, trainings[0], bindings, estimates[1], trajectory=trajectory)
        return cls(plan, trainings, pictures, bindings)
