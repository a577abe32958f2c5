"""GradCos: the cosine of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attribench.interface import Queries, Scores, State, Study

from .features import cosine
from .gradient import GradientMethod


@dataclass(frozen=True, kw_only=True)
class GradCos(GradientMethod):
    """Cosine of the loss gradients, at the trained model.

        τ(q, i) = ⟨φ_q, φ_i⟩ / (‖φ_q‖ ‖φ_i‖)

    Charpiat et al., NeurIPS 2019. Takes away the habit of GradDot to rank badly fitted images high for every query.
    Needs the trained model; a backward pass per image and timestep.
    """

    name: ClassVar[str] = "grad-cos"

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        return self.mean_over_models(study, queries, cosine)
