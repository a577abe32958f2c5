"""Cosine between pixels: the simplest feature baseline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from attribench.images import square
from attribench.interface import Access, AttributionMethod, Queries, Scores, State, Study

from .features import best_version, cosine, embed_training_images


@dataclass(frozen=True, kw_only=True)
class Pixel(AttributionMethod):
    """Cosine of flattened pictures.

        score(x_gen, x_i) = cos(x_gen, x_i),   pixels in [-1, 1]

    The pixel baseline of Zheng et al. (D-TRAK, ICLR 2024) and Wang et al. (attribution by unlearning,
    NeurIPS 2024); the range is D-TRAK's. Needs the pictures alone; one matrix product.
    """

    name: ClassVar[str] = "pixel"
    needs: ClassVar[Access] = Access.FEATURES

    size: int = 64
    """Both pictures are cut to their centre square and resized to `size` pixels a side."""

    def fit(self, study: Study, state: State) -> None:
        embed_training_images(study, state, self._flatten)

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        return Scores.of(queries, study.train, best_version(cosine, self._flatten(queries), state["features"]))

    def _flatten(self, pictures: Iterable[Image]) -> Tensor:
        """[n, size · size · 3] in [-1, 1]."""
        arrays = [np.asarray(square(picture, self.size), dtype=np.float32).reshape(-1) for picture in pictures]
        return torch.from_numpy(np.stack(arrays)) / 127.5 - 1.0
