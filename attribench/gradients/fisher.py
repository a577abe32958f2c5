"""The Fisher matrix of a study's model by Monte Carlo over its training images, kept on disk.

One draw is a training image (in both versions if the model was trained with flips), one of its captions, a timestep and a
noise from the bank, so that the estimate does not depend on batches, order, workers or a resume. Methods that name equal
fields share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL.Image import Transpose
from torch import Tensor

from attribench.data import Queries
from attribench.diffusion import noise
from attribench.diffusion.model import DiffusionModel
from attribench.errors import MethodError
from attribench.files.state import State
from attribench.gradients.curvature import EkFac, covariances, eigenbases, has_bases, split_bases, split_entries, sum_of_squares
from attribench.gradients.diffusion import GradientReader, Sample, timesteps_of
from attribench.gradients.factors import Factor
from attribench.gradients.groups import Group
from attribench.interface import Access, Features, Study

ROWS = 32
"""Draws in one pass: their gradients are formed, a layer at a time."""
BLOCK = 512
"""Draws between two writes to disk."""


@dataclass(frozen=True, kw_only=True)
class Fisher(Features):
    """E[∇ℓ ∇ℓᵀ] in diagonal form or as EK-FAC (`attribench.gradients.curvature`); of queries nothing is kept.

    Arrays: squares, all layers' entries one after the other; for ekfac also bases. Both float64.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    version: ClassVar[int] = 2

    kind: Literal["diagonal", "ekfac"]
    group: Group
    draws: int
    """Of each training image and version, one in each of as many equal parts of the schedule."""
    of: Literal["study", "base"] = "study"
    """The trained model over its own training images, or the base model over the pictures that all studies share."""

    def of_base(self) -> bool:
        return self.of == "base"

    @property
    def name(self) -> str:
        return f"{self.kind} Fisher of {self.group}" + (", base model" if self.of == "base" else "")

    def of_training(self, study: Study, state: State) -> None:
        reader = GradientReader(study.model, self.group, "loss", rows=ROWS)
        if self.kind == "diagonal":
            self._mean(study, state, "squares", reader, sum_of_squares)
            return
        shapes = _with_bases(reader)
        self._mean(study, state, "covariances", reader, lambda factors: covariances(factors, list(shapes)))
        if "bases.whole" not in state:  # written last, so that a kill leaves no half of them
            state["bases"] = eigenbases(torch.from_numpy(np.array(state["covariances"])), shapes)
            state["bases.whole"] = np.ones(1)
        bases = self._bases(state, reader)
        dtype = reader.model.unet.dtype
        rotated = {name: tuple(side.to(dtype) for side in sides) for name, sides in bases.items()}
        self._mean(study, state, "squares", reader, lambda factors: sum_of_squares(factors, rotated))

    def of_queries(self, study: Study, state: State, queries: Queries) -> None:
        """Nothing: curvature is the training loss's."""

    def curvature(self, arrays: Mapping[str, np.ndarray], reader: GradientReader, damping: float) -> EkFac:
        """F from what was kept, for the layers of `reader`."""
        squares = split_entries(torch.from_numpy(np.array(arrays["squares"])).to(reader.model.device), reader.shapes)
        return EkFac(squares, self._bases(arrays, reader) if self.kind == "ekfac" else {}, damping)

    def _bases(self, arrays: Mapping[str, np.ndarray], reader: GradientReader) -> dict[str, tuple[Tensor, Tensor]]:
        return split_bases(torch.from_numpy(np.array(arrays["bases"])).to(reader.model.device), _with_bases(reader))

    # ------------------------------------------------------------------------------- Monte Carlo

    def _mean(
        self, study: Study, state: State, name: str, reader: GradientReader, total: Callable[[Mapping[str, Factor]], Tensor]
    ) -> None:
        """state[name] = mean over all draws of what `total` sums over a pass, block by block.

        The running sum alternates between two rows, and the count of blocks goes up when its row is on disk: a kill
        loses the block in the making and nothing else.
        """
        if f"{name}.whole" in state:
            return
        images = (2 if study.flips else 1) * len(study.train)
        if not images:
            raise MethodError("the Fisher needs training images, and the study has none")
        at_once = max(1, BLOCK // self.draws)
        written = state.create(f"{name}.written", (1,), "int64")
        done = int(written[0])
        running = torch.from_numpy(np.array(state[f"{name}.sums"][(done - 1) % 2])) if done else torch.zeros(())
        for block in range(done, -(-images // at_once)):
            samples = self._samples(study, reader.model, range(block * at_once, min((block + 1) * at_once, images)))
            for sums in reader.read(samples, lambda factors: total(factors)[None]):
                running = running + sums.features[0]
            sums = state.create(f"{name}.sums", (2, len(running)), "float64")
            sums[block % 2] = running.numpy()
            sums.flush()
            written[0] = block + 1
            written.flush()
        state[name] = running / (images * self.draws)
        state[f"{name}.whole"] = np.ones(1)

    def _samples(self, study: Study, model: DiffusionModel, rows: range) -> Iterator[Sample]:
        """`draws` samples of one row for each of these rows: training images, then their mirror images."""
        for row in rows:
            flip, i = divmod(row, len(study.train))
            image_id, captions = study.train.ids[i], study.train.all_prompts[i]
            picture = study.train[i].transpose(Transpose.FLIP_LEFT_RIGHT) if flip else study.train[i]
            latent = model.latent_moments(model.pixels([picture]))[0].to(model.unet.dtype)
            steps = timesteps_of("stratified", self.draws, model.n_timesteps, "fisher", image_id, flip)
            # a caption for each draw, whatever the batch (the published code takes the same one for all of a batch)
            which = noise.draws("fisher captions", image_id, flip).integers(len(captions), size=self.draws)
            for draw, (step, prompt) in enumerate(zip(steps, (captions[c] for c in which), strict=True)):
                drawn = noise.normal(model.latent_shape, "fisher", image_id, prompt, flip, draw).to(latent)
                yield Sample(id=image_id, prompt=prompt, latents=latent, timesteps=[step], noise=drawn[None])


def _with_bases(reader: GradientReader) -> dict[str, tuple[int, int]]:
    return {name: shape for name, shape in reader.shapes.items() if has_bases(reader.layers[name])}
