"""TRAK: attribution by a random projection of the loss gradient and a ridge kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from attribench.gradients.kernels import RidgeKernel, Rows
from attribench.gradients.outputs import OutputFunction

from .gradient import KernelMethod


@dataclass(frozen=True, kw_only=True)
class Trak(KernelMethod):
    """Projected gradients of the loss, through the inverse of their Gram matrix, averaged over an ensemble.

        τ(q, i) = mean over models of  φ_qᵀ A φ_i,    A = (ΦᵀΦ + λI)⁻¹ / mean |(ΦᵀΦ + λI)⁻¹|

    Park et al., "TRAK: attributing model behavior at scale", ICML 2023, with f the diffusion loss and
    Q = 1 as in its published diffusion code. The division by the mean absolute entry is the trak package's: it lets
    no model of an ensemble outweigh another, and is left out where there is but one. Needs the trained model; a
    backward pass per image and timestep.
    """

    name: ClassVar[str] = "trak"

    function: OutputFunction = "loss"

    def row_weights(self, kernel: RidgeKernel, features: Rows, errors: np.ndarray, lambdas: Sequence[float]) -> Tensor:
        return self.model_scale(kernel, features, lambdas)
