"""The losses of a study's generated pictures under retrained models: the step that takes them, and what it leaves.

    L(q, θ) = mean over t and draws of || ε − ε_θ(x_t(q), t, prompt of q) ||²        (mean over latent elements)

x(q) is the VAE's latent of the generated picture, and the noise belongs to (query, timestep, draw): it is the same
for every model, so that a difference of losses is one of models. Each model's losses are an artifact of their own:

    losses.npy      [n_query] float64, in the order of the queries
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attribench.engine.steps import Ref, Step, StepContext
from attribench.interface import GenerationCase, Role
from attribench.measurement import Retrained
from attribench.study.generated import generated
from attribench.study.plan import Training
from attribench.study.retraining import LossMeasure, Part, Retrainings, in_chunks, retrain_steps, seedless
from attribench.study.steps import WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

    from attribench.diffusion.model import DiffusionModel
    from attribench.study.runs import StudySteps

LOSSES = "losses.npy"
FULL = "full"


@dataclass(frozen=True)
class TakenLosses:
    """The answer to one request of a protocol: where each loss is made."""

    request: Retrainings
    study: StudySteps
    full: Ref
    """Of the model that is attributed."""
    parts: Mapping[Part, Ref]

    @classmethod
    def of_all(
        cls, study: StudySteps, requests: Sequence[Retrainings], has: Callable[[str], bool]
    ) -> dict[Role, TakenLosses]:
        """The steps for the requests of a study, by role; what the store `has` (by key) is not made again.

        Raises UsageError for a request that cannot be met.
        """
        missing: dict[Role, list[Part]] = {}
        for request in requests:
            weights = retrain_steps(study.plan, request.parts, study.bindings, has)
            keys = _losses_step(study, request, weights).keys if weights else {}
            missing[request.role] = [part for part in weights if not has(keys[part.name])]
        # Apart from the others, whose models may be gone while their losses are there.
        estimate = study.trainings[0].estimate
        unknown = [part for of_role in missing.values() for part in of_role]
        weights = retrain_steps(study.plan, unknown, study.bindings, has, estimate)
        others = [part for request in requests for part in request.parts if part not in weights]
        weights |= retrain_steps(study.plan, others, study.bindings, has, estimate)
        return {request.role: cls._of(study, request, weights, missing[request.role]) for request in requests}

    @classmethod
    def _of(
        cls, study: StudySteps, request: Retrainings, weights: Mapping[Part, Ref], missing: Sequence[Part]
    ) -> TakenLosses:
        full = _step(study, request, {FULL: Ref(study.trainings[0], "weights")})
        parts: dict[Part, Ref] = {}
        for alike in (missing, [part for part in request.parts if part not in set(missing)]):
            for some in in_chunks(alike):
                step = _losses_step(study, request, {part: weights[part] for part in some})
                parts |= {part: Ref(step, part.name) for part in some}
        return cls(request, study, Ref(full, FULL), parts)

    @property
    def steps(self) -> list[Step]:
        """What has to succeed for the losses to be known."""
        return list(dict.fromkeys([self.full.step, *(ref.step for ref in self.parts.values())]))

    def retrained(self, path: Callable[[str], Path]) -> Retrained:
        """The losses, from the store whose `path` gives an artifact's folder by its key."""
        request, training = self.request, self.study.plan.training
        masks = np.zeros((len(request.subsets), len(training.images)), dtype=bool)
        for mask, rows in zip(masks, request.subsets, strict=True):
            mask[list(rows)] = True
        queries = self.study.plan.roles(request.role)
        losses = np.empty((len(queries), len(request.subsets), len(request.seeds)))
        for m, rows in enumerate(request.subsets):
            for r, seed in enumerate(request.seeds):
                losses[:, m, r] = np.load(path(self.parts[Part(rows, seed)].key) / LOSSES, allow_pickle=False)
        full = np.load(path(self.full.key) / LOSSES, allow_pickle=False)
        return Retrained(masks=masks, seeds=request.seeds, losses=losses, full=full, own_seed=training.seed)


