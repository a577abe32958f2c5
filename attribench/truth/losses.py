"""What becomes of a study's generated pictures under retrained models: the step that takes losses, and the answer to a
protocol's request.

    L(q, θ) = mean over t and draws of || ε − ε_θ(x_t(q), t, prompt of q) ||²        (mean over latent elements)

x(q) is the VAE's latent of the generated picture, and the noise belongs to (query, timestep, draw): it is the same
for every model, so that a difference of losses is one of models. What is found in one look, at some queries under one
model, is an artifact of its own, and does not depend on which other looks are taken beside it:

    losses.npy      [n_query] float64, in the order of the look's queries
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attribench.data import GenerationCase, Role
from attribench.diffusion import noise
from attribench.engine.identity import token
from attribench.engine.steps import Ref, Step, StepContext
from attribench.measurement import Retrained
from attribench.study.generated import generated
from attribench.study.retrainings import Look, LossMeasure, Part, Retrainings
from attribench.study.steps import WEIGHTS
from attribench.study.training import Training
from attribench.truth.regeneration import DEVIATION, compare_step, regenerate_step
from attribench.truth.retraining import in_chunks, retrain_steps

if TYPE_CHECKING:
    from torch import Tensor

    from attribench.diffusion.model import DiffusionModel
    from attribench.study.study_steps import StudySteps

LOSSES = "losses.npy"


@dataclass(frozen=True)
class TakenLosses:
    """The answer to one request of a protocol: where each model, and what is seen under it, is made."""

    request: Retrainings
    study: StudySteps
    models: Mapping[Part, Ref]
    full: Mapping[tuple[int, ...], Ref]
    """Losses of queries, by number, under the model that is attributed."""
    losses: Mapping[Look, Ref]
    deviations: Mapping[Look, Ref]
    """How pictures that are generated again deviate; empty where that is not asked for."""
    pictures: Mapping[Look, Ref]
    """These pictures."""

    @classmethod
    def of_all(cls, study: StudySteps, requests: Sequence[Retrainings], has: Callable[[str], bool]) -> dict[Role, TakenLosses]:
        """The steps for the requests of a study, by role; what the store `has` (by key) is not made again.

        Raises UsageError for a request that cannot be met.
        """
        unknown: dict[Role, set[Part]] = {}
        for request in requests:
            weights = retrain_steps(study, request.parts, has)
            whole = cls._of(study, request, weights, [request.parts])
            refs = [*whole.losses.items(), *whole.deviations.items()]
            unknown[request.role] = {look.part for look, ref in refs if not has(ref.key)}
        # Apart from the others, whose models may be gone while what was seen under them is there.
        needed = [part for request in requests for part in request.parts if part in unknown[request.role]]
        models = retrain_steps(study, needed, has)
        others = [part for request in requests for part in request.parts if part not in models]
        models |= retrain_steps(study, others, has)
        answers = {}
        for request in requests:
            groups = [[part for part in request.parts if (part in unknown[request.role]) is there] for there in (True, False)]
            own = {part: models[part] for part in request.parts}
            answers[request.role] = cls._of(study, request, own, [some for group in groups for some in in_chunks(group)])
        return answers

    @classmethod
    def _of(
        cls, study: StudySteps, request: Retrainings, models: Mapping[Part, Ref], chunks: Iterable[Sequence[Part]]
    ) -> TakenLosses:
        """`chunks`: the models under which one step looks."""
        looks: dict[Part, list[Look]] = {}
        for look in dict.fromkeys(request.looks):
            looks.setdefault(look.part, []).append(look)
        losses, deviations, pictures = {}, {}, {}
        for chunk in filter(None, chunks):
            seen = {f"{part.name}-{_ids(study, request, look.queries)}": look for part in chunk for look in looks[part]}
            weights = {name: models[look.part] for name, look in seen.items()}
            taken = {name: _cases(study, request, look.queries) for name, look in seen.items()}
            step = _losses_step(study, request, weights, taken)
            losses |= {look: Ref(step, name) for name, look in seen.items()}
            if request.encoder is not None:
                again = regenerate_step(study, weights, taken)
                compared = compare_step(study, again, request.role, request.encoder)
                pictures |= {look: Ref(again, name) for name, look in seen.items()}
                deviations |= {look: Ref(compared, name) for name, look in seen.items()}
        groups = list(dict.fromkeys(look.queries for look in request.looks))
        own = {f"full-{_ids(study, request, queries)}": queries for queries in groups}
        taken = {name: _cases(study, request, queries) for name, queries in own.items()}
        full = _losses_step(study, request, dict.fromkeys(own, Ref(study.trainings[0], "weights")), taken) if own else None
        return cls(
            request, study, models, {queries: Ref(full, name) for name, queries in own.items()}, losses, deviations, pictures
        )

    @property
    def steps(self) -> list[Step]:
        """What has to succeed for all of it to be known."""
        refs = (*self.full.values(), *self.losses.values(), *self.deviations.values())
        return list(dict.fromkeys(ref.step for ref in refs))

    def found_before(self, has: Callable[[str], bool]) -> dict[str, bool]:
        """By the key of each model: whether it, or all that was wanted of it, is there already."""
        wanted: dict[Part, list[str]] = {part: [] for part in self.models}
        for look, ref in [*self.losses.items(), *self.deviations.items()]:
            wanted[look.part].append(ref.key)
        return {ref.key: has(ref.key) or all(map(has, wanted[part])) for part, ref in self.models.items()}

    def retrained(self, path: Callable[[str], Path]) -> Retrained:
        """What was found, from the store whose `path` gives an artifact's folder by its key."""
        request, n_queries = self.request, len(self.study.plan.roles(self.request.role))
        masks = np.ones((len(request.left_out), request.n_train), dtype=bool)
        for mask, left_out in zip(masks, request.left_out, strict=True):
            mask[list(left_out)] = False
        subset = {left_out: number for number, left_out in enumerate(request.left_out)}
        losses, deviations = (np.full((n, n_queries, len(masks), len(request.seeds)), np.nan) for n in (1, 2))
        for found, refs, file in ((losses, self.losses, LOSSES), (deviations, self.deviations, DEVIATION)):
            for look, ref in refs.items():
                at = subset[look.part.left_out], request.seeds.index(look.part.seed)
                found[(slice(None), list(look.queries), *at)] = np.load(path(ref.key) / file, allow_pickle=False)
        full = np.full(n_queries, np.nan)
        for queries, ref in self.full.items():
            full[list(queries)] = np.load(path(ref.key) / LOSSES, allow_pickle=False)
        return Retrained(
            masks=masks,
            seeds=request.seeds,
            losses=losses[0],
            full=full,
            own_seed=self.study.plan.training.seed,
            squared_errors=deviations[0] if self.deviations else None,
            similarities=deviations[1] if self.deviations else None,
        )


