"""Varied pictures of one drawing: place, size, turn, flip, background and tint. What the small encoders learn from."""

import numpy as np
import torch

from corpus import Painter


def draw_view(painter: Painter, rng: np.random.Generator, index: int) -> tuple[np.ndarray, str]:
    """A varied picture of one drawing, and the name of its view."""
    view = rng.choice(["single", "far", "close"], p=[0.8, 0.1, 0.1])
    if view != "single":
        return getattr(painter, view)(rng, index), view
    background = painter.background(rng) if rng.random() < 0.5 else painter.loud_background(rng)
    item = (index, rng.uniform(0.6, 1.1), *(0.5 + rng.uniform(-0.1, 0.1, 2)), rng.random() < 0.5)
    return painter.place([item], background, turn=rng.uniform(-12, 12) if rng.random() < 0.3 else 0.0), view


def tinted(pictures: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Brightness, contrast and a colour cast, drawn per picture, of [B, 3, 64, 64] in [-1, 1]."""
    gain = 1 + 0.25 * (2 * torch.rand(len(pictures), 3, 1, 1, generator=draws) - 1)
    shift = 0.15 * (2 * torch.rand(len(pictures), 3, 1, 1, generator=draws) - 1)
    return (pictures * gain + shift).clamp(-1, 1)
