"""Scenes of one or two drawings on a ground whose colour and pattern have names, so that captions can tell them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from composition import OVERSAMPLING, PICTURE_SIZE

COLOURS = {
    "white": (255, 255, 255), "grey": (190, 193, 198), "dark grey": (78, 81, 88), "black": (26, 26, 30),
    "pink": (248, 188, 205), "red": (206, 66, 66), "orange": (250, 186, 112), "yellow": (252, 228, 128),
    "light green": (188, 228, 168), "dark green": (44, 104, 68), "light blue": (176, 213, 246),
    "dark blue": (38, 58, 122), "turquoise": (124, 213, 204), "purple": (194, 168, 232), "beige": (239, 224, 198),
    "brown": (142, 102, 72),
}  # fmt: skip
PATTERNS = {"plain": 0.62, "fading": 0.16, "striped": 0.11, "dotted": 0.11}
VIEWS = {"whole": 0.80, "small": 0.12, "close": 0.08}
VIEW_SIZE = {"whole": (0.66, 0.82), "small": (0.38, 0.48), "close": (1.08, 1.25)}
PAIR_SIZE = (0.43, 0.49)
SMALL_PLACES = {
    "near the left edge": (0.28, 0.5), "near the right edge": (0.72, 0.5), "near the top": (0.5, 0.28),
    "near the bottom": (0.5, 0.72), "in the top left corner": (0.28, 0.28), "in the top right corner": (0.72, 0.28),
    "in the bottom left corner": (0.28, 0.72), "in the bottom right corner": (0.72, 0.72),
}  # fmt: skip
JITTER = 0.03
EDGE_CONTRAST = 70.0
EDGE_QUANTILE = 0.25
CANVAS = PICTURE_SIZE * OVERSAMPLING
LARGEST = round(CANVAS * VIEW_SIZE["close"][1])


class CutOut:
    """The drawn part of a drawing, no larger than it can be shown, and the colours of its outline."""

    def __init__(self, drawing: Image.Image) -> None:
        box = drawing.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
        self.image = drawing.crop(box).convert("RGBa")
        self.image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        self._edge = _edge_colours(self.image.convert("RGBA"))

    def contrast(self, colour: tuple[int, int, int]) -> float:
        """How far its outline stands off from a colour, as a distance in RGB that three quarters of it exceed."""
        return float(np.quantile(np.linalg.norm(self._edge - np.array(colour), axis=1), EDGE_QUANTILE))


@dataclass(frozen=True)
class Ground:
    """What is behind the drawings."""

    colour: str
    pattern: str

    @property
    def phrase(self) -> str:
        """As a caption names it: "a light blue background with white dots"."""
        article = "an" if self.colour[0] in "aeiou" else "a"
        plain = f"{article} {self.colour} background"
        return {
            "plain": plain,
            "fading": f"{plain} that fades to white",
            "striped": f"a striped {self.colour} background",
            "dotted": f"{plain} with white dots",
        }[self.pattern]


@dataclass(frozen=True)
class Layout:
    """Where each drawing goes: its longest side and its centre, in sides of the picture."""

    view: str
    """`whole`, `small` or `close` for one drawing, `beside` (the first on the left) or `above` for two."""
    place: str
    """Where a small drawing is, as a caption says it, else ""."""
    spots: tuple[tuple[float, float, float], ...]


def single_layout(rng: np.random.Generator) -> Layout:
    """One drawing: usually whole and in the middle, now and then small and off it, or close up."""
    view = str(rng.choice(list(VIEWS), p=list(VIEWS.values())))
    place = str(rng.choice(list(SMALL_PLACES))) if view == "small" else ""
    x, y = SMALL_PLACES.get(place, (0.5, 0.5)) + rng.uniform(-JITTER, JITTER, 2)
    return Layout(view, place, ((rng.uniform(*VIEW_SIZE[view]), x, y),))


def pair_layout(rng: np.random.Generator) -> Layout:
    """Two drawings, the first on the left of the second or above it."""
    view = str(rng.choice(["beside", "above"], p=[0.7, 0.3]))
    (first, second), shift = rng.uniform(*PAIR_SIZE, 2), rng.uniform(-0.1, 0.1, 2)
    if view == "beside":
        return Layout(view, "", ((first, 0.26, 0.5 + shift[0]), (second, 0.74, 0.5 + shift[1])))
    return Layout(view, "", ((first, 0.5 + shift[0], 0.26), (second, 0.5 + shift[1], 0.74)))


def chosen_ground(rng: np.random.Generator, drawings: Sequence[CutOut], taken: Collection[str]) -> Ground:
    """A ground of a colour that is not `taken`: the first in seeded order that every drawing's outline stands off from.

    The order knows neither subject nor house; only contrast ties a colour to what is drawn on it.
    """
    names = [str(name) for name in rng.permutation(list(COLOURS)) if name not in taken]
    pattern = str(rng.choice(list(PATTERNS), p=list(PATTERNS.values())))
    contrast = {name: min(drawing.contrast(COLOURS[name]) for drawing in drawings) for name in names}
    colour = next((name for name in names if contrast[name] >= EDGE_CONTRAST), max(names, key=contrast.get))
    return Ground(colour, "plain" if colour == "white" else pattern)


def scene_picture(
    rng: np.random.Generator, drawings: Sequence[CutOut], layout: Layout, ground: Ground
) -> Image.Image:
    """The drawings on their ground, at the editions' picture size."""
    picture = _painted(rng, ground).convert("RGBA")
    for drawing, (size, x, y) in zip(drawings, layout.spots, strict=True):
        scale = size * CANVAS / max(drawing.image.size)
        shape = [max(1, round(side * scale)) for side in drawing.image.size]
        cut = drawing.image.resize(shape, Image.Resampling.LANCZOS)
        layer = Image.new("RGBA", picture.size)
        layer.paste(cut.convert("RGBA"), (round(x * CANVAS - cut.width / 2), round(y * CANVAS - cut.height / 2)))
        picture.alpha_composite(layer)
    return picture.convert("RGB").resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.LANCZOS)