def _cases(study: StudySteps, request: Retrainings, queries: Sequence[int]) -> tuple[GenerationCase, ...]:
    cases = study.plan.roles(request.role)
    return tuple(cases[number] for number in queries)


def _ids(study: StudySteps, request: Retrainings, queries: Sequence[int]) -> str:
    return token([case.id for case in _cases(study, request, queries)], "queries")[:8]


def _losses_step(
    study: StudySteps, request: Retrainings, weights: Mapping[str, Ref], taken: Mapping[str, Sequence[GenerationCase]]
) -> Step:
    """`weights` and the queries that are looked at under them, by output."""
    plan, n_looks = study.plan, len(taken)
    return Step(
        name="losses",
        label=f"{plan.id}, {n_looks} looks at {request.role} pictures",
        function=take,
        params={"training": plan.training.seedless, "measure": request.measure},
        inputs={"pictures": Ref(study.pictures, "pictures"), **weights},
        own_inputs={name: frozenset({name}) for name in weights},
        outputs={name: tuple(cases) for name, cases in taken.items()},
        bindings={**study.bindings, "plan": plan, "role": request.role},
        estimate=_estimate(study, request.measure, sum(map(len, taken.values())), n_looks),
        gpu=True,
    )


def _estimate(study: StudySteps, measure: LossMeasure, n_queries: int, n_looks: int) -> dict[str, float] | None:
    """From that of the generation, which has two rows (for guidance) per picture and step."""
    generation, plan = study.pictures.estimate, study.plan
    if generation is None:
        return None
    row = generation["seconds"] / (2 * plan.sampling.steps * len(plan.cases))
    n_rows = n_queries * measure.timesteps * measure.draws
    return {"seconds": n_rows * row, "peak_bytes": generation["peak_bytes"], "bytes": 1000.0 * n_looks}


def take(ctx: StepContext) -> None:
    """The losses of every wanted look, one after the other; go on at the first that is not written."""
    from safetensors.torch import load_file

    plan = ctx.bindings["plan"]
    training: Training = plan.training
    model = training.untrained(ctx.bindings["model"], ctx.device)
    pictures = generated(plan, ctx.input("pictures"), ctx.bindings["role"])
    latents: dict[str, Tensor] = {}
    for done, (name, cases) in enumerate(ctx.wanted.items()):
        target = ctx.out(name) / LOSSES
        ctx.report(done, len(ctx.wanted), f"{len(ctx.wanted)} looks")
        if target.exists():
            continue
        for case in cases:
            if case.id not in latents:  # one at a time, since the VAE's rounding depends on its batch
                picture = pictures[pictures.ids.index(case.id)]
                latents[case.id] = model.latent_moments(model.pixels([picture]))[0]
        weights = load_file(ctx.input(name) / WEIGHTS, device=str(ctx.device))
        rows = _rows(model, cases, [latents[case.id] for case in cases], ctx.params["measure"])
        found = training.losses(model, weights, *rows).double().cpu().numpy()
        with target.with_suffix(".part").open("wb") as stream:
            np.save(stream, found.reshape(len(cases), -1).mean(axis=1), allow_pickle=False)
        target.with_suffix(".part").rename(target)


def _rows(
    model: DiffusionModel, queries: Sequence[GenerationCase], latents: Sequence[Tensor], measure: LossMeasure
) -> tuple[Tensor, list[str], Tensor, Tensor]:
    """Latents, prompts, timesteps and noises, a row for each query, timestep and draw."""
    import torch

    each = [(t, draw) for t in measure.at(model.n_timesteps) for draw in range(measure.draws)]
    noises = [noise.normal(model.latent_shape, "query", case.id, t, draw) for case in queries for t, draw in each]
    timesteps = torch.tensor([t for t, _ in each] * len(queries), device=model.device)
    prompts = [case.prompt for case in queries for _ in each]
    repeated = torch.cat(list(latents)).repeat_interleave(len(each), dim=0)
    return repeated, prompts, timesteps, torch.stack(noises).to(model.device)
