"""Customizing many models at once, each on its own subset of the training images, and evaluating them at once.

The result for each model is that of `customize` alone, to rounding: the same samples in the same order, the mean
gradient of its own batch, and its own optimizer steps. Models of one pass may have subsets of different sizes; one
that is finished is left untouched while the others go on. Observers are not supported: train a model that is to be
watched with `customize`.

The rows of all models go through the frozen part together (see `stacked_model`), so that a step of S models costs
what a step of one model costs with S times the batch. Each further model needs memory for its projections and
modifiers, their gradient and what the optimizer keeps, and for the activations of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import torch
from PIL import Image
from torch import Tensor

from attribench.data import TrainImage
from attribench.diffusion.config import CustomizationConfig
from attribench.diffusion.customization import optimizer_of, require_finite, without_first_token
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.samples import Draw, Sample, Samples, batched, batches
from attribench.diffusion.stacked_model import StackedModel
from attribench.errors import ModelError

ROWS_AT_ONCE = 32
"""Rows of a batch beyond which a processor gains nothing (see benchmarks/stacked.py)."""
KEPT_SAMPLES = 1024
"""Samples kept for the other models with the same seed: an epoch of a few concepts."""


@dataclass(frozen=True)
class StackedJob:
    """One model to train."""

    images: tuple[TrainImage, ...]
    seed: int


@dataclass(frozen=True)
class Customized:
    """One trained model."""

    weights: dict[str, Tensor]
    """As `DiffusionModel.trained_weights` names them, on the CPU."""
    losses: list[float]
    """The loss of every step, in order."""


def customize_in_turn(
    model: DiffusionModel,
    jobs: Sequence[StackedJob],
    load: Callable[[str], Image.Image],
    config: CustomizationConfig,
    *,
    max_models: int | None = None,
    report: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> Iterator[tuple[int, Customized]]:
    """Train every job from `model` as it is; each job's (number, result) when its pass is over, so that few are held.

    The arguments are those of `customize`; `report` counts the steps of all models together. A pass holds at most
    `max_models`, which does not change the result beyond rounding; None: see `models_at_once`. Passes hold jobs of like
    length, so the numbers do not come in order. Between passes `model` is as it was. Raises ModelError as `customize` does.
    """
    if max_models is not None and max_models < 1:
        raise ModelError(f"max_models is {max_models}; give 1 or more, or None to let the memory decide")
    total = sum(config.steps(len(job.images)) for job in jobs)
    samples = _SharedSamples(Samples(model, [image for job in jobs for image in job.images], load, config))
    longest_first = sorted(range(len(jobs)), key=lambda number: -len(jobs[number].images))
    at_once = max_models or models_at_once(model, config)
    done = 0

    def count(losses: list[float]) -> None:
        nonlocal done
        done += len(losses)
        report(done, total, sum(losses) / len(losses))

    for start in range(0, len(jobs), at_once):
        numbers = longest_first[start : start + at_once]
        results = _Pass(model, [jobs[number] for number in numbers], config).run(samples, count)
        yield from zip(numbers, results, strict=True)


def models_at_once(model: DiffusionModel, config: CustomizationConfig) -> int:
    """How many models one pass holds: as many as fill `ROWS_AT_ONCE`, or half of an accelerator's free memory."""
    by_rows = max(1, ROWS_AT_ONCE // config.batch_size)
    if torch.device(model.device).type != "cuda":
        return by_rows
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(1, min(by_rows, free // 2 // memory_per_model(model, config)))


def memory_per_model(model: DiffusionModel, config: CustomizationConfig) -> int:
    """Bytes that one more model of a pass needs: weights, gradient, optimizer state, and what a backward keeps.

    The last is counted in a step of one model with one image, whatever the device.
    """
    one = _Pass(model, [StackedJob((), seed=0)], config)
    trained = (one.stacked.projections.nbytes + one.stacked.modifiers.nbytes) * (2 if config.optimizer == "sgd" else 4)
    kept: dict[int, int] = {}
    frozen = (parameter for part in (model.unet, model.text_encoder) for parameter in part.parameters())
    shared = {tensor.untyped_storage().data_ptr() for tensor in (*frozen, one.stacked.projections, one.stacked.modifiers)}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in shared:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    latent = torch.zeros(model.latent_shape, device=model.device)
    sample = Sample(" ".join(model.modifiers) or "a", latent, torch.ones_like(latent[:1]), 0, latent)
    with one.stacked.installed(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        losses, _ = one.losses([[sample]])  # held, so that no address is given out twice
    del losses
    return trained + config.batch_size * sum(kept.values())


class _SharedSamples:
    """Samples that models with the same seed and image share: each is made once, unless it was dropped."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self._kept: dict[Draw, Sample] = {}

    def __call__(self, wanted: Sequence[Draw]) -> list[Sample]:
        missing = [draw for draw in dict.fromkeys(wanted) if draw not in self._kept]
        self._kept |= zip(missing, self.samples(missing), strict=True)
        samples = [self._kept[draw] for draw in wanted]
        while len(self._kept) > KEPT_SAMPLES:
            del self._kept[next(iter(self._kept))]  # the one made first
        return samples


class _Pass:
    """The models that train together, longest training first: those that are not finished are always the first ones."""

    def __init__(self, model: DiffusionModel, jobs: Sequence[StackedJob], config: CustomizationConfig) -> None:
        self.model, self.config = model, config
        self.stacked = StackedModel(model, [{}] * len(jobs))
        self.plans = [batches(job.images, config, job.seed) for job in jobs]
        self.trains_modifiers = config.train_modifiers and bool(model.modifiers)
        # One parameter per model and per modifier, as torch.optim would have them alone: each has its own count of
        # steps, and none moves without a gradient. They are views of the stack.
        self.projections = list(self.stacked.projections)
        self.modifiers = [list(vectors) for vectors in self.stacked.modifiers] if self.trains_modifiers else []
        self.optimizer = optimizer_of(self.projections, sum(self.modifiers, []), config, fused=True)
        self._states: dict[str, Tensor] = {}

    def run(self, samples: _SharedSamples, after_step: Callable[[list[float]], None]) -> list[Customized]:
        """Train to the end; `after_step` is told the losses of the models that took the step."""
        losses: list[list[float]] = [[] for _ in self.plans]
        with self.stacked.installed():
            for step in zip_longest(*self.plans):
                draws = [own for _, own in filter(None, step)]
                made = iter(samples([draw for own in draws for draw in own]))
                fresh = self._step([list(islice(made, len(own))) for own in draws])
                for own, loss in zip(losses, fresh, strict=False):
                    own.append(loss)
                    require_finite(own)
                after_step(fresh)
        return [Customized(self.stacked.weights(number), own) for number, own in enumerate(losses)]

    def _step(self, batch: Sequence[Sequence[Sample]]) -> list[float]:
        """One optimizer step of the first k models, [k] lists of samples; their losses."""
        losses, (projections, modifiers) = self.losses(batch)
        losses.sum().backward()  # each model's mean depends on its own weights alone
        for number, parameter in enumerate(self.projections):
            parameter.grad = projections.grad[number] if number < len(batch) else None
        for number, vectors in enumerate(self.modifiers):
            held = self._held(batch[number]) if number < len(batch) else ()
            for modifier, vector in enumerate(vectors):  # None, so that a modifier absent from the batch is not moved
                vector.grad = modifiers.grad[number, modifier] if modifier in held else None
        self.optimizer.step()
        return losses.tolist()

    def losses(self, batch: Sequence[Sequence[Sample]]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Each model's mean loss over its batch [k], and the leaves that its gradient is for."""
        projections = self.stacked.projections[: len(batch)].detach().requires_grad_()
        modifiers = self.stacked.modifiers[: len(batch)].detach().requires_grad_(self.trains_modifiers)
        prompts, places = _prompts_of(batch)
        states = self._encode(prompts, modifiers)
        keys_values = self.stacked.keys_values(states, projections)
        if self.config.detach_first_token:
            keys_values = without_first_token(keys_values)
        if places != list(range(len(states))):
            states, keys_values = states[places], keys_values[places]
        rows = [sample for own in batch for sample in own]
        losses = self.stacked.loss(states, keys_values, *batched(rows))
        means = [own.mean() for own in losses.split([len(own) for own in batch])]
        return torch.stack(means), (projections, modifiers)

    def _encode(self, prompts: Sequence[Sequence[str]], modifiers: Tensor) -> Tensor:
        """Hidden states [k · c, length, d_text]; those of modifiers that stay as they are, once per prompt."""
        if self.trains_modifiers:
            return self.stacked.encode(prompts, modifiers)
        for prompt in {prompt for own in prompts for prompt in own} - self._states.keys():
            self._states[prompt] = self.stacked.encode([[prompt]], modifiers[:1])[0]
        return torch.stack([self._states[prompt] for own in prompts for prompt in own])

    def _held(self, samples: Sequence[Sample]) -> set[int]:
        return set().union(*(self.stacked.held(sample.prompt) for sample in samples))


def _prompts_of(batch: Sequence[Sequence[Sample]]) -> tuple[list[list[str]], list[int]]:
    """The distinct prompts of each model, all lists made equally long by repeating, and each row's place among them."""
    distinct = [list(dict.fromkeys(sample.prompt for sample in own)) for own in batch]
    width = max(map(len, distinct))
    places = [width * number + distinct[number].index(sample.prompt) for number, own in enumerate(batch) for sample in own]
    return [own + own[:1] * (width - len(own)) for own in distinct], places


@torch.no_grad()
def stacked_losses(
    model: DiffusionModel,
    weights: Sequence[Mapping[str, Tensor]],
    latents: Tensor,
    prompts: Sequence[str],
    timesteps: Tensor,
    noise: Tensor,
    *,
    rows_at_once: int = ROWS_AT_ONCE,
) -> Tensor:
    """The loss of n queries under each of S customized models, [S, n]: `load_trained` and `model.loss` in one go.

    latents and noise [n, c, h, w], timesteps [n]; one prompt per query. Queries with the same prompt share its keys
    and values. `rows_at_once` bounds the memory and does not change the result beyond rounding. `model` is left as
    it was; it must know the modifiers (ModelError).
    """
    if not len(latents) == len(prompts) == len(timesteps) == len(noise):
        raise ModelError(
            f"{len(latents)} latents, {len(prompts)} prompts, {len(timesteps)} timesteps and {len(noise)} noises: "
            "give one of each per query"
        )
    losses = torch.empty(len(weights), len(prompts), device=model.device)
    by_prompt = sorted(range(len(prompts)), key=lambda query: prompts[query])
    at_once = max(1, rows_at_once // max(1, len(prompts)))
    for start in range(0, len(weights), at_once):
        some = weights[start : start + at_once]
        stacked = StackedModel(model, some)
        n_queries = max(1, rows_at_once // len(some))
        with stacked.installed():
            encoded: tuple[list[str], Tensor, Tensor] | None = None
            for first in range(0, len(prompts), n_queries):
                queries = by_prompt[first : first + n_queries]
                distinct = list(dict.fromkeys(prompts[query] for query in queries))
                if encoded is None or encoded[0] != distinct:
                    states = stacked.encode([distinct] * len(some), stacked.modifiers)
                    encoded = distinct, states, stacked.keys_values(states, stacked.projections)
                places = [
                    number * len(distinct) + distinct.index(prompts[query]) for number in range(len(some)) for query in queries
                ]
                repeated = queries * len(some)
                fresh = stacked.loss(
                    encoded[1][places], encoded[2][places], latents[repeated], timesteps[repeated], noise[repeated]
                )
                losses[start : start + len(some), queries] = fresh.unflatten(0, (len(some), -1))
    return losses
