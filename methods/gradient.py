"""What gradient methods share: the fields that say which gradients are read, and ridge kernels over them.

A method on top of this page says which function of the prediction is differentiated and how inner products of
features become scores, so that its own file reads like its paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from attribench.errors import MethodError
from attribench.gradients.diffusion import Spacing
from attribench.gradients.features import GradientFeatures
from attribench.gradients.groups import Group
from attribench.gradients.kernels import LAMBDA_GRID, LambdaUnit, RidgeKernel, Rows, blocks
from attribench.gradients.outputs import OutputFunction
from attribench.gradients.projection import Kind, Projection
from attribench.gradients.store import StoreDtype
from attribench.interface import Access, AttributionMethod, Edition, Features, Queries, Scores, State, Study

Positive = Annotated[int, Ge(1)]


@dataclass(frozen=True, kw_only=True)
class GradientMethod(AttributionMethod):
    """A method whose features are projected gradients of the trained model."""

    needs: ClassVar[Access] = Access.GRADIENTS | Access.CHECKPOINTS
    takes_regions: ClassVar[bool] = True

    function: OutputFunction = "loss"
    """The function of the prediction whose gradient is taken (methods differ in their default)."""
    group: Group = "cross-attention-kv"
    """The parameters. Customization trains cross-attention keys and values, and nothing else of the UNet."""
    timesteps: Positive | None = None
    """K. None: 10 for mini, 100 for paper."""
    spacing: Spacing = "uniform"
    normalize_timesteps: bool = False
    """Divide each timestep's gradient by its norm before averaging, so that none of them outweighs the rest."""
    shared_noise: bool = False
    """The same noise for every picture at a timestep, as in D-TRAK's code (there by place in the batch)."""
    projection: Kind = "factored"
    projection_dim: Positive | None = None
    """None: 2,048 for mini, 32,768 for paper."""
    projection_seed: int = 0
    factor_dim: Positive = 128
    """Longest side of a layer's gradient after its two-sided projection; shorter ones are kept as they are."""
    checkpoints: Positive = 1
    """Models along the training, the last one at its end."""
    seeds: Positive = 1
    """Trainings on the same images; each beyond the first is trained for this method."""
    precision: Literal["float32", "bfloat16"] = "float32"
    stored: StoreDtype = "float32"

    def resolve(self, edition: Edition) -> Self:
        """Counts that were left open."""
        timesteps, dim = (10, 2048) if edition == "mini" else (100, 32768)
        return dataclasses.replace(self, timesteps=self.timesteps or timesteps, projection_dim=self.projection_dim or dim)

    def gradients(self) -> GradientFeatures:
        """What is read of the model. Methods with equal fields share it."""
        return GradientFeatures(**self._gradient_fields())

    def _gradient_fields(self) -> dict:
        own = self.resolve("mini")  # what a bench has resolved stays as it is
        free = own.projection in ("none", "layerwise")  # their dimension follows from the layers
        projection = Projection(
            kind=own.projection, dim=None if free else own.projection_dim,
            seed=own.projection_seed, factor_dim=own.factor_dim,
        )  # fmt: skip
        return {
            "group": own.group, "function": own.function, "timesteps": own.timesteps, "spacing": own.spacing,
            "normalize_timesteps": own.normalize_timesteps, "shared_noise": own.shared_noise,
            "projection": projection, "checkpoints": own.checkpoints, "seeds": own.seeds,
            "precision": own.precision, "stored": own.stored,
        }  # fmt: skip

    def features(self) -> tuple[Features, ...]:
        return (self.gradients(),)

    def mean_over_models(self, study: Study, queries: Queries, product: Callable[[Tensor, Tensor], Tensor]) -> Scores:
        """Scores from `product(query features [Q, k], train features [b, k]) -> [Q, b]`, averaged over the ensemble."""
        gradients = self.gradients()
        of_train, of_queries = study.features(gradients), study.features(gradients, queries)
        total = np.zeros((len(queries), _versions(study) * len(study.train)))
        n_models = gradients.ensemble().n_models
        for m in range(n_models):
            seen = gradients.rows(of_queries, m, study)[:].to(study.device)
            for rows, part in blocks(gradients.rows(of_train, m, study), study.device):
                total[:, rows] += product(seen, part).double().cpu().numpy() / n_models
        return Scores.of(queries, study.train, best_version(total, study))