def _edge_colours(drawing: Image.Image) -> np.ndarray:
    """The colours [n, 3] along the outline of an RGBA drawing, two pixels deep at a side of 96."""
    small = drawing.resize((96, 96), Image.Resampling.BILINEAR)
    covered = Image.new("L", (100, 100))
    covered.paste(small.getchannel("A").point(lambda alpha: 255 * (alpha > 200)), (2, 2))
    inner = np.asarray(covered.filter(ImageFilter.MinFilter(5)))
    edge = ((np.asarray(covered) > 0) & (inner == 0))[2:-2, 2:-2]
    return np.asarray(small.convert("RGB"), dtype=np.float64)[edge]


def _painted(rng: np.random.Generator, ground: Ground) -> Image.Image:
    shade = 0.0 if ground.colour in ("white", "black") else 8.0
    colour = np.clip(np.array(COLOURS[ground.colour]) + rng.uniform(-shade, shade, 3), 0, 255)
    down, across = np.mgrid[0:CANVAS, 0:CANVAS] / CANVAS
    if ground.pattern == "fading":
        whiter = 0.85 * (1 - down)
    elif ground.pattern == "striped":
        along = [down, across, (down + across) / 2**0.5][rng.integers(3)]
        whiter = 0.4 * ((along * rng.integers(5, 8)) % 1 < 0.5)
    elif ground.pattern == "dotted":
        count = rng.integers(5, 7)
        offset = np.hypot((down * count) % 1 - 0.5, (across * count) % 1 - 0.5)
        whiter = 0.75 * (offset < 0.2)
    else:
        whiter = np.zeros_like(down)
    pixels = colour + whiter[..., None] * (255 - colour)
    return Image.fromarray(pixels.round().astype(np.uint8), "RGB")
