"""Models retrained on parts of a study's training images: what a protocol asks for, and the step that trains them.

A model is known by the training that it is a part of, the rows that it leaves out and its seed, and each is an artifact
of its own. So whichever protocol, query, method or run asks for it finds it in the store. How many are trained in one
step, and whether together or one after the other, is up to the training; one that is whole is kept when the others are
killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attribench.engine.steps import Ref, Step, StepContext
from attribench.errors import UsageError
from attribench.study.retrainings import Part
from attribench.study.steps import UNFINISHED, WEIGHTS
from attribench.study.study_steps import StudySteps
from attribench.study.training import Retraining, Training

MODELS_LOOKED_AT = 32
"""Models under which one step takes losses, or generates."""


def retrain_steps(study: StudySteps, parts: Iterable[Part], has: Callable[[str], bool]) -> dict[Part, Ref]:
    """Where the weights of each part are made.

    Those that the store `has` not yet (by key) share steps, so that passes are full. Raises UsageError for a row that
    the study has not, and for a part that leaves out everything.
    """
    plan, parts = study.plan, list(dict.fromkeys(parts))
    n_train = len(plan.training.images)
    for part in parts:
        if part.left_out and part.left_out[-1] >= n_train:
            raise UsageError(f"{plan.id} has {n_train} training images; there is no row {part.left_out[-1]} to leave out")
        if len(part.left_out) == n_train:
            raise UsageError(f"{plan.id} has {n_train} training images, and all are to be left out; nothing is left to train on")
    if not parts:
        return {}
    keys = _retrain_step(study, parts).keys
    made: dict[Part, Ref] = {}
    for there in (False, True):
        alike = [part for part in parts if has(keys[part.name]) is there]
        for some in in_chunks(alike, plan.training.models_per_step):
            step = _retrain_step(study, some)
            made |= {part: Ref(step, part.name) for part in some}
    return made


def in_chunks(parts: Sequence[Part], size: int = MODELS_LOOKED_AT) -> list[Sequence[Part]]:
    """The parts that steps handle together."""
    return [parts[start : start + size] for start in range(0, len(parts), size)]


def _retrain_step(study: StudySteps, parts: Sequence[Part]) -> Step:
    plan, estimate = study.plan, study.trainings[0].estimate
    n_train = len(plan.training.images)
    share = sum(n_train - len(part.left_out) for part in parts) / n_train
    return Step(
        name="retrain",
        label=f"{plan.id}, {len(parts)} models",
        function=retrain,
        params={"training": plan.training.seedless},
        inputs=plan.training.inputs(study.bindings),
        outputs={part.name: part for part in parts},
        bindings={**study.bindings, "plan": plan},
        estimate=estimate and {**estimate, "seconds": estimate["seconds"] * share, "bytes": estimate["bytes"] * len(parts)},
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
        ctx,
        lambda done, total, loss: ctx.report(done, total, f"{len(names)} models, loss {loss:.3f}"),
    )
    for number, weights in turns:
        target = ctx.out(names[number]) / WEIGHTS
        aside = target.with_suffix(".part")
        save_file(weights, aside)
        aside.rename(target)