def _losses_step(study: StudySteps, request: Retrainings, weights: Mapping[Part, Ref]) -> Step:
    return _step(study, request, {part.name: ref for part, ref in weights.items()})


def _step(study: StudySteps, request: Retrainings, weights: Mapping[str, Ref]) -> Step:
    plan = study.plan
    return Step(
        name="losses",
        label=f"{plan.id}, {len(weights)} models on {request.role} pictures",
        function=take,
        params={
            "training": seedless(plan.training),
            "queries": plan.roles(request.role),
            "role": request.role,
            "measure": request.measure,
        },
        inputs={"pictures": Ref(study.pictures, "pictures"), **weights},
        own_inputs={name: frozenset({name}) for name in weights},
        outputs=dict.fromkeys(weights),
        bindings=study.bindings | {"plan": plan},
        estimate=_estimate(study, request, len(weights)),
        gpu=True,
    )


def _estimate(study: StudySteps, request: Retrainings, n_models: int) -> dict[str, float] | None:
    """From that of the generation, which has two rows (for guidance) per picture and step."""
    generation, plan = study.pictures.estimate, study.plan
    if generation is None:
        return None
    n_rows = n_models * len(plan.roles(request.role)) * request.measure.timesteps * request.measure.draws
    row = generation["seconds"] / (2 * plan.sampling.steps * len(plan.cases))
    return {"seconds": n_rows * row, "peak_bytes": generation["peak_bytes"], "bytes": 1000.0 * n_models}


def take(ctx: StepContext) -> None:
    """The losses of the queries under every wanted model, model by model; go on at the first that is not written."""
    from safetensors.torch import load_file

    from attribench.diffusion.model import DiffusionModel
    from attribench.diffusion.stacked import stacked_losses

    training: Training = ctx.params["training"]
    queries: Sequence[GenerationCase] = ctx.params["queries"]
    model = DiffusionModel.load(ctx.bindings["model"], ctx.device)
    model.add_modifiers(dict(training.modifiers))
    pictures = generated(ctx.bindings["plan"], ctx.input("pictures"), ctx.params["role"])
    rows = _rows(model, queries, _latents(model, pictures), ctx.params["measure"])
    names = list(ctx.wanted)
    for done, name in enumerate(names):
        target = ctx.out(name) / LOSSES
        ctx.report(done, len(names), f"{len(names)} models, {len(queries)} queries")
        if target.exists():
            continue
        weights = load_file(ctx.input(name) / WEIGHTS, device=str(ctx.device))
        # One model at a time: the rows of the queries fill a batch, and further models would gain nothing.
        found = stacked_losses(model, [weights], *rows)[0].double().cpu().numpy()
        with target.with_suffix(".part").open("wb") as stream:
            np.save(stream, found.reshape(len(queries), -1).mean(axis=1), allow_pickle=False)
        target.with_suffix(".part").rename(target)


def _latents(model: DiffusionModel, pictures: Sequence) -> Tensor:
    """[n_query, c, h, w], one at a time, since the VAE's rounding depends on its batch."""
    import torch

    return torch.cat([model.latent_moments(model.pixels([picture]))[0] for picture in pictures])


def _rows(
    model: DiffusionModel, queries: Sequence[GenerationCase], latents: Tensor, measure: LossMeasure
) -> tuple[Tensor, list[str], Tensor, Tensor]:
    """Latents, prompts, timesteps and noises, a row for each query, timestep and draw."""
    import torch

    from attribench.diffusion import noise

    each = [(t, draw) for t in measure.at(model.n_timesteps) for draw in range(measure.draws)]
    noises = [noise.normal(model.latent_shape, "query", case.id, t, draw) for case in queries for t, draw in each]
    timesteps = torch.tensor([t for t, _ in each] * len(queries), device=model.device)
    prompts = [case.prompt for case in queries for _ in each]
    return latents.repeat_interleave(len(each), dim=0), prompts, timesteps, torch.stack(noises).to(model.device)
