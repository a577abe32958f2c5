"""The steps of a study: train (and observe), generate, fit, score. Each is a plain function of its context."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file as save_arrays

from attribench.engine.identity import NotHashable, token
from attribench.engine.measure import measure
from attribench.engine.steps import Ref, Step, StepContext
from attribench.errors import AttribenchError, MethodError, StoreError
from attribench.interface import (
    Access,
    AttributionMethod,
    Dataset,
    Queries,
    Scores,
    State,
    TrainingObserver,
    Watch,
)
from attribench.study.granted import GrantedStudy, Materials, generated, picture_name, prompts_of
from attribench.study.plan import StudyPlan, Training

if TYPE_CHECKING:
    from attribench.diffusion.model import DiffusionModel

WEIGHTS = "weights.safetensors"
COST = "cost.json"
SCORES = "scores.safetensors"


def observation_name(observer: TrainingObserver) -> str:
    """A short stable name for the output that holds what `observer` kept."""
    try:
        return f"observed-{token(observer, type(observer).__name__)[:12]}"
    except NotHashable as error:
        raise MethodError(f"an observer cannot be told from others: {error}") from error


def observers_of(method: AttributionMethod, plan: StudyPlan) -> tuple[TrainingObserver, ...]:
    """What `method` wants to watch this study's training with."""
    with _blame(f"the method {method.name!r}"):
        return tuple(method.observers(prompts_of(plan)))


# -------------------------------------------------------------------------------------- building


CHEAP = {"seconds": 0.5, "peak_bytes": 2e8, "bytes": 1e5}
"""What fitting or scoring by features takes at the size of a customization, order of magnitude."""


def train_step(
    plan: StudyPlan, observers: Sequence[TrainingObserver], bindings: dict, estimate: Mapping[str, float] | None = None
) -> Step:
    """Customize the base model; one training serves every observer."""
    outputs: dict = {"weights": None}
    outputs |= {observation_name(observer): observer for observer in observers}
    return Step(
        name="train",
        label=plan.id,
        function=train,
        params={"training": plan.training},
        inputs={},
        outputs=outputs,
        bindings=bindings,
        estimate=estimate,
        gpu=True,
    )


def generate_step(plan: StudyPlan, trained: Step, bindings: dict, estimate: Mapping[str, float] | None = None) -> Step:
    """Generate the picture of every case."""
    return Step(
        name="generate",
        label=plan.id,
        function=generate,
        params={"training": plan.training, "cases": plan.cases, "sampling": plan.sampling},
        inputs={"weights": Ref(trained, "weights")},
        outputs={"pictures": None},
        bindings=bindings,
        estimate=estimate,
        gpu=True,
    )


def fit_step(plan: StudyPlan, method: AttributionMethod, seed: int, trained: Step, pictures: Step, bindings: dict) -> Step:
    """`method.fit` with the inputs that its access covers, so that it depends on nothing else."""
    inputs = {}
    if Access.GRADIENTS in method.needs:
        inputs["weights"] = Ref(trained, "weights")
    observers = observers_of(method, plan)
    watches_training = Access.TRAINING in method.needs
    if watches_training:
        inputs["generations"] = Ref(pictures, "pictures")
        inputs |= {observation_name(o): Ref(trained, observation_name(o)) for o in observers}
    return Step(
        name=f"fit {method.name}",
        label=f"{plan.id} seed {seed}" if method.stochastic else plan.id,
        function=fit,
        params={
            "method": method,
            "assets": method.assets(),
            "seed": seed,
            "study": plan.id,
            "edition": plan.edition,
            "data": plan.training.data,
            "images": plan.training.images,
            "flips": plan.training.customization.flips,
            "cases": plan.roles("fit") if watches_training else (),
            "prompts": prompts_of(plan) if watches_training else (),
            "observers": observers if watches_training else (),
        },
        inputs=inputs,
        outputs={"state": None},
        bindings=bindings | {"plan": plan},
        version=method.version,
        estimate=CHEAP,
        gpu=True,
    )


def score_step(plan: StudyPlan, fitted: Step, pictures: Step, bindings: dict) -> Step:
    """`method.score` for the study's held-out queries."""
    return Step(
        name=fitted.name.replace("fit", "score", 1),
        label=fitted.label,
        function=score,
        params={**fitted.params, "cases": plan.roles("query")},
        inputs={**fitted.inputs, "state": Ref(fitted, "state"), "pictures": Ref(pictures, "pictures")},
        outputs={"scores": None},
        bindings=bindings | {"plan": plan},
        version=fitted.version,
        estimate=CHEAP,
        gpu=True,
    )


# --------------------------------------------------------------------------------------- running


def train(ctx: StepContext) -> None:
    """Customize; write the weights and every wanted observation."""
    import torch
    from safetensors.torch import load_file, save_file

    from attribench.diffusion.customization import customize
    from attribench.diffusion.model import DiffusionModel

    if ctx.device != "cpu":  # so that training again for another observer gives the same weights
        torch.use_deterministic_algorithms(True, warn_only=True)
    training: Training = ctx.params["training"]
    dataset: Dataset = ctx.bindings["dataset"]
    model = DiffusionModel.load(ctx.bindings["model"], ctx.device)
    model.add_modifiers(dict(training.modifiers))
    watches = {
        name: _BlamedWatch(observer, model, len(training.images))
        for name, observer in ctx.wanted.items()
        if name != "weights"
    }
    losses = customize(
        model,
        training.images,
        dataset.load,
        training.customization,
        seed=training.seed,
        watches=tuple(watches.values()),
        report=lambda done, total, loss: ctx.report(done, total, f"loss {loss:.3f}"),
    )
    weights = model.customized_weights()
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


