"""Put a cut-out on a coloured ground and shrink it to the editions' picture size."""

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

PICTURE_SIZE = 64
WEBP = {"format": "WEBP", "quality": 92, "method": 6}
OVERSAMPLING = 4
SUBJECT_SHARE = (0.70, 0.82)
OFFSET_SHARE = 0.05
SHADOW_STRENGTH = 0.28
TRIM_MARGIN = 0.05
PORTRAIT_SHARE = 0.72
TINT_VALUE = {"light": (0.68, 1.0), "dark": (0.16, 0.34)}
GROUND_TRIES = 16
MIN_GROUND_CONTRAST = 75.0


def object_picture(cutout: Image.Image, rng: np.random.Generator, size: int = PICTURE_SIZE) -> Image.Image:
    """A cut-out (RGBa) on a seeded ground, with a soft shadow, at `size` x `size`.

    Size, place and ground come from `rng`; of several grounds the first that
    stands off from the object's colours is taken.
    """
    canvas = size * OVERSAMPLING
    subject = _fitted(cutout, round(canvas * rng.uniform(*SUBJECT_SHARE)))
    slack = np.array([canvas - subject.width, canvas - subject.height]) / 2
    left, top = (slack + rng.uniform(-1, 1, 2) * canvas * OFFSET_SHARE).round().astype(int)
    layer = Image.new("RGBa", (canvas, canvas))
    layer.paste(subject, (int(left), int(top)))
    premultiplied = np.asarray(layer, dtype=np.float64)
    alpha = premultiplied[..., 3:] / 255
    ground = _contrasting_ground(premultiplied, lambda: seeded_ground(rng, canvas))
    shade = np.asarray(_shadow(layer.getchannel("a")), dtype=np.float64)[..., None] / 255
    picture = premultiplied[..., :3] + (1 - alpha) * ground * (1 - SHADOW_STRENGTH * shade)
    full = Image.fromarray(picture.clip(0, 255).round().astype(np.uint8), "RGB")
    return full.resize((size, size), Image.Resampling.LANCZOS)


def drawing_picture(
    drawing: Image.Image, frame: str, tint: str, rng: np.random.Generator, size: int = PICTURE_SIZE
) -> Image.Image:
    """A drawing (RGBA) framed and put on a seeded plain tint, `light` or `dark`, at `size` x `size`.

    `frame` says what of it is shown: `whole` all of it, `trim` the drawn part
    with a margin, `bust` the drawn part standing on the lower edge, `portrait`
    its upper part only, `tile` the square at its top.
    """
    canvas = size * OVERSAMPLING
    layer = _framed(drawing, frame).resize((canvas, canvas), Image.Resampling.LANCZOS)
    premultiplied = np.asarray(layer, dtype=np.float64)
    ground = _contrasting_ground(premultiplied, lambda: plain_tint(tint, rng, canvas))
    picture = premultiplied[..., :3] + (1 - premultiplied[..., 3:] / 255) * ground
    full = Image.fromarray(picture.clip(0, 255).round().astype(np.uint8), "RGB")
    return full.resize((size, size), Image.Resampling.LANCZOS)


def plain_tint(tint: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """One `light` or `dark` colour, float [size, size, 3] in 0..255."""
    colour = _rgb(rng.uniform(), rng.uniform(0.08, 0.45), rng.uniform(*TINT_VALUE[tint]))
    return np.broadcast_to(colour, (size, size, 3))


def seeded_ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """A plain tint, a slanted gradient or a radial gradient, float [size, size, 3] in 0..255."""
    hue, saturation, value = rng.uniform(), rng.uniform(0.08, 0.6), rng.uniform(0.55, 1.0)
    kind = rng.choice(["plain", "slanted", "radial"])
    first = _rgb(hue, saturation, value)
    if kind == "plain":
        return np.broadcast_to(first, (size, size, 3))
    second = _rgb(hue + rng.uniform(-0.12, 0.12), saturation * 0.6, min(1.0, value * rng.uniform(1.05, 1.35)))
    down, across = np.mgrid[0:size, 0:size] / (size - 1)
    if kind == "slanted":
        angle = rng.uniform(0, 2 * np.pi)
        mix = 0.5 + (across - 0.5) * np.cos(angle) + (down - 0.5) * np.sin(angle)
    else:
        mix = 1 - np.hypot(across - rng.uniform(0.3, 0.7), down - rng.uniform(0.3, 0.7)) / 0.8
    return first + mix.clip(0, 1)[..., None] * (second - first)


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def _fitted(cutout: Image.Image, longest_side: int) -> Image.Image:
    scale = longest_side / max(cutout.size)
    width, height = (max(1, round(side * scale)) for side in cutout.size)
    return cutout.resize((width, height), Image.Resampling.LANCZOS)


def _framed(drawing: Image.Image, frame: str) -> Image.Image:
    content = drawing.getchannel("A").getbbox()
    if frame == "whole" or content is None:
        return drawing.convert("RGBa")
    left, top, right, bottom = content
    width, height = right - left, bottom - top
    middle = (left + right) / 2
    if frame == "trim":
        side = max(width, height) * (1 + 2 * TRIM_MARGIN)
        top -= (side - height) / 2
    elif frame == "tile":
        side = width
    else:
        shown = PORTRAIT_SHARE if frame == "portrait" else 1.0
        side = height * shown * (1 + TRIM_MARGIN)
        top -= height * shown * TRIM_MARGIN
        middle = drawing.width / 2
    box = (round(middle - side / 2), round(top), round(middle + side / 2), round(top + side))
    return drawing.convert("RGBa").crop(box)


def _contrasting_ground(premultiplied: np.ndarray, draw: Callable[[], np.ndarray]) -> np.ndarray:
    covered = premultiplied[..., 3] > 200
    colours = premultiplied[covered][:, :3] if covered.any() else np.zeros((1, 3))
    best, best_contrast = None, -1.0
    for _ in range(GROUND_TRIES):
        ground = draw()
        behind = ground[covered] if covered.any() else ground.reshape(-1, 3)[:1]
        contrast = float(np.quantile(np.linalg.norm(colours - behind, axis=1), 0.3))
        if contrast > best_contrast:
            best, best_contrast = ground, contrast
        if contrast >= MIN_GROUND_CONTRAST:
            break
    return best


def _shadow(alpha: Image.Image) -> Image.Image:
    drop = alpha.height // 28
    lowered = Image.new("L", alpha.size)
    lowered.paste(alpha, (0, drop))
    return lowered.filter(ImageFilter.GaussianBlur(alpha.height / 32))
