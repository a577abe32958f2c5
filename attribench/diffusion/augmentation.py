"""Custom Diffusion's augmentation: scale and place the picture, and say so in the prompt.

Two times in three the picture is scaled to between a third and all of the canvas and pasted somewhere on
it; the loss then counts only the latent cells that the picture covers, and a small one adds "a far away" or
"very small" to the prompt. Otherwise it is enlarged by 1.2 to 1.4 and cropped, adding "zoomed in" or "close
up" (Kumari et al. 2023, and the diffusers example that MONTRAGE followed).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

SMALL_WORDS = ("a far away ", "very small ")
LARGE_WORDS = ("zoomed in ", "close up ")
SMALL_BELOW = 0.6
"""A picture scaled below this share of the canvas is called small."""


@dataclass(frozen=True)
class View:
    """A training picture as one step sees it."""

    picture: Image.Image
    prompt: str
    box: tuple[int, int, int, int]
    """Left, top, right, bottom of the picture on the canvas, in pixels."""


def custom_diffusion(picture: Image.Image, prompt: str, random: np.random.Generator) -> View:
    """One random view of a square picture on a canvas of its own size."""
    side = picture.size[0]
    if random.integers(3) == 0:
        return _enlarged(picture, prompt, random, int(random.integers(int(1.2 * side), int(1.4 * side) + 1)))
    scale = int(random.integers(side // 3, side + 1))
    left, top = (int(random.integers(side - scale + 1)) for _ in range(2))
    canvas = Image.new("RGB", (side, side), (127, 127, 127))  # zero after scaling pixels to [-1, 1]
    canvas.paste(picture.resize((scale, scale), Image.Resampling.BICUBIC), (left, top))
    words = str(random.choice(SMALL_WORDS)) if scale < SMALL_BELOW * side else ""
    return View(canvas, words + prompt, (left, top, left + scale, top + scale))


def _enlarged(picture: Image.Image, prompt: str, random: np.random.Generator, scale: int) -> View:
    side = picture.size[0]
    left, top = (int(random.integers(scale - side + 1)) for _ in range(2))
    large = picture.resize((scale, scale), Image.Resampling.BICUBIC)
    cut = large.crop((left, top, left + side, top + side))
    return View(cut, str(random.choice(LARGE_WORDS)) + prompt, (0, 0, side, side))


def latent_mask(box: tuple[int, int, int, int], side: int, downscale: int) -> np.ndarray:
    """[side / downscale] squared, float32: 1 where a latent cell lies wholly on the picture (at least one cell does)."""
    cells = side // downscale
    left, top = (-(-edge // downscale) for edge in box[:2])
    right, bottom = (edge // downscale for edge in box[2:])
    left, top = min(left, cells - 1), min(top, cells - 1)
    mask = np.zeros((cells, cells), dtype=np.float32)
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = 1.0
    return mask
