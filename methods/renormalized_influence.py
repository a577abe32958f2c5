"""Renormalised influence: influence per unit of the training image's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attribench.gradients.kernels import RidgeKernel, Rows, blocks

from .gradient import KernelMethod


@dataclass(frozen=True, kw_only=True)
class RenormalizedInfluence(KernelMethod):
    """Influence on the query over the norm of the training image's gradient.

        τ(q, i) = φ_qᵀ K⁻¹ φ_i / ‖φ_i‖,    K = ΦᵀΦ + λI

    Hammoudeh and Lowd, "Identifying a training-set attack's target using renormalized influence estimation", CCS
    2022, with TRAK's kernel for the Hessian as in D-TRAK's comparison. Needs the trained model; a backward pass per
    image and timestep.
    """

    name: ClassVar[str] = "renormalized-influence"

    def row_weights(self, kernel: RidgeKernel, features: Rows, errors: np.ndarray, lambdas: Sequence[float]) -> Tensor:
        norms = torch.cat([part.double().norm(dim=1) for _, part in blocks(features, kernel.values.device)])
        return (1 / norms).where(norms > 0, 0.0).expand(len(lambdas), -1)
