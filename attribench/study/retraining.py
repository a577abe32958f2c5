"""Models retrained on parts of a study's training images: what a protocol asks for, and the step that trains them.

A model is known by the training that it is a part of, the rows that it keeps and its seed, and each is an artifact
of its own. So whichever protocol, query, method or run asks for it finds it in the store. Models are trained
together, many in one pass (`attribench.diffusion.stacked`); one that is whole is kept when the others are killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from attribench.engine.identity import token
from attribench.engine.steps import Ref, Step, StepContext
from attribench.errors import UsageError
from attribench.interface import Role
from attribench.study.plan import StudyPlan, Training
from attribench.study.steps import WEIGHTS

MODELS_PER_STEP = 32
"""Models that one worker trains and commits together: enough to fill a stacked pass at any batch size."""


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


@dataclass(frozen=True, kw_only=True)
class Retrainings:
    """What a protocol asks for in one study: each subset trained with each seed, and the losses of one role's queries."""

    role: Role
    subsets: tuple[tuple[int, ...], ...]
    """Rows of the plan's training images, rising. A subset that comes twice counts once."""
    seeds: tuple[int, ...]
    measure: LossMeasure

    def __post_init__(self) -> None:
        for rows in self.subsets:
            if not rows or list(rows) != sorted(set(rows)) or rows[0] < 0:
                raise UsageError(f"{rows} is no subset of training images: give at least one row, rising, each once")
        object.__setattr__(self, "subsets", tuple(dict.fromkeys(self.subsets)))
        object.__setattr__(self, "seeds", tuple(dict.fromkeys(self.seeds)))

    @property
    def parts(self) -> list[Part]:
        """Every model, subset by subset."""
        return [Part(rows, seed) for rows in self.subsets for seed in self.seeds]


@dataclass(frozen=True)
class Part:
    """One model to retrain: the rows of the training images that it keeps, and its seed."""

    rows: tuple[int, ...]
    seed: int

    @property
    def name(self) -> str:
        """What its artifact is called among the outputs of a step."""
        return f"model-{token([self.rows, self.seed], 'part')[:16]}"


def retrain_steps(
    plan: StudyPlan,
    parts: Iterable[Part],
    bindings: dict,
    has: Callable[[str], bool],
    estimate: Mapping[str, float] | None = None,
) -> dict[Part, Ref]:
    """Where the weights of each part are made; `estimate` is of the study's own training.

    Those that the store `has` not yet (by key) share steps, so that passes are full. Raises UsageError for a row that
    the study has not.
    """
    parts = list(dict.fromkeys(parts))
    n_train = len(plan.training.images)
    for part in parts:
        if part.rows[-1] >= n_train:
            raise UsageError(f"{plan.id} has {n_train} training images; there is no row {part.rows[-1]} to retrain on")
    if not parts:
        return {}
    keys = _retrain_step(plan, parts, bindings, None).keys
    made: dict[Part, Ref] = {}
    for there in (False, True):
        alike = [part for part in parts if has(keys[part.name]) is there]
        for some in in_chunks(alike):
            step = _retrain_step(plan, some, bindings, estimate)
            made |= {part: Ref(step, part.name) for part in some}
    return made


def in_chunks(parts: Sequence[Part]) -> list[Sequence[Part]]:
    """The parts that steps handle together."""
    return [parts[start : start + MODELS_PER_STEP] for start in range(0, len(parts), MODELS_PER_STEP)]


def _retrain_step(
    plan: StudyPlan, parts: Sequence[Part], bindings: dict, estimate: Mapping[str, float] | None
) -> Step:
    share = sum(len(part.rows) for part in parts) / len(plan.training.images)
    return Step(
        name="retrain",
        label=f"{plan.id}, {len(parts)} models",
        function=retrain,
        params={"training": seedless(plan.training)},
        inputs={},
        outputs={part.name: part for part in parts},
        bindings=bindings,
        estimate=estimate
        and {**estimate, "seconds": estimate["seconds"] * share, "bytes": estimate["bytes"] * len(parts)},
        gpu=True,
    )


def seedless(training: Training) -> Training:
    """The training apart from its seed: of a retrained model it is the part that has one."""
    return replace(training, seed=0)


def retrain(ctx: StepContext) -> None:
    """Customize the base model on every wanted part, many at once; go on at the first that is not written."""
    import torch
    from safetensors.torch import save_file

    from attribench.diffusion.model import DiffusionModel
    from attribench.diffusion.stacked import StackedJob, customize_in_turn

    if ctx.device != "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    training: Training = ctx.params["training"]
    missing = {name: part for name, part in ctx.wanted.items() if not (ctx.out(name) / WEIGHTS).exists()}
    if not missing:
        return
    model = DiffusionModel.load(ctx.bindings["model"], ctx.device)
    model.add_modifiers(dict(training.modifiers))
    names = list(missing)
    jobs = [StackedJob(tuple(training.images[row] for row in part.rows), part.seed) for part in missing.values()]
    turns = customize_in_turn(
        model,
        jobs,
        ctx.bindings["dataset"].load,
        training.customization,
        report=lambda done, total, loss: ctx.report(done, total, f"{len(jobs)} models, loss {loss:.3f}"),
    )
    for number, customized in turns:
        target = ctx.out(names[number]) / WEIGHTS
        aside = target.with_suffix(".part")
        save_file(customized.weights, aside)
        aside.rename(target)
