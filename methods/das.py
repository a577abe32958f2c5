"""DAS: how far the model's output moves when a training image is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from attribench.gradients.kernels import RidgeKernel, Rows
from attribench.gradients.outputs import OutputFunction

from .gradient import KernelMethod


@dataclass(frozen=True, kw_only=True)
class Das(KernelMethod):
    """Squared change of the prediction when a training image is left out, by one Newton step.

        τ(q, i) = ( φ_qᵀ K⁻¹ φ_i · r_i / (1 − h_i) )²,    K = ΦᵀΦ + λI,    h_i = φ_iᵀ K⁻¹ φ_i

    Lin et al., "Diffusion Attribution Score", ICLR 2025: φ is the gradient of the mean of the prediction, r_i the
    residual of image i and h_i its leverage (Sherman and Morrison); exact for a linear model. Scores are squares, so
    that an image that hinders ranks as high as one that helps. The public code takes the diagonal of the query ×
    train product for the leverage and drops it in its main variant; here it is the train × train one. Needs the
    trained model; a backward pass per image and timestep.
    """

    name: ClassVar[str] = "das"

    function: OutputFunction = "mean"
    normalize_timesteps: bool = True
    leverage: bool = True
    residual: Literal["root-error", "normalized", "none"] = "normalized"
    """r_i from √(squared error) at each timestep: their mean, or, as in the public code, the mean of them as a vector
    of unit length over the timesteps."""

    def row_weights(self, kernel: RidgeKernel, features: Rows, errors: np.ndarray, lambdas: Sequence[float]) -> Tensor:
        device = kernel.values.device
        weights = self._residuals(torch.from_numpy(np.array(errors)).double().to(device)).expand(len(lambdas), -1)
        if self.leverage:
            weights = weights / (1 - kernel.leverages(features, lambdas))
        return weights * self.model_scale(kernel, features, lambdas)

    def _residuals(self, errors: Tensor) -> Tensor:
        """r_i [n] from squared errors [n, K]."""
        roots = errors.sqrt()
        match self.residual:
            case "none":
                return torch.ones_like(roots[:, 0])
            case "normalized":
                return torch.nn.functional.normalize(roots, dim=1).mean(dim=1)
        return roots.mean(dim=1)

    def from_product(self, weighted: Tensor) -> Tensor:
        return weighted.square()
