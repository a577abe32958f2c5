"""DataInf: influence with each layer's inverse taken as the mean of inverses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attribench.gradients.kernels import Rows, blocks
from attribench.gradients.projection import Kind
from attribench.interface import Queries, Scores, State, Study

from .gradient import GradientMethod, Positive, best_version


@dataclass(frozen=True, kw_only=True)
class DataInf(GradientMethod):
    """Influence layer by layer, with the inverse of the damped Fisher matrix in closed form.

        τ(q, i) = Σ_l ⟨H_l⁻¹ g_q, g_i⟩,    H_l⁻¹ v ≈ (1 / nλ_l) Σ_j ( v − g_j (g_jᵀ v) / (λ_l + ‖g_j‖²) )

    Kwon et al., "DataInf: efficiently estimating data influence in LoRA-tuned LLMs and diffusion models", ICLR 2024:
    the mean of the inverses in place of the inverse of the mean. λ_l is `damping` times the mean squared entry
    of the layer's gradients. The public code reports the negative; here positive = removing it hurts, as everywhere.
    Needs the trained model; a backward pass per image and timestep, then O(n_train · parameters).
    """

    name: ClassVar[str] = "datainf"

    projection: Kind = "layerwise"
    """Layers must stay apart: "layerwise", or "none" for the gradients themselves."""
    factor_dim: Positive = 64
    damping: float = 0.1

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        gradients = self.gradients()
        of_train, of_queries = study.features(gradients), study.features(gradients, queries)
        total: np.ndarray | float = 0.0
        n_models = gradients.ensemble().n_models
        for m in range(n_models):
            train = gradients.rows(of_train, m, study)
            seen = gradients.rows(of_queries, m, study)[:].double().to(study.device)
            total = total + influence(seen, train, np.array(of_train["layers"]), self.damping).cpu().numpy() / n_models
        return Scores.of(queries, study.train, best_version(total, study))


def influence(queries: Tensor, train: Rows, layers: np.ndarray, damping: float) -> Tensor:
    """Σ_l ⟨H_l⁻¹ g_q, g_i⟩, [Q, n] float64, for queries [Q, k] and training rows [n, k], read twice in blocks.

    layers [n_layers, 3]: first and last column (excluded) of each, and its number of parameters.
    """
    n, device = train.shape[0], queries.device
    columns = [slice(first, last) for first, last, _ in layers.tolist()]
    squared_norms = torch.cat(
        [torch.stack([part[:, c].double().square().sum(dim=1) for c in columns], dim=1) for _, part in blocks(train, device)]
    )  # [n, n_layers]
    lambdas = damping * squared_norms.mean(dim=0) / torch.from_numpy(layers[:, 2]).to(device)
    pulled = torch.zeros_like(queries)  # Σ_j g_j (g_jᵀ g_q) / (λ + ‖g_j‖²), all layers
    for rows, part in blocks(train, device):
        part = part.double()
        for c, squares, value in zip(columns, squared_norms[rows].T, lambdas, strict=True):
            if value > 0:  # a layer that no training image moves has no influence
                pulled[:, c] += (queries[:, c] @ part[:, c].T / (value + squares)) @ part[:, c]
    solved = queries - pulled / n
    for c, value in zip(columns, lambdas, strict=True):
        solved[:, c] = solved[:, c] / value if value > 0 else 0.0
    return torch.cat([solved @ part.double().T for _, part in blocks(train, device)], dim=1)
