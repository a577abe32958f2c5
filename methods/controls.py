"""Controls: methods that know nothing of the query. They show what chance scores, and catch a metric that is off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from attribench.diffusion import noise
from attribench.encoders.features import training_versions
from attribench.interface import Access, AttributionMethod, Queries, Scores, State, Study

from .clip import ClipImage


@dataclass(frozen=True, kw_only=True)
class Random(AttributionMethod):
    """Uniform random scores: what chance gives.

    A score is a function of (seed, study, query, training image); neither the order nor the number of queries
    or training images in a call matters.
    """

    name: ClassVar[str] = "random"
    takes_regions: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    control: ClassVar[bool] = True
    at_chance: ClassVar[bool] = True

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        by_id = np.argsort(study.train.ids)
        values = np.empty((len(queries), len(study.train)))
        for row, query_id in enumerate(queries.ids):
            values[row, by_id] = noise.draws("random", study.seed, study.id, query_id).random(len(by_id))
        return Scores.of(queries, study.train, values)


@dataclass(frozen=True, kw_only=True)
class Constant(AttributionMethod):
    """The same score for every pair: shows how a metric treats ties."""

    name: ClassVar[str] = "constant"
    takes_regions: ClassVar[bool] = True
    control: ClassVar[bool] = True

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        return Scores.of(queries, study.train, np.zeros((len(queries), len(study.train))))


@dataclass(frozen=True, kw_only=True)
class ShuffledQueries(ClipImage):
    """CLIP image scores, each query given those of another one: a real method's scores without their query.

    The permutation has no fixed point (Sattolo's algorithm), is drawn by seed over the ids of the queries of
    one call in sorted order, and so does not depend on their order. A query scored alone keeps its scores: in studies of one
    query it is not run.
    """

    name: ClassVar[str] = "shuffled-queries"
    stochastic: ClassVar[bool] = True
    control: ClassVar[bool] = True
    fewest_queries: ClassVar[int] = 2

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        own = super().score(study, state, queries)
        by_id = np.argsort(queries.ids)
        giver = _derangement(len(queries), noise.draws("shuffled-queries", study.seed, study.id))
        values = np.empty_like(own.values)
        values[by_id] = own.values[by_id[giver]]
        return Scores.of(queries, study.train, values)


@dataclass(frozen=True, kw_only=True)
class TrainingLoss(AttributionMethod):
    """The training image's own loss under the trained model, the same for every query.

        score(i) = mean over t of || ε − ε_θ(x_t, t, p_i) ||²,   noise from the bank

    Higher loss = higher score: gradients grow with the residual, so that gradient methods rank badly fitted
    images high whatever the query. A metric on which this beats chance rewards that habit. Needs the trained
    model; `timesteps` forward passes of the UNet an image.
    """

    name: ClassVar[str] = "training-loss"
    takes_regions: ClassVar[bool] = True
    needs: ClassVar[Access] = Access.GRADIENTS
    control: ClassVar[bool] = True

    timesteps: int = 10
    """Evenly spaced, at the middle of as many equal parts of the schedule."""

    def fit(self, study: Study, state: State) -> None:
        losses = [self._loss(study, row) for row in range(len(study.train))]
        state["losses"] = np.array(losses, dtype=np.float32)

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        return Scores.of(queries, study.train, np.tile(state["losses"], (len(queries), 1)))

    @torch.no_grad()
    def _loss(self, study: Study, row: int) -> float:
        model, image_id, prompt = study.model, study.train.ids[row], study.train.prompts[row]
        times = [int((k + 0.5) * model.n_timesteps / self.timesteps) for k in range(self.timesteps)]
        context = model.encode_prompts([prompt]).expand(self.timesteps, -1, -1)
        losses = []
        for flip, picture in enumerate(training_versions(study, study.train[row])):
            latent, _ = model.latent_moments(model.pixels([picture]))
            draws = [noise.normal(model.latent_shape, "training-loss", image_id, prompt, t, flip) for t in times]
            timesteps = torch.tensor(times, device=model.device)
            latents = latent.expand(self.timesteps, -1, -1, -1)
            losses.append(model.loss(latents, context, timesteps, torch.stack(draws).to(model.device)).mean().item())
        return max(losses)


def _derangement(n: int, random: np.random.Generator) -> np.ndarray:
    """A random permutation of n > 1 items that is one cycle, hence moves each (Sattolo)."""
    order = np.arange(n)
    for last in range(n - 1, 0, -1):
        other = random.integers(last)
        order[[last, other]] = order[[other, last]]
    return order
