"""GradDot: the inner product of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attribench.interface import Queries, Scores, State, Study

from .gradient import GradientMethod


@dataclass(frozen=True, kw_only=True)
class GradDot(GradientMethod):
    """Inner product of the loss gradients, at the trained model.

        τ(q, i) = ⟨φ_q, φ_i⟩

    Charpiat et al., "Input similarity from the neural network perspective", NeurIPS 2019: how far a small step on i
    lowers the loss of q. TRAK with the kernel left out. Needs the trained model; a backward pass per image and
    timestep.
    """

    name: ClassVar[str] = "grad-dot"

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        return self.mean_over_models(study, queries, lambda q, train: q @ train.T)
