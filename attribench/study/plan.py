"""What a protocol asks for: plain values that say which model is trained on what and which pictures it makes."""

from __future__ import annotations

from dataclasses import dataclass

from attribench.diffusion.config import CustomizationConfig, Sampling
from attribench.interface import Edition, GenerationCase, Role, Split, TrainImage


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that a customized model depends on, hence its identity."""

    model: str
    """Fingerprint of the base model."""
    data: str
    """Fingerprint of the training images' bytes."""
    images: tuple[TrainImage, ...]
    """Rows, sorted by id."""
    modifiers: tuple[tuple[str, str | None], ...]
    """(token, word it starts from; None for a rare token), in the order of the concepts."""
    customization: CustomizationConfig
    seed: int

    @property
    def n_steps(self) -> int:
        """Optimizer steps."""
        return self.customization.steps(len(self.images))


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """One model to train, and the pictures to generate from it."""

    id: str
    dataset: str
    edition: Edition
    split: Split
    concepts: tuple[str, ...]
    training: Training
    cases: tuple[GenerationCase, ...]
    sampling: Sampling

    def roles(self, role: Role) -> tuple[GenerationCase, ...]:
        """The cases of role "fit" or "query", in order."""
        return tuple(case for case in self.cases if case.role == role)

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt that a picture is generated for, each once, sorted."""
        return tuple(sorted({case.prompt for case in self.cases}))
