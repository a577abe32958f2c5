"""AbC's calibrator: from similarities to a sparse distribution over the training images, by two scalars.

    e_i = exp( inv_tau · (s_i − max s) ),   b = .001 · bias
    a_i = relu(e_i + b) / Σ_j relu(e_j + b)                                                        influence
    L   = log Σ_i softplus₁₀₀(e_i + b)  −  mean_{i ∈ exemplars} log softplus₁₀₀(e_i + b)            training loss

softplus_β(x) = log(1 + exp(βx)) / β. A negative bias sets the tail to exactly 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from attribench.encoders.weights import read_tensors
from attribench.errors import UsageError

GAIN = 1e-3
BETA = 100.0


@dataclass(frozen=True)
class Calibrator:
    """The two scalars."""

    inv_tau: float = 1.0
    bias: float = 0.0

    def influence(self, scores: Tensor) -> Tensor:
        """a [Q, n] of similarities s [Q, n]; rows sum to 1."""
        kept = functional.relu(_exponentials(scores, self.inv_tau) + GAIN * self.bias)
        return kept / kept.sum(dim=1, keepdim=True)

    @classmethod
    def fit(cls, scores: Tensor, exemplars: Tensor) -> Self:
        """The scalars of least mean loss for similarities [Q, n] and what is an exemplar of which query, bool [Q, n]."""
        from scipy.optimize import minimize

        scores = scores.double()

        def loss_and_gradient(at: np.ndarray) -> tuple[float, np.ndarray]:
            log_inv_tau, bias = torch.from_numpy(at).requires_grad_(True)
            loss = calibration_loss(scores, exemplars, log_inv_tau.exp(), bias)
            return loss.item(), np.array(torch.autograd.grad(loss, (log_inv_tau, bias)), dtype=np.float64)

        bounds = ((-5, 8), (-0.99 / GAIN, 1 / GAIN))  # b > −1, so that the nearest image always keeps some influence
        starts = [np.array([log_inv_tau, 0.0]) for log_inv_tau in (0.0, 2.0, 4.0)]
        found = [minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
        best = min(found, key=lambda result: result.fun)
        return cls(float(np.exp(best.x[0])), float(best.x[1]))

    @classmethod
    def load(cls, path: Path) -> Self:
        """From the authors' checkpoint, {"inv_tau", "bias"}. Raises UsageError for a file that is none."""
        tensors = read_tensors(path)
        try:
            own = cls(*(float(tensors[name]) for name in ("inv_tau", "bias")))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UsageError(f"{path} holds no two numbers inv_tau and bias; give a checkpoint of AbC's calibrator") from error
        if not (np.isfinite(own.bias) and 0 < own.inv_tau < np.inf):
            raise UsageError(f"{path} holds inv_tau={own.inv_tau} and bias={own.bias}; both must be finite, the first above 0")
        return own


def calibration_loss(scores: Tensor, exemplars: Tensor, inv_tau: Tensor | float, bias: Tensor | float) -> Tensor:
    """L, mean over queries, for similarities [Q, n] and bool [Q, n], each row with an exemplar at least."""
    soft = functional.softplus(_exponentials(scores, inv_tau) + GAIN * bias, beta=BETA)
    of_exemplars = torch.where(exemplars, soft.log(), 0.0).sum(dim=1) / exemplars.sum(dim=1)
    return (soft.sum(dim=1).log() - of_exemplars).mean()


def _exponentials(scores: Tensor, inv_tau: Tensor | float) -> Tensor:
    return torch.exp(inv_tau * (scores - scores.amax(dim=1, keepdim=True)))
