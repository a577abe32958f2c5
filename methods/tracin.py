"""TracIn: inner products of gradients along the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from attribench.interface import Queries, Scores, State, Study

from .features import cosine
from .gradient import GradientMethod, Positive


@dataclass(frozen=True, kw_only=True)
class TracIn(GradientMethod):
    """Inner product of the loss gradients, averaged over checkpoints (TracInCP).

        τ(q, i) = (1/C) Σ_c ⟨φ_q^c, φ_i^c⟩

    Pruthi et al., "Estimating training data influence by tracing gradient descent", NeurIPS 2020, with one
    learning rate at all checkpoints, so that it drops out. Needs models along the training; a backward pass per
    image, timestep and checkpoint.
    """

    name: ClassVar[str] = "tracin"

    checkpoints: Positive = 4
    similarity: Literal["dot", "cosine"] = "dot"

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        product = cosine if self.similarity == "cosine" else lambda q, train: q @ train.T
        return self.mean_over_models(study, queries, product)
