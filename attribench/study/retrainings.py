"""What a protocol has retrained: parts of a study's training images, and the queries looked at under each model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from attribench.data import Role
from attribench.engine.identity import token
from attribench.errors import UsageError
from attribench.study.plan import StudyPlan


@dataclass(frozen=True, kw_only=True)
class LossMeasure:
    """How the loss of a query is taken: the same timesteps and noise for every model."""

    timesteps: int = 50
    """The schedule is cut into as many equal parts, and each is looked at in its middle."""
    draws: int = 1
    """Noises per timestep."""

    def __post_init__(self) -> None:
        if self.timesteps < 1 or self.draws < 1:
            raise UsageError(f"{self}: a loss needs at least one timestep and one draw of noise")

    def at(self, n_timesteps: int) -> list[int]:
        """The timesteps of a schedule of `n_timesteps`. Raises UsageError if it has fewer than are asked for."""
        if self.timesteps > n_timesteps:
            raise UsageError(f"a loss over {self.timesteps} timesteps of a schedule of {n_timesteps}: ask for fewer")
        return [int((part + 0.5) * n_timesteps / self.timesteps) for part in range(self.timesteps)]


@dataclass(frozen=True)
class Part:
    """One model to retrain: the rows of the training images that it leaves out, rising, and its seed."""

    left_out: tuple[int, ...]
    seed: int

    def __post_init__(self) -> None:
        if list(self.left_out) != sorted(set(self.left_out)) or min(self.left_out, default=0) < 0:
            raise UsageError(f"{self.left_out} are no rows to leave out: give them rising, each once")

    @classmethod
    def keeping(cls, rows: Iterable[int], n_train: int, seed: int) -> Self:
        """The part that holds these of the rows 0 … n_train - 1, and no others. Raises UsageError for rows beyond."""
        kept = list(rows)
        if not kept or kept != sorted(set(kept)) or kept[0] < 0:
            raise UsageError(f"{tuple(kept)} is no subset of training images: give at least one row, rising, each once")
        if kept[-1] >= n_train:
            raise UsageError(f"there are {n_train} training images; there is no row {kept[-1]} to retrain on")
        return cls(tuple(np.delete(np.arange(n_train), kept).tolist()), seed)

    @cached_property
    def name(self) -> str:
        """What its artifact is called among the outputs of a step."""
        return f"model-{token([self.left_out, self.seed], 'part')[:16]}"

    def rows(self, n_train: int) -> tuple[int, ...]:
        """Those that it keeps of n_train, rising."""
        return tuple(np.delete(np.arange(n_train), self.left_out).tolist())


@dataclass(frozen=True)
class Look:
    """Some queries, looked at under one model."""

    part: Part
    queries: tuple[int, ...]
    """Their numbers among the queries of the role, rising. What is found of them is one artifact."""


@dataclass(frozen=True, kw_only=True)
class Retrainings:
    """What a protocol asks for in one study: models to retrain, and which queries of one role to look at under each."""

    role: Role
    n_train: int
    looks: tuple[Look, ...]
    """A look that comes twice is taken once; the record says how many models were asked for, counting it twice."""
    measure: LossMeasure
    encoder: str | None = None
    """Have the queries generated again under each model, and compare the pictures by this encoder (`attribench.encoders`)."""

    @classmethod
    def of_subsets(
        cls, plan: StudyPlan, role: Role, subsets: Iterable[Sequence[int]], seeds: Iterable[int], measure: LossMeasure
    ) -> Self:
        """Each subset of rows trained with each seed, and all queries of the role looked at under each of these models."""
        n_train, queries = len(plan.training.images), tuple(range(len(plan.roles(role))))
        distinct, seeds = dict.fromkeys(map(tuple, subsets)), dict.fromkeys(seeds)
        looks = (Look(Part.keeping(rows, n_train, seed), queries) for rows in distinct for seed in seeds)
        return cls(role=role, n_train=n_train, looks=tuple(looks), measure=measure)

    @property
    def n_asked(self) -> int:
        """Models, counting each as often as it is asked for."""
        return len(self.looks)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Every model, each once, as they first come."""
        return tuple(dict.fromkeys(look.part for look in self.looks))

    @cached_property
    def left_out(self) -> tuple[tuple[int, ...], ...]:
        """The distinct sets of rows that are left out, as they first come."""
        return tuple(dict.fromkeys(part.left_out for part in self.parts))

    @cached_property
    def subsets(self) -> tuple[tuple[int, ...], ...]:
        """The rows that are kept where these are left out."""
        return tuple(Part(left_out, 0).rows(self.n_train) for left_out in self.left_out)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The distinct seeds, as they first come."""
        return tuple(dict.fromkeys(part.seed for part in self.parts))