@dataclass(frozen=True, kw_only=True)
class KernelMethod(GradientMethod):
    """A gradient method that scores with a ridge kernel, Φ_q (ΦᵀΦ + λI)⁻¹ Φᵀ, averaged over the ensemble."""

    lambda_reg: Annotated[float, Ge(0)] | Literal["tuned"] = "tuned"
    """λ; "tuned": each value of a grid is a candidate, and the bench takes the best for the dev queries."""
    lambda_unit: LambdaUnit = "relative"
    """relative: times the mean squared norm of a training feature, so that a value means the same for any model,
    number of images or output function. absolute: as in TRAK and D-TRAK, whose grid is then taken."""

    def row_weights(self, kernel: RidgeKernel, features: Rows, errors: np.ndarray, lambdas: Sequence[float]) -> Tensor:
        """What each training row's products are multiplied by: [L, n], or [L, 1] for the same for all.

        `errors` [n, K]: the rows' squared errors at each timestep. Called once, by `fit`.
        """
        return torch.ones(len(lambdas), 1, dtype=torch.float64)

    def model_scale(self, kernel: RidgeKernel, features: Rows, lambdas: Sequence[float]) -> Tensor:
        """1 / mean |(ΦᵀΦ + λI)⁻¹|, [L, 1]: the trak package's weight of a model in an ensemble.

        1 without an ensemble: there it changes no order, and it is the dearest product of all.
        """
        if self.gradients().ensemble().n_models == 1:
            return torch.ones(len(lambdas), 1, dtype=torch.float64, device=kernel.values.device)
        return 1 / kernel.mean_absolute_inverse(features, lambdas)[:, None]

    def from_product(self, weighted: Tensor) -> Tensor:
        """Scores from the weighted products of one model."""
        return weighted

    # ----------------------------------------------------------------------------------------- λ

    @property
    def grid(self) -> tuple[float, ...]:
        """The 27 values that are tried: D-TRAK's, or as many from 10⁻⁶ to 500 mean squared norms."""
        return LAMBDA_GRID if self.lambda_unit == "absolute" else tuple(float(f"{v * 1e-4:.0e}") for v in LAMBDA_GRID)

    def candidates(self) -> tuple[Self, ...]:
        if self.lambda_reg != "tuned":
            return ()
        return tuple(dataclasses.replace(self, lambda_reg=value) for value in self.grid)

    def default_candidate(self) -> int:
        """D-TRAK's quickstart has λ = 500; a tenth of the mean squared norm is DataInf's damping."""
        return self.grid.index(500.0 if self.lambda_unit == "absolute" else 0.1)

    # ------------------------------------------------------------------------------------ scoring

    def fit(self, study: Study, state: State) -> None:
        gradients = self.gradients()
        arrays = study.features(gradients)
        values = self.grid if self.lambda_reg == "tuned" else (self.lambda_reg,)
        for m in range(gradients.ensemble().n_models):
            if f"weights-{m:02d}" in state:
                continue
            features = gradients.rows(arrays, m, study)
            kernel = RidgeKernel.fit(features, study.device)
            kernel.save(state, f"kernel-{m:02d}")
            lambdas = kernel.absolute(values, self.lambda_unit)
            state["given"], state[f"lambdas-{m:02d}"] = np.array(values), np.array(lambdas)
            state[f"weights-{m:02d}"] = self.row_weights(kernel, features, arrays[f"errors-{m:02d}"], lambdas)

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        if self.lambda_reg == "tuned":
            raise MethodError(f"{self.name} has no λ of its own: score its candidates, or give lambda_reg a number")
        return self._scores(study, state, queries)[state["given"].tolist().index(self.lambda_reg)]

    def score_candidates(self, study: Study, state: State, queries: Queries) -> list[Scores]:
        return self._scores(study, state, queries)

    def _scores(self, study: Study, state: State, queries: Queries) -> list[Scores]:
        """The scores for every λ of the state, in one pass over the features."""
        gradients = self.gradients()
        of_train, of_queries = study.features(gradients), study.features(gradients, queries)
        n_models = gradients.ensemble().n_models
        total: np.ndarray | None = None
        for m in range(n_models):
            kernel = RidgeKernel.load(state, f"kernel-{m:02d}", study.device)
            lambdas = [float(value) for value in state[f"lambdas-{m:02d}"]]
            weights = torch.from_numpy(np.array(state[f"weights-{m:02d}"])).to(study.device)
            if total is None:
                total = np.zeros((len(lambdas), len(queries), kernel.n), dtype=np.float32)
            products = kernel.score_blocks(gradients.rows(of_queries, m, study), gradients.rows(of_train, m, study), lambdas)
            for rows, part in products:
                weighted = part * (weights[:, rows] if weights.shape[1] > 1 else weights)[:, None].to(part.dtype)
                total[:, :, rows] += self.from_product(weighted).cpu().numpy() / n_models
        return [Scores.of(queries, study.train, values) for values in best_version(total, study)]


def best_version(values: np.ndarray, study: Study) -> np.ndarray:
    """[…, versions · n_train] -> […, n_train]: the larger score of an image and its mirror image (flips rule)."""
    return values.reshape(*values.shape[:-1], _versions(study), len(study.train)).max(axis=-2)


def _versions(study: Study) -> int:
    return 2 if study.flips else 1
