"""The losses of all training images under changed weights, and their first-order stand-in.

Each (image, flip) is seen at the same strided timesteps with noise of its own from the bank, whatever the weights, so
that a difference of losses is one of weights (the published code draws noise for a batch and its number, so that scores
depend on how images are batched). Rows: training images, then their mirror images where training used flips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL.Image import Transpose
from torch import Tensor

from attribench.diffusion import noise
from attribench.diffusion.model import DiffusionModel
from attribench.gradients.diffusion import GradientReader, Sample, timesteps_of
from attribench.gradients.groups import Group, layers_of
from attribench.interface import State, Study

from .newton import changed

ROWS = 64
"""(image, timestep) rows in one pass."""

Change = Mapping[str, Tensor]


def keep_latents(study: Study, state: State) -> None:
    """state["latents"] [rows, c, h, w]: posterior means, encoded once. Goes on after a kill."""
    model, n = study.model, len(study.train)
    rows = (2 if study.flips else 1) * n
    latents = state.create("latents", (rows, *model.latent_shape))
    written = state.create("latents.written", (1,), "int64")
    for row in range(int(written[0]), rows):  # one at a time: the VAE's rounding depends on its batch
        flip, i = divmod(row, n)
        picture = study.train[i].transpose(Transpose.FLIP_LEFT_RIGHT) if flip else study.train[i]
        latents[row] = model.latent_moments(model.pixels([picture]))[0][0].cpu().numpy()
        latents.flush()
        written[0] = row + 1
        written.flush()


class Sweep:
    """Goes over all rows in blocks; `at_once` (image, timestep) rows are one pass of the UNet."""

    def __init__(self, study: Study, latents: np.ndarray, timesteps: int, group: Group, at_once: int = ROWS) -> None:
        self.study, self.model, self.latents, self.rows = study, study.model, latents, len(latents)
        self.steps = timesteps_of("uniform", timesteps, self.model.n_timesteps)
        self.group, self.layers, self.at_once = group, layers_of(self.model.unet, group), at_once

    def losses(self, changes: Sequence[Change], start: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of rows from `start` on, with L(row, θ_0 + change) for each of the changes: [Q, block] float64.

        The queries' weights take turns on each block, so that noise, latents and prompts are made ready once for all.
        """
        contexts = _Contexts(self.model)
        for rows in self._blocks(start):
            samples = [self.sample(row) for row in range(rows.start, rows.stop)]
            latents = torch.cat([sample.latents for sample in samples]).to(self.model.device)
            drawn = torch.cat([sample.noise for sample in samples]).to(self.model.device)
            steps = torch.tensor(self.steps, device=self.model.device).repeat(len(samples))
            context = torch.stack([contexts[sample.prompt] for sample in samples]).repeat_interleave(len(self.steps), dim=0)
            found = []
            for change in changes:
                with changed(self.layers, change), torch.no_grad():
                    losses = self._in_passes(latents, context, steps, drawn)
                found.append(losses.double().unflatten(0, (len(samples), -1)).mean(dim=1))
            yield rows, torch.stack(found)

    def first_order(self, changes: Sequence[Change]) -> Iterator[tuple[slice, Tensor]]:
        """⟨∇L(row, θ_0), change⟩ for each of the changes, [Q, block], from one pass of gradients for them all."""
        reader = GradientReader(self.model, self.group, "loss", rows=self.at_once)
        directions = {name: torch.stack([change[name] for change in changes]) for name in self.layers}

        def contract(factors: Mapping) -> Tensor:
            return sum(factor.inner(directions[name]) for name, factor in factors.items())

        start = 0
        for read in reader.read((self.sample(row) for row in range(self.rows)), contract):
            yield slice(start, start + len(read.features)), read.features.T
            start += len(read.features)

    def sample(self, row: int) -> Sample:
        """A training image or its mirror image, with its noise."""
        flip, i = divmod(row, len(self.study.train))
        image_id, prompt = self.study.train.ids[i], self.study.train.prompts[i]
        dtype = self.model.unet.dtype
        drawn = [noise.normal(self.model.latent_shape, "sweep", image_id, prompt, t, flip) for t in self.steps]
        latent = torch.from_numpy(np.array(self.latents[row])).to(dtype)
        return Sample(
            id=image_id, prompt=prompt, latents=latent.expand(len(self.steps), -1, -1, -1), timesteps=self.steps,
            noise=torch.stack(drawn).to(dtype),
        )  # fmt: skip

    def _blocks(self, start: int) -> Iterator[slice]:
        size = max(1, self.at_once // len(self.steps))
        for first in range(start, self.rows, size):
            yield slice(first, min(first + size, self.rows))

    def _in_passes(self, latents: Tensor, context: Tensor, steps: Tensor, drawn: Tensor) -> Tensor:
        """Losses of rows, at most `at_once` of them at a time."""
        parts = [tensor.split(self.at_once) for tensor in (latents, context, steps, drawn)]
        return torch.cat([self.model.loss(*rows) for rows in zip(*parts, strict=True)])


class _Contexts(dict):
    """Prompt -> hidden states [length, d_text], each encoded alone and once."""

    def __init__(self, model: DiffusionModel) -> None:
        self.model = model

    def __missing__(self, prompt: str) -> Tensor:
        with torch.no_grad():
            self[prompt] = self.model.encode_prompts([prompt])[0]
        return self[prompt]
