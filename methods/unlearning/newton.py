"""Newton ascent on the loss of one generated picture, and changed weights put in place and taken away again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attribench.diffusion import noise
from attribench.errors import MethodError
from attribench.gradients.curvature import Curvature
from attribench.gradients.diffusion import GradientReader, Sample, timesteps_of
from attribench.gradients.region import query_mask
from attribench.interface import Queries


@dataclass(frozen=True)
class Ascent:
    """θ ← θ + s F⁻¹ ∇L(q, θ), `steps` times (equation 5)."""

    reader: GradientReader
    curvature: Curvature
    steps: int
    step_size: float
    divisor: float | None
    """s = step_size / divisor; None: s such that ⟨∇L(q, θ_0), step⟩ = step_size · L(q, θ_0) / steps."""
    timesteps: int

    def change(self, queries: Queries, i: int) -> dict[str, Tensor]:
        """θ − θ_0 after unlearning query i: each layer's [out, in], a bias as the last column.

        Raises MethodError when a step diverges.
        """
        change: dict[str, Tensor] = {}
        scale = 0.0
        for step, sample in enumerate(self.samples(queries, i)):
            gradient, loss = self._gradient(sample, step, change)
            direction = self.curvature.solve(gradient)
            if step == 0:
                scale = self._scale(gradient, direction, loss)
            change = {name: change.get(name, 0.0) + scale * part for name, part in direction.items()}
            if not all(bool(part.isfinite().all()) for part in change.values()):
                raise self._diverged(queries.ids[i], step)
        return {name: part.to(self.reader.model.unet.dtype) for name, part in change.items()}

    def _scale(self, gradient: Mapping[str, Tensor], direction: Mapping[str, Tensor], loss: float) -> float:
        if self.divisor is not None:
            return self.step_size / self.divisor
        rise = sum(float((gradient[name].double() * part).sum()) for name, part in direction.items())  # gᵀ F⁻¹ g
        return self.step_size / self.steps * loss / rise if rise > 0 else 0.0

    def _gradient(self, sample: Sample, step: int, change: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], float]:
        """∇L(q, θ_0 + change) of every layer, and L: means over the step's timesteps and noise."""
        gradient, errors = {}, []
        try:
            with changed(self.reader.layers, change):
                for start in range(0, self.timesteps, self.reader.rows):
                    factors, error = self.reader.factors([sample], slice(start, start + self.reader.rows))
                    errors.append(error)
                    for name, factor in factors.items():
                        gradient[name] = gradient.get(name, 0.0) + factor.matrix()[0].double()
        except MethodError as error:
            if step == 0:  # the trained model's own fault
                raise
            raise self._diverged(sample.id, step) from error
        return gradient, float(torch.cat(errors, dim=1).double().mean())

    def samples(self, queries: Queries, i: int) -> Iterator[Sample]:
        """The rows that stand for query i, step by step: timesteps and noise of its own, from the bank, and its box."""
        model, key = self.reader.model, (queries.ids[i], queries.prompts[i])
        # scaled by the VAE's factor, as the training latents are (the published code for customized models is not)
        latent = model.latent_moments(model.pixels([queries[i]]))[0].to(model.unet.dtype)
        for step in range(self.steps):
            steps = timesteps_of("stratified", self.timesteps, model.n_timesteps, "unlearning", *key, step)
            drawn = [noise.normal(model.latent_shape, "unlearn", *key, t, step, k) for k, t in enumerate(steps)]
            yield Sample(
                id=key[0], prompt=key[1], latents=latent.expand(len(steps), -1, -1, -1), timesteps=steps,
                noise=torch.stack(drawn).to(latent), mask=query_mask(queries, i, model),
            )  # fmt: skip

    def _diverged(self, query_id: str, step: int) -> MethodError:
        return MethodError(
            f"unlearning {query_id!r} diverged at step {step + 1} of {self.steps}; "
            f"take a smaller step_size than {self.step_size:g}"
        )


@contextmanager
def changed(layers: Mapping[str, nn.Module], change: Mapping[str, Tensor]) -> Iterator[None]:
    """θ_0 + change in place of the layers' weights; at the end the very tensors of before are back."""
    kept = [(parameter, parameter.data) for name in change for parameter in layers[name].parameters(recurse=False)]
    try:
        for name, part in change.items():
            out, start = part.shape[0], 0
            for parameter in layers[name].parameters(recurse=False):
                columns = math.prod(parameter.shape) // out
                moved = part[:, start : start + columns].reshape(parameter.shape)
                parameter.data = (parameter.data + moved).to(parameter.dtype)  # summed in the finer of the two
                start += columns
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data
