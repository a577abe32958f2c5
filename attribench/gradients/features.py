"""Projected gradients of a study's training images and queries, kept on disk: what gradient methods share.

Methods that name equal fields share one reading of the model (`AttributionMethod.features`). A training image is
read in both versions if the model was trained with flips; a generated picture as it is. Latents are posterior
means. Noise comes from the bank, keyed by (picture, prompt, timestep, flip, draw), so that features do not depend
on batches, order, workers or a resume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL.Image import Transpose
from torch import Tensor

from attribench.data import Queries, TrainingImages
from attribench.diffusion import noise
from attribench.diffusion.model import DiffusionModel
from attribench.files.state import State
from attribench.gradients.diffusion import GradientReader, Sample, Spacing, timesteps_of
from attribench.gradients.factors import Factor
from attribench.gradients.groups import Group
from attribench.gradients.outputs import OutputFunction
from attribench.gradients.projection import Projection
from attribench.gradients.region import query_mask
from attribench.gradients.store import FeatureRows, FeatureWriter, StoreDtype
from attribench.interface import Access, Ensemble, Features, Study


@dataclass(frozen=True, kw_only=True)
class GradientFeatures(Features):
    """φ = Pᵀ [ (1/K) Σ_t ∇_θ f(x_t, t, p) ] for every picture x with prompt p (Zheng et al., ICLR 2024).

    Arrays, for each model m of the ensemble: features-m [versions, n, k] and errors-m [versions · n, K], the squared
    error of the prediction at each timestep. Where the projection keeps layers apart, layers [n_layers, 3]: first
    and last column (excluded) of each, and its number of parameters.

    The projection "trak" is divided by √(number of parameters), as TRAKer does.
    """

    needs: ClassVar[Access] = Access.GRADIENTS | Access.CHECKPOINTS

    group: Group
    function: OutputFunction
    timesteps: int
    spacing: Spacing
    normalize_timesteps: bool
    projection: Projection
    shared_noise: bool = False
    """The same noise for every picture at a timestep, in place of its own."""
    checkpoints: int = 1
    seeds: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    stored: StoreDtype = "float32"

    @property
    def name(self) -> str:
        """What progress calls it; features that cost the same go by the same name."""
        return f"{self.function} gradients of {self.group}"

    def ensemble(self) -> Ensemble:
        return Ensemble(checkpoints=self.checkpoints, seeds=self.seeds)

    def of_training(self, study: Study, state: State) -> None:
        n = len(study.train)

        def sample(model: DiffusionModel, row: int) -> Sample:
            return self._sample(study, model, study.train, row % n, flip=row >= n)

        self._keep(study, state, study.train.ids, 2 if study.flips else 1, sample)

    def of_queries(self, study: Study, state: State, queries: Queries) -> None:
        self._keep(study, state, queries.ids, 1, lambda model, i: self.query_sample(study, model, queries, i))

    def query_sample(self, study: Study, model: DiffusionModel, queries: Queries, i: int) -> Sample:
        """The rows that stand for query i; of one with a box, f counts there alone."""
        return replace(self._sample(study, model, queries, i), mask=query_mask(queries, i, model))

    # ------------------------------------------------------------------------------------ reading

    def rows(self, arrays: Mapping[str, np.ndarray], model: int, study: Study) -> FeatureRows:
        """φ of one model as a matrix [versions · n, k], image after image and then their mirror images."""
        return FeatureRows(arrays, f"features-{model:02d}", self._identity(study))

    def _identity(self, study: Study) -> str:
        return f"{self} of the study {study.id}"

    def _keep(
        self, study: Study, state: State, ids: Sequence[str], versions: int,
        sample: Callable[[DiffusionModel, int], Sample],
    ) -> None:  # fmt: skip
        for m, model in enumerate(study.models):
            reader = GradientReader(
                model, self.group, self.function, normalize=self.normalize_timesteps, precision=self.precision
            )
            projector = self.projection.projector(reader.shapes, study.device)
            scale = reader.n_parameters**-0.5 if self.projection.kind == "trak" else 1.0
            writer = FeatureWriter(
                state, f"features-{m:02d}", ids, projector.dim,
                identity=self._identity(study), versions=versions, dtype=self.stored,
            )  # fmt: skip

            def project(factors: Mapping[str, Factor], projector=projector, m=m, scale=scale) -> Tensor:
                return projector(factors, model_id=m) * scale

            rows = range(writer.written, writer.rows)
            for read in reader.read(map(partial(sample, model), rows), project):
                errors = state.create(f"errors-{m:02d}", (writer.rows, read.errors.shape[1]))
                errors[writer.written : writer.written + len(read.errors)] = read.errors.numpy()
                errors.flush()
                writer.append(read.features)
            if projector.blocks is not None:
                layers = zip(projector.blocks.values(), reader.shapes.values(), strict=True)
                state["layers"] = np.array([(block.start, block.stop, out * columns) for block, (out, columns) in layers])

    def _sample(
        self, study: Study, model: DiffusionModel, pictures: TrainingImages | Queries, i: int, flip: bool = False
    ) -> Sample:
        picture_id, prompt = pictures.ids[i], pictures.prompts[i]
        picture = pictures[i].transpose(Transpose.FLIP_LEFT_RIGHT) if flip else pictures[i]
        steps = timesteps_of(self.spacing, self.timesteps, model.n_timesteps, study.id, picture_id, flip)
        latent, _ = model.latent_moments(model.pixels([picture]))
        return Sample(
            id=picture_id,
            prompt=prompt,
            latents=latent.expand(len(steps), -1, -1, -1),
            timesteps=steps,
            noise=self._noise(model, picture_id, prompt, steps, flip),
        )

    def _noise(self, model: DiffusionModel, picture_id: str, prompt: str, steps: Sequence[int], flip: bool = False) -> Tensor:
        """[K, c, h, w]; a timestep that comes again has the next draw."""
        of_whom = () if self.shared_noise else (picture_id, prompt, flip)
        draws = [steps[:k].count(t) for k, t in enumerate(steps)]
        return torch.stack(
            [noise.normal(model.latent_shape, "gradients", *of_whom, t, draw) for t, draw in zip(steps, draws, strict=True)]
        )
