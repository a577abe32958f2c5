"""Standardized CLIP, a control: what MONTRAGE is before it has learned anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from attribench.interface import Access, Queries, Scores, State, Study

from .clip import ClipImage
from .features import best_version, cosine


@dataclass(frozen=True, kw_only=True)
class ClipZ(ClipImage):
    """Cosine of CLIP image features of zero mean and unit variance over the study's pictures; nothing is learned.

        score(x_gen, x_i) = cos(z(x_gen), z(x_i)),   z = (f − μ) / σ,  μ and σ over training images and monitored generations

    These are the features from which MONTRAGE's head starts: what MONTRAGE claims is its paired difference from this row. Needs
    the monitored generations, as MONTRAGE does.
    """

    name: ClassVar[str] = "clip-z"
    needs: ClassVar[Access] = Access.TRAINING
    control: ClassVar[bool] = True
    on_request: ClassVar[bool] = True

    def fit(self, study: Study, state: State) -> None:
        pictures = [study.features(self.pictures)["features"][0], study.features(self.pictures, study.generations)["features"][0]]
        features = np.concatenate(pictures)
        state["mean"], state["deviation"] = features.mean(axis=0), features.std(axis=0).clip(min=1e-6)

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        mean, deviation = (torch.from_numpy(np.array(state[name])) for name in ("mean", "deviation"))
        own = torch.from_numpy(np.array(study.features(self.pictures, queries)["features"][0]))

        def alike(generations: torch.Tensor, train: torch.Tensor) -> torch.Tensor:
            return cosine((generations - mean) / deviation, (train - mean) / deviation)

        return Scores.of(queries, study.train, best_version(alike, own, study.features(self.pictures)["features"]))
