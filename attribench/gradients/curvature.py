"""Curvature of the training loss: the Fisher matrix F of a model in forms that can be inverted, and F⁻¹g.

F = E[∇ℓ ∇ℓᵀ] over training images, captions, timesteps and noise, one of each to a gradient ∇ℓ. Layer by layer, with
the gradient as a matrix G [out, in] (a bias: the last column):

    identity    F = I
    diagonal    F = diag E[G ∘ G]                                   (Kirkpatrick et al. 2017, elastic weight consolidation)
    ekfac       F = (U_A ⊗ U_G) diag Λ (U_A ⊗ U_G)ᵀ,  Λ = E[(U_GᵀG U_A)²]   (George et al. 2018, arXiv 1806.03884)

U_A and U_G are the eigenvectors of E[x xᵀ] and E[g gᵀ] over a layer's inputs x and output gradients g at every position;
a convolution's positions are its patches. Scales and shifts of normalizations are no sum over positions: their bases are
the identity, so that EK-FAC is the diagonal there. Damping adds a multiple of the layer's mean to every entry of Λ.

An entry of F that is 0 has no curvature from data. Undamped, where the gradient is 0 as well (in EK-FAC's bases) its step
is 0, since neither data nor query ask for one; where it is not, the step would be infinite, which is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from attribench.errors import MethodError
from attribench.gradients.factors import Factor, is_supported

Kind = Literal["diagonal", "ekfac", "identity"]
Bases = Mapping[str, tuple[Tensor, Tensor]]
"""U_G [out, out] and U_A [in, in] of the layers that have them."""

# ---------------------------------------------------------------------------------------- inverting


class Identity:
    """F = I: plain gradient steps."""

    def solve(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: g.double() for name, g in gradients.items()}


@dataclass(frozen=True)
class EkFac:
    """F = (U_A ⊗ U_G) diag Λ (U_A ⊗ U_G)ᵀ; of a layer without bases F = diag E[G ∘ G]."""

    squares: Mapping[str, Tensor]
    """Λ of every layer, [out, in] float64."""
    bases: Bases
    damping: float
    """Times the layer's mean, added to every entry."""

    def solve(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """F⁻¹g: float64 [out, in] of every layer. Raises MethodError where an entry of F is 0 and the gradient is not."""
        solved = {}
        for name, g in gradients.items():
            if name not in self.bases:
                solved[name] = _divide(name, g.double(), self.squares[name], self.damping)
                continue
            left, right = (basis.double() for basis in self.bases[name])
            solved[name] = left @ _divide(name, left.T @ g.double() @ right, self.squares[name], self.damping) @ right.T
        return solved


Curvature = Identity | EkFac


def _divide(name: str, g: Tensor, squares: Tensor, damping: float) -> Tensor:
    """g / (F + damping · mean F), entry by entry; 0 / 0 = 0."""
    curvature = squares + damping * squares.mean()
    flat = curvature == 0
    unbounded = flat & (g != 0)
    if unbounded.any():
        raise MethodError(
            f"{int(unbounded.sum())} of {g.numel()} entries of the Fisher of {name} are 0 where the query's gradient is not: "
            "their step has no bound; give damping (0.1 is usual), or more Fisher draws"
        )
    return torch.where(flat, 0.0, g / torch.where(flat, 1.0, curvature))


# --------------------------------------------------------------------------------------- estimating


def has_bases(layer: nn.Module) -> bool:
    """Whether the layer's gradients are sums over positions, so that EK-FAC has bases for it."""
    return isinstance(layer, (nn.Linear, nn.Conv2d)) and is_supported(layer)


def sum_of_squares(factors: Mapping[str, Factor], bases: Bases | None = None) -> Tensor:
    """Σ over samples of G ∘ G, or of (U_GᵀG U_A)² where there are bases; all layers' entries one after the other, float64.

    float64 before squaring: squares of small gradients would vanish in float32, and read as no curvature.
    """
    parts = []
    for name, factor in factors.items():
        left, right = (None, None) if bases is None else bases.get(name, (None, None))
        parts.append(factor.two_sided(left, right).double().square().sum(dim=0).flatten())
    return torch.cat(parts)


def covariances(factors: Mapping[str, Factor], names: Sequence[str]) -> Tensor:
    """Σ g gᵀ and Σ x xᵀ over samples and positions of the named layers, one after the other, float64."""
    parts = []
    for name in names:
        x, g = (side.flatten(0, 1).double() for side in factors[name].positions())
        parts += [(g.T @ g).flatten(), (x.T @ x).flatten()]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def eigenbases(matrices: Tensor, shapes: Mapping[str, tuple[int, int]]) -> Tensor:
    """The eigenvectors of what `covariances` gave for layers of these shapes, laid out alike."""
    # the sums' scale is that of a squared loss gradient; eigh is happier near 1, and eigenvectors know no scale
    found = [
        torch.linalg.eigh(matrix / matrix.abs().max().clamp(min=torch.finfo(matrix.dtype).tiny)).eigenvectors
        for sides in split_bases(matrices, shapes).values()
        for matrix in sides
    ]
    return torch.cat([vectors.flatten() for vectors in found]) if found else matrices


def split_bases(vectors: Tensor, shapes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[Tensor, Tensor]]:
    """U_G and U_A of each layer from what `eigenbases` gave."""
    parts = iter(vectors.split([side * side for shape in shapes.values() for side in shape]))
    return {name: tuple(next(parts).reshape(side, side) for side in shape) for name, shape in shapes.items()}


def split_entries(entries: Tensor, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """The matrix [out, in] of each layer from all layers' entries one after the other."""
    parts = entries.split([out * columns for out, columns in shapes.values()])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
