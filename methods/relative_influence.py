"""Relative influence: influence per change of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from attribench.gradients.kernels import RidgeKernel, Rows

from .gradient import KernelMethod


@dataclass(frozen=True, kw_only=True)
class RelativeInfluence(KernelMethod):
    """Influence on the query over how far the training image moves the parameters.

        τ(q, i) = φ_qᵀ K⁻¹ φ_i / ‖K⁻¹ φ_i‖,    K = ΦᵀΦ + λI

    Barshan et al., "RelatIF: identifying explanatory training examples via relative influence", AISTATS 2020
    (θ-relative), with TRAK's kernel for the Hessian as in D-TRAK's comparison. Needs the trained model; a backward
    pass per image and timestep.
    """

    name: ClassVar[str] = "relative-influence"

    def row_weights(self, kernel: RidgeKernel, features: Rows, errors: np.ndarray, lambdas: Sequence[float]) -> Tensor:
        norms = kernel.inverse_norms(features, lambdas)
        return (1 / norms).where(norms > 0, 0.0)  # an image without a gradient has no influence
