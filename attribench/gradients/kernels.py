"""Ridge kernels over projected gradients: one eigendecomposition serves every λ.

With the features Φ [n, k] of the training images and those of the queries Φ_q [Q, k], TRAK (Park et al. 2023, arXiv
2303.14186) and D-TRAK (Zheng et al. 2024, arXiv 2311.00500) score with

    scores(λ) = Φ_q (ΦᵀΦ + λI)⁻¹ Φᵀ  =  Φ_q Φᵀ (ΦΦᵀ + λI)⁻¹        [Q, n]

The left form is the primal one, k × k, taken if k <= n; the right one the dual, n × n. Φ is read in blocks of rows and
never held whole. The Gram matrix, its decomposition and the queries in its eigenbasis are float64, since with a small
λ the inverse cancels much. What then multiplies each row of Φ is rounded to Φ's own precision: that moves a score as
much as the last bit of the features does, and no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from attribench.errors import MethodError
from attribench.files.state import State

LAMBDA_GRID: tuple[float, ...] = tuple(float(f"{digit}e{power}") for power in range(-2, 7) for digit in (1, 2, 5))
"""{1, 2, 5} × 10^k for k = -2 … 6: the 27 values of D-TRAK's published code."""

Device = str | torch.device
LambdaUnit = Literal["absolute", "relative"]

BLOCK = 2**19
"""Numbers of Φ in memory at a time (4 MiB in float64)."""
MEAN_COLUMNS = 4096
"""Columns of the inverse that its mean absolute entry is taken over, at most."""


