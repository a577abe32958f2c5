"""The share of studies whose accuracy is above η, as a curve over η, and where it lies for a method that guesses.

MONTRAGE Eq. 13 and Figure 5. A study (a concept) is above η exactly up to its own accuracy, so the curve falls in steps,
and its area over η from ½ (chance, Eq. 12) to 1, divided by that range, is the mean of max(2 · accuracy − 1, 0).

The null. A method may know the prompt but not the picture: MONTRAGE's V does not see the noise, so that the pictures of
one prompt share their attributions. Such a method makes one guess a prompt, and where the pictures of a prompt agree
on which half is the better one, it is right or wrong about all of them at once. With ten prompts it then beats η = 0.6
in 17 % of the concepts by luck alone, against 6 % for fifty independent guesses. The band is that of such a method: exact
for it where a prompt's pictures agree, and wider than need be for a method that looks at each picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LOWEST, HIGHEST = 0.5, 1.0
ROUNDING = 1e-9
ETAS = np.round(np.linspace(LOWEST, HIGHEST, 101), 3)
"""Where a curve is evaluated when it is drawn."""
LEVEL = 0.95


def share_above(accuracies: np.ndarray, etas: Sequence[float]) -> np.ndarray:
    """[…, n_eta] share of the studies with accuracy > η, for accuracies […, n_study]; studies that are NaN do not count.

    An accuracy equal to η is not above it.
    """
    accuracies = np.asarray(accuracies, dtype=np.float64)[..., None]
    above = np.where(np.isnan(accuracies), np.nan, accuracies > np.asarray(etas) + ROUNDING)
    return np.nanmean(above, axis=-2)


def area_above(accuracies: np.ndarray) -> np.ndarray:
    """[…] area under `share_above` over η from ½ to 1, as a share of the largest, for accuracies […, n_study]."""
    return np.nanmean(np.maximum(np.asarray(accuracies) - LOWEST, 0) / (HIGHEST - LOWEST), axis=-1)


@dataclass(frozen=True)
class Null:
    """What a method that guesses once a prompt gets over these studies."""

    etas: np.ndarray
    """[n_eta]."""
    mean: np.ndarray
    """[n_eta] expected share above η."""
    low: np.ndarray
    high: np.ndarray
    """[n_eta] the central 95 % of the share, at each η by itself."""
    area: tuple[float, float, float]
    """Expected area, and its central 95 %."""


def null_of_prompts(
    queries: Sequence[Sequence[int]], etas: Sequence[float] = tuple(ETAS), *, draws: int = 10_000, seed: int = 0
) -> Null:
    """The null over studies whose prompts have `queries[study][prompt]` pictures, simulated by seed.

    In each draw a prompt's pictures are all right or all wrong, with even odds.
    """
    random = np.random.default_rng(seed)
    shares, areas = np.zeros((draws, len(etas))), np.zeros(draws)
    for pictures in queries:
        weights = np.asarray(pictures, dtype=np.float64) / np.sum(pictures)
        accuracies = random.integers(0, 2, (draws, len(weights))) @ weights
        shares += share_above(accuracies[:, None], etas) / len(queries)
        areas += area_above(accuracies[:, None]) / len(queries)
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    low, high = np.quantile(shares, tails, axis=0)
    least, most = np.quantile(areas, tails)
    return Null(
        etas=np.asarray(etas),
        mean=shares.mean(axis=0),
        low=low,
        high=high,
        area=(float(areas.mean()), float(least), float(most)),
    )
