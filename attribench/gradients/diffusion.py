"""Gradients of a diffusion model for pictures: each picture's gradient averaged over timesteps, projected.

    φ(x, p) = Pᵀ [ (1/K) Σ_{t in S} ∇_θ f(x_t, t, p) ],     x_t = √ᾱ_t x + √(1−ᾱ_t) ε

One row of a pass is one (picture, timestep). What a row's noise is belongs to the noise bank, so that features do
not depend on how rows are batched. Nothing here knows how features are stored or scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from attribench.diffusion import noise
from attribench.diffusion.model import DiffusionModel
from attribench.errors import MethodError
from attribench.gradients.factors import Factor, by_vmap, is_supported, record
from attribench.gradients.groups import Group, layers_of
from attribench.gradients.outputs import OutputFunction, output, squared_error

Spacing = Literal["uniform", "cumulative", "random", "stratified"]

ROWS = 64
"""(picture, timestep) rows in one pass."""
PROMPTS = 1024
"""Whose hidden states are kept: all of a customized study, and few of a captioned data set, whose captions come once each."""
_PROMPT_LAYER = ("attn2.to_k", "attn2.to_v")


def timesteps_of(spacing: Spacing, count: int, n_timesteps: int, *key: str | int) -> list[int]:
    """S: evenly spread over the schedule, or its first `count` steps (D-TRAK), or random with replacement, by `key`.

    stratified: a random one of each of `count` equal parts of the schedule, which hits every timestep equally often.
    """
    if count > n_timesteps:
        raise MethodError(f"timesteps={count}, but the model's schedule has {n_timesteps}; ask for fewer")
    match spacing:
        case "uniform":
            return list(range(0, n_timesteps, n_timesteps // count))[:count]
        case "cumulative":
            return list(range(count))
        case "random":
            return noise.draws("timesteps", *key).integers(n_timesteps, size=count).tolist()
        case "stratified":
            parts = np.arange(count) + noise.draws("timesteps", *key).random(count)
            return np.minimum(parts * n_timesteps / count, n_timesteps - 1).astype(int).tolist()


@dataclass(frozen=True)
class Sample:
    """One picture to differentiate for, as K rows."""

    id: str
    prompt: str
    latents: Tensor
    """Clean latents, [K, c, h, w]: the same K times, or one per timestep."""
    timesteps: Sequence[int]
    """[K]."""
    noise: Tensor
    """[K, c, h, w]."""
    mask: Tensor | None = None
    """[1, h, w], 1 where the prediction counts (`region.query_mask`). None: everywhere."""


def contexts_of(model: DiffusionModel) -> Callable[[str], Tensor]:
    """Hidden states [length, d_text] of a prompt, encoded alone, since a text encoder's rounding depends on its batch."""

    @lru_cache(maxsize=PROMPTS)
    @torch.no_grad()
    def context(prompt: str) -> Tensor:
        return model.encode_prompts([prompt])[0]

    return context


@dataclass(frozen=True)
class Gradients:
    """Of a batch of samples."""

    features: Tensor
    """[n, k] float32, on the CPU."""
    errors: Tensor
    """Squared error of the prediction at each of the K rows, [n, K] float32, on the CPU."""