def load_trained(base_model: str, weights: Path, training: Training, device: str):
    """The base model with a customization's weights in place."""
    from safetensors.torch import load_file

    from attribench.diffusion.model import DiffusionModel

    model = DiffusionModel.load(base_model, device)
    model.add_modifiers(dict(training.modifiers))
    model.load_customized(load_file(weights / WEIGHTS))
    return model


def generate(ctx: StepContext) -> None:
    """One PNG per case, in chunks; a killed run goes on at the first chunk not written."""
    import torch

    from attribench.diffusion import noise

    training: Training = ctx.params["training"]
    cases, sampling = ctx.params["cases"], ctx.params["sampling"]
    model = load_trained(ctx.bindings["model"], ctx.input("weights"), training, ctx.device)
    folder = ctx.out("pictures")
    total = len(cases) * sampling.steps
    for start in range(0, len(cases), sampling.batch_size):
        chunk = cases[start : start + sampling.batch_size]
        last = folder / picture_name(start + len(chunk) - 1)
        if last.exists():
            continue
        latents = torch.stack(
            [noise.normal(model.latent_shape, "generation", training.seed, case.prompt, case.seed) for case in chunk]
        )
        done = iter(range(start * sampling.steps, total, len(chunk)))
        pictures = model.sample(
            [case.prompt for case in chunk],
            latents,
            steps=sampling.steps,
            guidance=sampling.guidance,
            report=lambda done=done: ctx.report(next(done, total), total, f"{len(cases)} pictures"),
        )
        for number, picture in enumerate(pictures, start):
            target = folder / picture_name(number)
            picture.save(target.with_suffix(".part"), format="PNG")
            target.with_suffix(".part").rename(target)
    (folder / "cases.json").write_text(json.dumps([[c.id, c.prompt, c.seed] for c in cases], indent=0))


def fit(ctx: StepContext) -> None:
    """`method.fit`, timed."""
    method: AttributionMethod = ctx.params["method"]
    study = _study(ctx)
    state = State(ctx.out("state"))
    with _blame(f"the method {method.name!r}"), measure(ctx.device) as cost:
        method.fit(study, state)
    (ctx.out("state") / COST).write_text(
        json.dumps({"seconds": cost.seconds, "peak_bytes": cost.peak_bytes, "bytes": state.nbytes})
    )


def score(ctx: StepContext) -> None:
    """`method.score` on the queries, timed and checked."""
    method: AttributionMethod = ctx.params["method"]
    study = _study(ctx)
    queries: Queries = generated(ctx.bindings["plan"], ctx.input("pictures"), "query")
    with _blame(f"the method {method.name!r}"), measure(ctx.device) as cost:
        scores = method.score(study, State(ctx.input("state")), queries)
    if not isinstance(scores, Scores) or scores.query_ids != queries.ids or scores.train_ids != study.train.ids:
        raise MethodError(f"{method.name}.score must return Scores.of(queries, study.train, values); mend the plugin")
    folder = ctx.out("scores")
    write_scores(folder / SCORES, scores)
    (folder / COST).write_text(json.dumps({"seconds": cost.seconds, "peak_bytes": cost.peak_bytes}))


def write_scores(path: Path, scores: Scores) -> None:
    """Scores as safetensors: one tensor "scores" [n_query, n_train], the ids of both axes in the metadata."""
    ids = {"query_ids": json.dumps(scores.query_ids), "train_ids": json.dumps(scores.train_ids)}
    save_arrays({"scores": np.ascontiguousarray(scores.values)}, path, metadata=ids)


def read_scores(path: Path) -> Scores:
    """What `write_scores` wrote."""
    with safe_open(path, framework="numpy") as file:
        ids = file.metadata()
        return Scores(file.get_tensor("scores"), tuple(json.loads(ids["query_ids"])), tuple(json.loads(ids["train_ids"])))


def _study(ctx: StepContext) -> GrantedStudy:
    method: AttributionMethod = ctx.params["method"]
    materials = Materials(
        plan=ctx.bindings["plan"],
        dataset=ctx.bindings["dataset"],
        base_model=ctx.bindings["model"],
        weights=ctx.input("weights") if "weights" in ctx.inputs else None,
        generations=ctx.input("generations") if "generations" in ctx.inputs else None,
        observations={
            observer: ctx.input(observation_name(observer))
            for observer in ctx.params["observers"]
            if observation_name(observer) in ctx.inputs
        },
    )
    return GrantedStudy(materials, method.needs, method.name, ctx.params["seed"], ctx.device)


class _BlamedWatch(Watch):
    """A watch whose errors name its observer: it may be a stranger's, and the training serves others too."""

    def __init__(self, observer: TrainingObserver, model: DiffusionModel, n_train: int) -> None:
        self.name = f"the training observer {type(observer).__module__}.{type(observer).__name__}"
        with _blame(self.name):
            self.watch = observer.start(model, n_train)

    def after_step(self, rows: Sequence[int]) -> None:
        with _blame(self.name):
            self.watch.after_step(rows)

    def finish(self) -> dict[str, np.ndarray]:
        with _blame(self.name):
            return self.watch.finish()


class _blame:
    """Turns whatever a plugin raises into one line that names it."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if type(error) is MethodError:
            raise MethodError(f"{self.plugin}: {error}") from error
        if isinstance(error, Exception) and not isinstance(error, AttribenchError):
            raise MethodError(f"{self.plugin} raised {type(error).__name__}: {error}; report it to its author") from error
