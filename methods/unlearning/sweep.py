"""The losses of all training images under changed weights, and their first-order stand-in.

The loss of a training image is the mean over its captions and strided timesteps, with noise of its own from the bank for
each (image, flip, caption, timestep), whatever the weights: a difference of losses is one of weights. (The published code
draws noise for a batch and its number, so that scores depend on how images are batched.) Rows: training images, then
their mirror images where training used flips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL.Image import Transpose
from torch import Tensor

from attribench.diffusion import noise
from attribench.gradients.diffusion import GradientReader, Sample, contexts_of, timesteps_of
from attribench.gradients.groups import Group, layers_of
from attribench.interface import State, Study

from .newton import changed

ROWS = 64
"""(image, caption, timestep) rows in one pass."""

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
    """Goes over all rows in blocks; `at_once` (image, caption, timestep) rows are one pass of the UNet."""

    def __init__(self, study: Study, latents: np.ndarray, timesteps: int, group: Group, at_once: int = ROWS) -> None:
        self.study, self.model, self.latents, self.rows = study, study.model, latents, len(latents)
        self.steps = timesteps_of("uniform", timesteps, self.model.n_timesteps)
        self.group, self.layers, self.at_once = group, layers_of(self.model.unet, group), at_once
        self.captions = len(study.train.all_prompts[0]) if len(study.train) else 1

    def losses(self, changes: Sequence[Change], start: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of rows from `start` on, with L(row, θ_0 + change) for each of the changes: [Q, block] float64.

        The queries' weights take turns on each block, so that noise, latents and prompts are made ready once for all.
        """
        context_of = contexts_of(self.model)
        for rows in self._blocks(start):
            samples = [sample for row in range(rows.start, rows.stop) for sample in self.samples(row)]
            latents = torch.cat([sample.latents for sample in samples]).to(self.model.device)
            drawn = torch.cat([sample.noise for sample in samples]).to(self.model.device)
            steps = torch.tensor(self.steps, device=self.model.device).repeat(len(samples))
            context = torch.stack([context_of(sample.prompt) for sample in samples]).repeat_interleave(len(self.steps), dim=0)
            found = []
            for change in changes:
                with changed(self.layers, change), torch.no_grad():
                    losses = self._in_passes(latents, context, steps, drawn)
                found.append(losses.double().unflatten(0, (rows.stop - rows.start, -1)).mean(dim=1))
            yield rows, torch.stack(found)

    def first_order(self, changes: Sequence[Change]) -> Iterator[tuple[slice, Tensor]]:
        """⟨∇L(row, θ_0), change⟩ for each of the changes, [Q, block], from one pass of gradients for them all."""
        reader = GradientReader(self.model, self.group, "loss", rows=self.at_once)
        directions = {name: torch.stack([change[name] for change in changes]) for name in self.layers}

        def contract(factors: Mapping) -> Tensor:
            return sum(factor.inner(directions[name]) for name, factor in factors.items())

        start, waiting = 0, torch.zeros(0, len(changes))
        for read in reader.read((sample for row in range(self.rows) for sample in self.samples(row)), contract):
            waiting = torch.cat([waiting.to(read.features), read.features])
            whole = len(waiting) // self.captions  # a pass may end between two captions of an image
            yield slice(start, start + whole), waiting[: whole * self.captions].unflatten(0, (whole, self.captions)).mean(dim=1).T
            start, waiting = start + whole, waiting[whole * self.captions :]

    def samples(self, row: int) -> list[Sample]:
        """A training image or its mirror image with each of its captions, and noise of their own."""
        flip, i = divmod(row, len(self.study.train))
        image_id, dtype = self.study.train.ids[i], self.model.unet.dtype
        latent = torch.from_numpy(np.array(self.latents[row])).to(dtype).expand(len(self.steps), -1, -1, -1)
        return [
            Sample(id=image_id, prompt=prompt, latents=latent, timesteps=self.steps, noise=self._noise(image_id, prompt, flip))
            for prompt in self.study.train.all_prompts[i]
        ]

    def _noise(self, image_id: str, prompt: str, flip: int) -> Tensor:
        drawn = [noise.normal(self.model.latent_shape, "sweep", image_id, prompt, t, flip) for t in self.steps]
        return torch.stack(drawn).to(self.model.unet.dtype)

    def _blocks(self, start: int) -> Iterator[slice]:
        size = max(1, self.at_once // (len(self.steps) * self.captions))
        for first in range(start, self.rows, size):
            yield slice(first, min(first + size, self.rows))

    def _in_passes(self, latents: Tensor, context: Tensor, steps: Tensor, drawn: Tensor) -> Tensor:
        """Losses of rows, at most `at_once` of them at a time."""
        parts = [tensor.split(self.at_once) for tensor in (latents, context, steps, drawn)]
        return torch.cat([self.model.loss(*rows) for rows in zip(*parts, strict=True)])