class Rows(Protocol):
    """A matrix of which rows are read block by block: a tensor, an array, a memory map, a `store.FeatureRows`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice) -> Any: ...


def blocks(matrix: Rows, device: Device, stop: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """The rows of a matrix in order (the first `stop` of them) on `device`; half precision becomes float32."""
    n, k = stop or matrix.shape[0], matrix.shape[1]
    step = max(1, BLOCK // max(1, k))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        part = matrix[rows]
        if not isinstance(part, Tensor):
            part = torch.from_numpy(np.array(part))  # a copy: memory maps are read-only
        yield rows, part.to(device, torch.promote_types(part.dtype, torch.float32))


@dataclass(frozen=True, eq=False)
class RidgeKernel:
    """The eigendecomposition of ΦᵀΦ (primal, k <= n) or ΦΦᵀ (dual), float64, on one device."""

    n: int
    k: int
    values: Tensor
    """Eigenvalues [m] with m = min(n, k), rising, none below 0."""
    vectors: Tensor
    """Eigenvectors in columns [m, m]."""

    @classmethod
    def fit(cls, features: Rows, device: Device = "cpu") -> Self:
        """Read Φ [n, k] (once in the primal case) and decompose. Raises MethodError for NaN or infinite features."""
        n, k = features.shape
        if n < 1 or k < 1:
            raise MethodError(f"a kernel needs training features, found n={n} rows of k={k}; is the training set empty?")
        gram = torch.zeros(min(n, k), min(n, k), dtype=torch.float64, device=device)
        not_finite = 0
        for rows, part in blocks(features, device):
            not_finite += int((~part.isfinite()).any(dim=1).sum())
            if not_finite:
                continue  # only counting: a Gram matrix of NaN says nothing
            part = part.double()
            if k <= n:
                gram.addmm_(part.T, part)
                continue
            for others, other in blocks(features, device, rows.stop):  # one half, mirrored
                product = part @ other.double().T
                gram[rows, others], gram[others, rows] = product, product.T
        if not_finite:
            raise MethodError(
                f"{not_finite} of {n} rows of training features are NaN or infinite; check the model's loss on these images"
            )
        values, vectors = torch.linalg.eigh(gram)
        return cls(n, k, values.clamp_(min=0), vectors)  # what is below 0 is rounding

    def save(self, state: State, name: str) -> None:
        """Keep it as three arrays; the sizes come last, so that after a kill `load` takes no half of it."""
        state[f"{name}.values"], state[f"{name}.vectors"] = self.values, self.vectors
        state[f"{name}.sizes"] = np.array([self.n, self.k])

    @classmethod
    def load(cls, state: Mapping[str, np.ndarray], name: str, device: Device = "cpu") -> Self:
        """Read one that `save` kept. Raises MethodError where there is none."""
        if f"{name}.sizes" not in state:
            raise MethodError(f"no kernel {name!r} was kept; fit the method before it scores")
        n, k = (int(size) for size in state[f"{name}.sizes"])
        values, vectors = (torch.from_numpy(np.array(state[f"{name}.{part}"])).to(device) for part in ("values", "vectors"))
        return cls(n, k, values, vectors)

    @property
    def primal(self) -> bool:
        return self.k <= self.n

    @property
    def rank(self) -> int:
        """Numerical rank of Φ in float64."""
        return int((self.values > self._rounding).sum())

    @property
    def _rounding(self) -> float:
        """Eigenvalues below this are rounding."""
        return float(self.values[-1]) * torch.finfo(torch.float64).eps * max(self.n, self.k)

    @property
    def mean_squared_norm(self) -> float:
        """trace(ΦᵀΦ)/n, the mean of ‖φ_i‖²: the unit of a relative λ."""
        return float(self.values.sum()) / self.n

    def absolute(self, lambdas: Sequence[float], unit: LambdaUnit) -> tuple[float, ...]:
        """λ as they are, or times the mean squared norm of a row."""
        return tuple(value * (self.mean_squared_norm if unit == "relative" else 1) for value in lambdas)

    def _damped(self, lambdas: Sequence[float]) -> tuple[Tensor, Tensor]:
        """(λ [L, 1], eigenvalues + λ [L, m]); refuses λ with which the k × k system is singular."""
        smallest = float(self.values[0]) if self.primal else 0.0  # dual: k - n eigenvalues are 0
        for value in lambdas:
            if not (math.isfinite(value) and value >= 0):
                raise MethodError(f"λ must be a number of at least 0, not {value}")
            if smallest + value <= self._rounding:
                raise MethodError(
                    f"at λ={value:g} the system of n={self.n} training rows and k={self.k} features, of rank {self.rank}, is "
                    f"singular; take λ > 0 (above {self._rounding:.1g}) or a projection_dim of at most {max(1, self.rank)}"
                )
        damping = torch.tensor(list(lambdas), dtype=torch.float64, device=self.values.device)[:, None]
        return damping, self.values + damping

    def score_blocks(self, queries: Rows, features: Rows, lambdas: Sequence[float]) -> Iterator[tuple[slice, Tensor]]:
        """(rows, scores [L, Q, rows]) over blocks of training rows, for all λ in one pass over Φ [n, k]."""
        self._check(queries, features)
        _, damped = self._damped(lambdas)
        device, basis = self.values.device, self.vectors
        seen = torch.cat([part.double() for _, part in blocks(queries, device)])  # [Q, k]
        if not seen.isfinite().all():
            bad = int((~seen.isfinite()).any(dim=1).sum())
            raise MethodError(f"{bad} of {len(seen)} queries have NaN or infinite features; check the generated pictures")
        if not self.primal:
            seen = torch.cat([seen @ part.double().T for _, part in blocks(features, device)], dim=1)  # Φ_q Φᵀ [Q, n]
        precision = next(part.dtype for _, part in blocks(features, device, 1))
        weights = ((seen @ basis) / damped[:, None]).flatten(0, 1).to(precision)  # [L·Q, m] in the eigenbasis
        basis = basis.to(precision)
        if self.primal:
            weights = weights @ basis.T  # Φ_q (ΦᵀΦ + λI)⁻¹
        for rows, part in blocks(features if self.primal else basis, device):
            yield rows, (weights @ part.T).unflatten(0, (len(damped), -1))

    def scores(self, queries: Rows, features: Rows, lambdas: Sequence[float]) -> Tensor:
        """Φ_q (ΦᵀΦ + λI)⁻¹ Φᵀ for every λ: [L, Q, n] in Φ's precision. Take `score_blocks` where that is too big."""
        return torch.cat([part for _, part in self.score_blocks(queries, features, lambdas)], dim=2)

    def leverages(self, features: Rows, lambdas: Sequence[float]) -> Tensor:
        """h_i = φ_i (ΦᵀΦ + λI)⁻¹ φ_iᵀ of every training row, in [0, 1]: [L, n] float64."""
        _, damped = self._damped(lambdas)
        return self._weighted_squares(features, 1 / damped if self.primal else self.values / damped)

    def inverse_norms(self, features: Rows, lambdas: Sequence[float]) -> Tensor:
        """‖(ΦᵀΦ + λI)⁻¹ φ_i‖ of every training row (the divisor of Relative Influence, arXiv 2003.11630): [L, n] float64."""
        _, damped = self._damped(lambdas)
        return self._weighted_squares(features, (1 if self.primal else self.values) / damped**2).sqrt()

    def mean_absolute_inverse(self, features: Rows, lambdas: Sequence[float]) -> Tensor:
        """The mean of |(ΦᵀΦ + λI)⁻¹| over its k·k entries, by which traker 0.3.2 divides the inverse: [L] float64.

        Above k = 4,096 the mean is over at most that many evenly spaced columns, which a random projection makes alike.
        It takes blocks of columns. In the dual case it reads Φ twice for each block, and once more for each λ.
        """
        self._check(features, features)
        damping, damped = self._damped(lambdas)
        total, width = torch.zeros_like(damping[:, 0]), max(1, BLOCK // self.k)
        every = math.ceil(self.k / MEAN_COLUMNS)
        for start in range(0, self.k, width * every):
            columns = slice(start, min(start + width * every, self.k), every)
            if self.primal:  # U (w + λ)⁻¹ Uᵀ
                inverses = ((self.vectors / shifted) @ self.vectors[columns].T for shifted in damped)
            else:
                inverses = self._dual_inverse(columns, features, damping)
            for i, entries in enumerate(inverses):
                total[i] += entries.abs().sum()
        return total / (self.k * len(range(0, self.k, every)))

    def _dual_inverse(self, columns: slice, features: Rows, damping: Tensor) -> Iterator[Tensor]:
        """Columns of (ΦᵀΦ + λI)⁻¹ = (I - Φᵀ (ΦΦᵀ + λI)⁻¹ Φ) / λ for each λ: [k, columns]."""
        device = self.values.device
        rotated = self.vectors.T @ torch.cat([part[:, columns].double() for _, part in blocks(features, device)])
        for value in damping:
            solved = self.vectors @ (rotated / (self.values + value)[:, None])  # (ΦΦᵀ + λI)⁻¹ Φ[:, columns]
            entries = torch.zeros(self.k, solved.shape[1], dtype=torch.float64, device=device)
            entries[columns].fill_diagonal_(1)
            for rows, part in blocks(features, device):
                entries.addmm_(part.double().T, solved[rows], alpha=-1)
            yield entries / value

    def _weighted_squares(self, features: Rows, weights: Tensor) -> Tensor:
        """Σ_j weights[l, j] a_ij² [L, n], with a = ΦU in the primal case and the eigenvectors in the dual one."""
        self._check(features, features)
        if not self.primal:
            return weights @ self.vectors.T.square()
        read = blocks(features, self.values.device)
        return torch.cat([weights @ (part.double() @ self.vectors).square_().T for _, part in read], dim=1)

    def _check(self, queries: Rows, features: Rows) -> None:
        if tuple(features.shape) != (self.n, self.k) or queries.shape[1] != self.k:
            raise MethodError(
                f"the kernel was fitted to features [{self.n}, {self.k}], but gets {list(features.shape)} with queries "
                f"{list(queries.shape)}; fit the method again"
            )
