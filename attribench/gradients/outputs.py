"""The scalar that is differentiated: a function of the model's prediction at one noisy latent.

D-TRAK (Zheng et al., ICLR 2024) replaces the loss of TRAK by other functions of the prediction, and finds the
mean squared norm to attribute better than the loss itself. e is the prediction, d its number of elements. With a mask
(of a query's box) the cells outside it are left out, and d counts those inside.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

OutputFunction = Literal["loss", "mean-squared-l2-norm", "mean", "l1-norm", "l2-norm", "linf-norm", "weighted-mse"]


def output(
    name: OutputFunction, prediction: Tensor, target: Tensor, timesteps: Tensor, alphas_cumprod: Tensor,
    mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """One number per row, [n], from predictions and targets [n, …] at `timesteps` [n]; differentiable.

    `alphas_cumprod` [T] is ᾱ of the noise schedule; only weighted-mse looks at it. `mask` [n, 1, …] holds 0 and 1.
    """
    e = (prediction if mask is None else prediction * mask).flatten(1)
    match name:
        case "loss":  # || e − target ||² / d: TRAK's, and the training loss
            return squared_error(prediction, target, mask)
        case "mean-squared-l2-norm":  # || e ||² / d: D-TRAK's
            return _mean(e.square(), mask)
        case "mean":
            return _mean(e, mask)
        case "l1-norm":
            return e.abs().sum(dim=1)
        case "l2-norm":
            return e.square().sum(dim=1).sqrt()
        case "linf-norm":
            return e.abs().amax(dim=1)
        case "weighted-mse":  # the weight that the variational bound gives the loss (Ho et al. 2020, with σ² = β)
            return variational_weight(alphas_cumprod)[timesteps] * squared_error(prediction, target, mask)


def squared_error(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """|| e − target ||² / d per row: [n]."""
    difference = prediction - target if mask is None else (prediction - target) * mask
    return _mean(difference.flatten(1).square(), mask)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of values [n, elements] that are 0 outside the mask [n, 1, …], over the elements inside: [n]."""
    mean = values.mean(dim=1)
    return mean if mask is None else mean / mask.flatten(1).mean(dim=1)


def variational_weight(alphas_cumprod: Tensor) -> Tensor:
    """w_t = β_t / (2 α_t (1 − ᾱ_t)) for every timestep: [T]."""
    before = alphas_cumprod.roll(1)
    before[0] = 1.0
    alpha = alphas_cumprod / before
    return (1 - alpha) / (2 * alpha * (1 - alphas_cumprod))