class GradientReader:
    """Reads projected gradients of one trained model.

    Rows of a prompt see the same keys' and values' input whatever the timestep and noise, so for these layers
    only output gradients are summed (exact).
    """

    def __init__(
        self, model: DiffusionModel, group: Group, function: OutputFunction, *, normalize: bool = False,
        precision: Literal["float32", "bfloat16"] = "float32", vmap: bool = False, rows: int = ROWS,
    ) -> None:  # fmt: skip
        self.model, self.function, self.normalize, self.precision, self.rows = model, function, normalize, precision, rows
        self.layers = layers_of(model.unet, group)
        self.shapes = {name: _shape(layer) for name, layer in self.layers.items()}
        """(out, in) of each layer's gradient, a bias counted as one more input."""
        self.n_parameters = sum(out * columns for out, columns in self.shapes.values())
        self._by_factors = {} if vmap else {name: la for name, la in self.layers.items() if is_supported(la)}
        self._by_vmap = {name: layer for name, layer in self.layers.items() if name not in self._by_factors}
        self._alphas = model.scheduler.alphas_cumprod.to(model.device)
        self._context = contexts_of(model)

    def read(self, samples: Iterable[Sample], project: Callable[[Mapping[str, Factor]], Tensor]) -> Iterator[Gradients]:
        """The samples' gradients in batches, in order. Raises MethodError for a sample whose value is not finite."""
        batch: list[Sample] = []
        for sample in samples:
            if batch and (len(batch) + 1) * len(sample.timesteps) > max(self.rows, len(sample.timesteps)):
                yield self._read_batch(batch, project)
                batch = []
            batch.append(sample)
        if batch:
            yield self._read_batch(batch, project)

    def _read_batch(self, batch: list[Sample], project: Callable[[Mapping[str, Factor]], Tensor]) -> Gradients:
        """A batch of whole samples; the timesteps of one that is larger than a pass are summed over passes."""
        k = len(batch[0].timesteps)
        features, errors = 0, []
        for start in range(0, k, self.rows):
            factors, error = self.factors(batch, slice(start, start + self.rows))
            features = features + project(factors)
            errors.append(error)
        return Gradients(features.cpu(), torch.cat(errors, dim=1).cpu())

    def factors(self, batch: Sequence[Sample], part: slice = slice(None)) -> tuple[dict[str, Factor], Tensor]:
        """Gradients averaged over all K timesteps, counting those of `part` alone, and squared errors [n, part]."""
        rows = self._rows(batch, part)
        k, share = len(rows[0]) // len(batch), 1 / len(batch[0].timesteps)
        errors: list[Tensor] = []

        def run() -> Tensor:
            with self._autocast():
                return self._values(self.model.unet, rows, errors)

        seen = record(self._by_factors, run) if self._by_factors else {}
        if not seen:
            with torch.no_grad():
                run()
        of_rows = errors[0].unflatten(0, (len(batch), k))
        _require_finite(of_rows, batch)
        weights = torch.full((len(rows[0]),), share, device=self.model.device)
        if self.normalize:
            squares = [recorded.squared_norms() for recorded in seen.values()]
            per_row = self._vmap_factors(rows, torch.ones_like(weights), 1)
            squares += [factor.matrix().square().sum(dim=(1, 2)) for factor in per_row.values()]
            norm = torch.stack(squares).sum(dim=0).sqrt()
            weights = torch.where(norm > 0, weights / norm, 0.0)
        factors = {name: recorded.factor(k, weights, same_input=name.endswith(_PROMPT_LAYER)) for name, recorded in seen.items()}
        factors |= self._vmap_factors(rows, weights, k)
        return {name: factors[name] for name in self.layers}, of_rows

    # --------------------------------------------------------------------------------------- rows

    def _rows(self, batch: Sequence[Sample], part: slice) -> tuple[Tensor, ...]:
        """Noisy latents, timesteps, contexts and targets of all rows, sample by sample; masks too if a sample has one."""
        device = self.model.device
        latents = torch.cat([sample.latents[part] for sample in batch]).to(device)
        drawn = torch.cat([sample.noise[part] for sample in batch]).to(device)
        steps = torch.tensor([t for sample in batch for t in sample.timesteps[part]], device=device)
        k = len(steps) // len(batch)
        contexts = torch.stack([self._context(sample.prompt) for sample in batch]).repeat_interleave(k, dim=0)
        noisy = self.model.scheduler.add_noise(latents, drawn, steps)
        epsilon = self.model.scheduler.config.prediction_type == "epsilon"
        target = drawn if epsilon else self.model.scheduler.get_velocity(latents, drawn, steps)
        if all(sample.mask is None for sample in batch):
            return noisy, steps, contexts, target
        whole = torch.ones(1, *latents.shape[2:])
        masks = torch.stack([whole if sample.mask is None else sample.mask for sample in batch])
        return noisy, steps, contexts, target, masks.repeat_interleave(k, dim=0).to(latents)

    def _values(self, call: Callable, rows: Sequence[Tensor], errors: list[Tensor] | None = None) -> Tensor:
        """f of every row, [N], with what autocast computed taken back to full precision."""
        noisy, steps, contexts, target, *mask = rows
        prediction = call(noisy, steps, encoder_hidden_states=contexts, return_dict=False)[0].to(target.dtype)
        if errors is not None:
            errors.append(squared_error(prediction.detach(), target, *mask))
        return output(self.function, prediction, target, steps, self._alphas.to(target.dtype), *mask)

    def _vmap_factors(self, rows: Sequence[Tensor], weights: Tensor, k: int) -> dict[str, Factor]:
        return by_vmap(self.model.unet, self._by_vmap, self._values, rows, weights, k) if self._by_vmap else {}

    def _autocast(self) -> torch.autocast:
        device = torch.device(self.model.device).type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")


def _shape(layer: nn.Module) -> tuple[int, int]:
    sizes = [(len(parameter), parameter.numel()) for parameter in layer.parameters(recurse=False)]
    out = sizes[0][0]
    return out, sum(size for _, size in sizes) // out


def _require_finite(errors: Tensor, batch: Sequence[Sample]) -> None:
    bad = (~errors.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
    if bad:
        raise MethodError(
            f"the model's loss is not finite for {len(bad)} pictures, the first {batch[bad[0]].id!r}; "
            "its weights are broken or its training diverged: train it again with a lower learning rate"
        )
