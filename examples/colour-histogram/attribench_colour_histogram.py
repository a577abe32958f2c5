"""Attribution by colour: which training images have the colours of the generated picture?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from PIL.Image import Image

from attribench.interface import Access, AttributionMethod, Queries, Scores, State, Study


@dataclass(frozen=True, kw_only=True)
class ColourHistogram(AttributionMethod):
    """Intersection of colour histograms.

        score(q, i) = Σ_b min(h_b(q), h_b(i)),    h_b(x): share of the pixels of x in the colour bin b

    Swain and Ballard, "Color indexing", International Journal of Computer Vision 7(1), 1991, equation 1, with pictures of
    any size. Between 0 and 1, and 1 for pictures of the same colours. Needs the pictures alone; a histogram for each. A
    mirror image has the same histogram, so flips in training change nothing.
    """

    name = "colour-histogram"
    needs = Access.FEATURES
    memory = 2**28

    bins: Annotated[int, Ge(1)] = 8
    """A colour channel: bins³ in all."""

    def fit(self, study: Study, state: State) -> None:
        state["train"] = self._histograms(study.train)  # [n_train, bins³]

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        own, train = self._histograms(queries), state["train"]
        return Scores.of(queries, study.train, np.stack([np.minimum(row, train).sum(axis=1) for row in own]))

    def _histograms(self, pictures: Iterable[Image]) -> np.ndarray:
        """[n, bins³], rows that sum to 1."""
        edges = [np.linspace(0, 256, self.bins + 1)] * 3
        rows = []
        for picture in pictures:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
            rows.append(np.histogramdd(pixels, bins=edges)[0].ravel() / len(pixels))
        return np.stack(rows)
