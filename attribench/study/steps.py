"""The steps that make a study: train (and observe), generate. Each is a plain function of its context."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attribench.data import GenerationCase
from attribench.diffusion import noise
from attribench.diffusion.observing import TrainingObserver, Watch
from attribench.engine.identity import NotHashable, token
from attribench.engine.steps import Ref, Step, StepContext
from attribench.errors import MethodError, StoreError
from attribench.files.state import State
from attribench.study.blame import blame
from attribench.study.generated import TIMESTEPS, estimates_name, picture_name, write_picture
from attribench.study.plan import StudyPlan
from attribench.study.training import Training

if TYPE_CHECKING:
    from torch import Tensor

    from attribench.diffusion.model import DiffusionModel

WEIGHTS = "weights.safetensors"
FILES = {"pictures": picture_name, "trajectory": estimates_name}
"""Of one case, in what a generation puts out."""
UNFINISHED = "unfinished.safetensors"
"""What a long training goes on from after a kill; it is gone at the end."""


def observation_name(observer: TrainingObserver) -> str:
    """A short stable name for the output that holds what `observer` kept."""
    try:
        return f"observed-{token(observer, type(observer).__name__)[:12]}"
    except NotHashable as error:
        raise MethodError(f"an observer cannot be told from others: {error}") from error


# -------------------------------------------------------------------------------------- building


def train_step(
    plan: StudyPlan, observers: Sequence[TrainingObserver], bindings: dict, estimate: Mapping[str, float] | None = None
) -> Step:
    """Train the study's model; one training serves every observer."""
    return Step(
        name="train",
        label=plan.id,
        function=train,
        params={"training": plan.training},
        inputs=plan.training.inputs(bindings),
        outputs={"weights": None} | {observation_name(observer): observer for observer in observers},
        bindings=bindings,
        estimate=estimate,
        gpu=True,
    )


def generate_step(
    plan: StudyPlan,
    trained: Step,
    bindings: dict,
    estimate: Mapping[str, float] | None = None,
    *,
    trajectory: bool = False,
) -> Step:
    """Generate the picture of every case; with `trajectory`, keep how each came about as a second output."""
    return Step(
        name="generate",
        label=plan.id,
        function=generate,
        params={"training": plan.training, "cases": plan.generated_cases, "sampling": plan.sampling}
        | ({"by_base": plan.by_base} if plan.by_base else {}),
        inputs={"weights": Ref(trained, "weights")},
        outputs={"pictures": None} | ({"trajectory": None} if trajectory else {}),
        bindings=bindings,
        estimate=estimate,
        gpu=True,
    )


# --------------------------------------------------------------------------------------- running


def train(ctx: StepContext) -> None:
    """Train; write the weights and every wanted observation."""
    import torch
    from safetensors.torch import load_file, save_file

    if ctx.device != "cpu":  # so that training again for another observer gives the same weights
        torch.use_deterministic_algorithms(True, warn_only=True)
    training: Training = ctx.params["training"]
    model = training.untrained(ctx.bindings["model"], ctx.device)
    watches = {name: _BlamedWatch(observer, model, training) for name, observer in ctx.wanted.items() if name != "weights"}
    losses = training.train(
        model,
        ctx,
        watches=tuple(watches.values()),
        report=lambda done, total, loss: ctx.report(done, total, f"loss {loss:.3f}"),
        resume=ctx.out(next(iter(ctx.wanted))) / UNFINISHED,
    )
    weights = model.trained_weights()
    if "weights" in ctx.wanted:
        save_file(weights, ctx.out("weights") / WEIGHTS)
        np.save(ctx.out("weights") / "losses.npy", np.asarray(losses, dtype=np.float32))
    else:
        kept = load_file(ctx.present("weights") / WEIGHTS)
        if any(not np.array_equal(kept[name].numpy(), weights[name].numpy()) for name in kept):
            raise StoreError(
                "training again for a new observer did not give the stored weights bit for bit; "
                "another machine or torch version made them: choose another --store"
            )
    for name, watch in watches.items():
        state = State(ctx.out(name))
        for array_name, array in watch.finish().items():
            state[array_name] = array


def load_trained(base_model: str, weights: Path, training: Training, device: str) -> DiffusionModel:
    """The study's model with a training's weights in place."""
    from safetensors.torch import load_file

    model = training.untrained(base_model, device)
    model.load_trained(load_file(weights / WEIGHTS))
    return model


def generate(ctx: StepContext) -> None:
    """One PNG per case, and its trajectory if that is wanted, in chunks.

    A killed run goes on at the first chunk not written; where one of the outputs is there already, only the other
    is written.
    """
    import torch

    training: Training = ctx.params["training"]
    cases, sampling = ctx.params["cases"], ctx.params["sampling"]
    by_base = frozenset(ctx.params.get("by_base", ()))
    model, done, total = None, 0, len(cases) * sampling.steps
    for untrained in (False, True):
        numbers = [number for number, case in enumerate(cases) if (case.id in by_base) == untrained]
        if not numbers:
            continue
        del model  # two of Stable Diffusion's size need not fit
        if untrained:
            model = training.untrained(ctx.bindings["model"], ctx.device)
        else:
            model = load_trained(ctx.bindings["model"], ctx.input("weights"), training, ctx.device)
        if "trajectory" in ctx.wanted:
            np.save(ctx.out("trajectory") / TIMESTEPS, model.sampling_timesteps(sampling.steps).numpy())
        for start in range(0, len(numbers), sampling.batch_size):
            chunk = numbers[start : start + sampling.batch_size]
            missing = [name for name in ctx.wanted if not (ctx.out(name) / FILES[name](chunk[-1])).exists()]
            reached = iter(range(done, total, len(chunk)))
            done += len(chunk) * sampling.steps
            if not missing:
                continue
            estimates: list[torch.Tensor] = []
            pictures = model.sample(
                [cases[number].prompt for number in chunk],
                torch.stack([initial_noise(model, training, cases[number]) for number in chunk]),
                steps=sampling.steps,
                guidance=sampling.guidance,
                report=lambda reached=reached: ctx.report(next(reached, total), total, f"{len(cases)} pictures"),
                estimates=estimates,
            )
            for number, picture, along in zip(chunk, pictures, torch.stack(estimates, dim=1).float(), strict=True):
                if "pictures" in missing:
                    write_picture(ctx.out("pictures"), number, picture)
                if "trajectory" in missing:
                    State(ctx.out("trajectory"))[Path(estimates_name(number)).stem] = along
    if "pictures" in ctx.wanted:
        (ctx.out("pictures") / "cases.json").write_text(json.dumps([[c.id, c.prompt, c.seed] for c in cases], indent=0))


def initial_noise(model: DiffusionModel, training: Training, case: GenerationCase) -> Tensor:
    """[c, h, w] that a picture of the study is sampled from, by whichever model."""
    return noise.normal(model.latent_shape, "generation", training.seed, case.prompt, case.seed)


class _BlamedWatch(Watch):
    """A watch whose errors name its observer: it may be a stranger's, and the training serves others too."""

    def __init__(self, observer: TrainingObserver, model: DiffusionModel, training: Training) -> None:
        self.name = f"the training observer {type(observer).__module__}.{type(observer).__name__}"
        with blame(self.name):
            self.watch = observer.start(model, len(training.images), training.n_steps)

    def after_step(self, rows: Sequence[int]) -> None:
        with blame(self.name):
            self.watch.after_step(rows)

    def finish(self) -> dict[str, np.ndarray]:
        with blame(self.name):
            return self.watch.finish()
