"""Vector drawings: read from an Iconify set, rasterised with resvg."""

import io
import json
import re
import unicodedata
from pathlib import Path

import resvg_py
from PIL import Image

from sources import node_modules

RASTER_SIZE = 512
PIXELS_PER_UNIT = {"": 1.0, "px": 1.0, "pt": 1.25, "mm": 3.543307}


class IconSet:
    """The drawings of one @iconify-json package, by name."""

    def __init__(self, package: str, work: Path) -> None:
        path = node_modules(work) / "@iconify-json" / package / "icons.json"
        self._icons = json.loads(path.read_text(encoding="utf-8"))

    def name(self, label: str) -> str:
        """The set's own name for an emoji label of emojibase: "man’s shoe" -> "mans-shoe"."""
        plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
        name = re.sub(r"[^a-z0-9]+", "-", plain.replace("'", "").lower()).strip("-")
        return self._icons.get("aliases", {}).get(name, {}).get("parent", name)

    def svg(self, name: str) -> str:
        """One drawing as a whole SVG file."""
        icon = self._icons["icons"][name]
        width, height = (icon.get(side, self._icons.get(side, 16)) for side in ("width", "height"))
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        )


def rasterise(svg: str, width: int = RASTER_SIZE) -> Image.Image:
    """Draw an SVG at `width` pixels of width, as RGBA. Text is left out: its look depends on fonts."""
    png = resvg_py.svg_to_bytes(svg_string=_with_view_box(svg), width=width, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def _with_view_box(svg: str) -> str:
    tag = re.search(r"<svg\b[^>]*>", svg)[0]
    if "viewBox" in tag:
        return svg
    width, height = (_pixels(re.search(rf'\s{side}="([^"]*)"', tag)[1]) for side in ("width", "height"))
    unsized = re.sub(r'\s(width|height)="[^"]*"', "", tag)
    return svg.replace(tag, f'{unsized[:-1]} viewBox="0 0 {width:g} {height:g}">', 1)


def _pixels(length: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)\s*([a-z]*)", length).groups()
    return float(number) * PIXELS_PER_UNIT[unit]
