"""JourneyTRAK: TRAK whose queries are the steps of a generation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch

from attribench.diffusion.model import DiffusionModel
from attribench.gradients.diffusion import Sample
from attribench.gradients.features import GradientFeatures
from attribench.gradients.region import query_mask
from attribench.interface import Access, Edition, Queries, Study

from .gradient import Positive
from .trak import Trak


@dataclass(frozen=True, kw_only=True)
class JourneyFeatures(GradientFeatures):
    """Training images as TRAK reads them; a query at the model's own guesses of x_0 along its sampling.

    E over x_t given x̂_0(t): at each of `query_steps` steps of the sampling, x̂_0(t) is noised to t `resamplings`
    times, and the gradients of all these rows are averaged.
    """

    needs: ClassVar[Access] = GradientFeatures.needs | Access.TRAJECTORY

    query_steps: int
    resamplings: int

    @property
    def name(self) -> str:
        return f"{super().name} along the sampling"

    def query_sample(self, study: Study, model: DiffusionModel, queries: Queries, i: int) -> Sample:
        path = study.trajectory(queries.ids[i])
        wanted = np.linspace(0, len(path.timesteps) - 1, min(self.query_steps, len(path.timesteps))).round().astype(int)
        rows = np.repeat(wanted, self.resamplings)
        steps = [int(t) for t in path.timesteps[rows]]
        return Sample(
            id=queries.ids[i],
            prompt=queries.prompts[i],
            latents=torch.from_numpy(np.array(path.estimates[rows])).to(model.device),
            timesteps=steps,
            noise=self._noise(model, queries.ids[i], queries.prompts[i], steps),
            mask=query_mask(queries, i, model),
        )


@dataclass(frozen=True, kw_only=True)
class JourneyTrak(Trak):
    """TRAK, with the query's gradient taken along its sampling in place of at the finished picture.

        τ(q, i) = mean over t of  φ_q(x̂_0(t), t)ᵀ A φ_i,    f = the loss at x_t drawn anew from x̂_0(t)

    Georgiev et al., "The journey, not the destination: how data guides diffusion models", 2023; the average over
    the steps of the sampling is D-TRAK's form of it, `query_steps=1` looks at the first step alone. Needs the trained
    model and the sampling's guesses; a backward pass per image and timestep, and for a query `query_steps` ×
    `resamplings` of them.
    """

    name: ClassVar[str] = "journey-trak"
    needs: ClassVar[Access] = Trak.needs | Access.TRAJECTORY

    query_steps: Positive | None = None
    """Evenly spaced steps of the sampling. None: 5 for mini, 50 for paper."""
    resamplings: Positive | None = None
    """Times that each step's guess is noised. None: 2 for mini, 20 for paper."""

    def resolve(self, edition: Edition) -> Self:
        steps, resamplings = (5, 2) if edition == "mini" else (50, 20)
        return dataclasses.replace(
            super().resolve(edition), query_steps=self.query_steps or steps, resamplings=self.resamplings or resamplings
        )

    def gradients(self) -> JourneyFeatures:
        own = self.resolve("mini")
        return JourneyFeatures(**self._gradient_fields(), query_steps=own.query_steps, resamplings=own.resamplings)
