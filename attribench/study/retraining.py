"""Models retrained on parts of a study's training images: what a protocol asks for, and the step that trains them.

A model is known by the training that it is a part of, the rows that it leaves out and its seed, and each is an artifact
of its own. So whichever protocol, query, method or run asks for it finds it in the store. How many are trained in one
step, and whether together or one after the other, is up to the training; one that is whole is kept when the others are
killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from attribench.engine.identity import token
from attribench.engine.steps import Ref, Step, StepContext
from attribench.errors import UsageError
from attribench.interface import Role
from attribench.study.plan import StudyPlan
from attribench.study.steps import UNFINISHED, WEIGHTS
from attribench.study.training import Materials, Retraining, Training

MODELS_LOOKED_AT = 32
"""Models under which one step takes losses, or generates."""


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


def retrain_steps(
    plan: StudyPlan,
    parts: Iterable[Part],
    bindings: Mapping,
    has: Callable[[str], bool],
    estimate: Mapping[str, float] | None = None,
) -> dict[Part, Ref]:
    """Where the weights of each part are made; `estimate` is of the study's own training.

    Those that the store `has` not yet (by key) share steps, so that passes are full. Raises UsageError for a row that
    the study has not, and for a part that leaves out everything.
    """
    parts = list(dict.fromkeys(parts))
    n_train = len(plan.training.images)
    for part in parts:
        if part.left_out and part.left_out[-1] >= n_train:
            raise UsageError(f"{plan.id} has {n_train} training images; there is no row {part.left_out[-1]} to leave out")
        if len(part.left_out) == n_train:
            raise UsageError(f"{plan.id} has {n_train} training images, and all are to be left out; nothing is left to train on")
    if not parts:
        return {}
    keys = _retrain_step(plan, parts, bindings, None).keys
    made: dict[Part, Ref] = {}
    for there in (False, True):
        alike = [part for part in parts if has(keys[part.name]) is there]
        for some in in_chunks(alike, plan.training.models_per_step):
            step = _retrain_step(plan, some, bindings, estimate)
            made |= {part: Ref(step, part.name) for part in some}
    return made


def in_chunks(parts: Sequence[Part], size: int = MODELS_LOOKED_AT) -> list[Sequence[Part]]:
    """The parts that steps handle together."""
    return [parts[start : start + size] for start in range(0, len(parts), size)]


def _retrain_step(
    plan: StudyPlan, parts: Sequence[Part], bindings: Mapping, estimate: Mapping[str, float] | None
) -> Step:
    n_train = len(plan.training.images)
    share = sum(n_train - len(part.left_out) for part in parts) / n_train
    return Step(
        name="retrain",
        label=f"{plan.id}, {len(parts)} models",
        function=retrain,
        params={"training": plan.training.seedless},
        inputs=plan.training.inputs(bindings),
        outputs={part.name: part for part in parts},
        bindings={**bindings, "plan": plan},
        estimate=estimate
        and {**estimate, "seconds": estimate["seconds"] * share, "bytes": estimate["bytes"] * len(parts)},
        gpu=True,
    )


def retrain(ctx: StepContext) -> None:
    """Train on every wanted part; go on at the first that is not written."""
    import torch
    from safetensors.torch import save_file

    if ctx.device != "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    training: Training = ctx.bindings["plan"].training
    missing = {name: part for name, part in ctx.wanted.items() if not (ctx.out(name) / WEIGHTS).exists()}
    if not missing:
        return
    names, n_train = list(missing), len(training.images)
    turns = training.retrain(
        training.untrained(ctx.bindings["model"], ctx.device),
        [Retraining(part.rows(n_train), part.seed, ctx.out(name) / UNFINISHED) for name, part in missing.items()],
        Materials(ctx.bindings["dataset"].load, ctx.input),
        lambda done, total, loss: ctx.report(done, total, f"{len(names)} models, loss {loss:.3f}"),
    )
    for number, weights in turns:
        target = ctx.out(names[number]) / WEIGHTS
        aside = target.with_suffix(".part")
        save_file(weights, aside)
        aside.rename(target)
