"""D-TRAK: TRAK for diffusion models with another function of the prediction than the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attribench.gradients.outputs import OutputFunction

from .gradient import KernelMethod


@dataclass(frozen=True, kw_only=True)
class DTrak(KernelMethod):
    """Projected gradients of the squared norm of the predicted noise, through the inverse of their Gram matrix.

        τ(q, i) = φ_qᵀ (ΦᵀΦ + λI)⁻¹ φ_i,    φ(x) = Pᵀ [ (1/K) Σ_t ∇_θ ‖ε_θ(x_t, t)‖² / d ]

    Zheng et al., "Intriguing properties of data attribution on diffusion models", ICLR 2024. That a
    function without the target beats the loss has no theory; `function` takes every one that the paper tries. Its λ
    was chosen on the very queries reported: see the rows tuned, default and oracle. Needs the trained model; a
    backward pass per image and timestep.
    """

    name: ClassVar[str] = "d-trak"

    function: OutputFunction = "mean-squared-l2-norm"
