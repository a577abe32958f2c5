"""What the pictures share: colours, text that fits, and files that are whole and small.

matplotlib's Agg canvas through its objects, with no pyplot state, so that any thread or process may draw. Prompts and
names come from strangers: they are shown as they are, never read as mathematics (`$`), and wrapped.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from PIL import Image, ImageOps

from attribench.files.text import shown
from attribench.files.whole import whole_file

GREEN, GREY, BLUE, RED, YELLOW = "#1a9641", "#b0b0b0", "#2b5c9e", "#c0392b", "#ffd92f"
INK, NULL, CONTROL = "#222222", "#e4e4e4", "#9a9a9a"
COLOURS = ("#2b5c9e", "#d1672b", "#3a8f5a", "#8a4fa3", "#b8902c", "#2a9aa6", "#a83250", "#5d6b2f", "#6b4a3a", "#4b4bd0")
"""Of methods, in the order of a legend."""
MAX_BYTES = 1_000_000
RESOLUTION = 100
"""Dots per inch; fewer where the file would be larger than that."""
MARGIN = 0.35
"""Inches around the blocks of a sheet."""

Item = TypeVar("Item")


@contextmanager
def missing_glyphs_as_boxes() -> Iterator[None]:
    """A prompt in a script that the font lacks is drawn as boxes, without a warning for every letter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def wrapped(text: str, width: float, lines: int, *, size: float, weight: str = "normal") -> list[str]:
    """A stranger's text in at most `lines` printable lines, none wider than `width` inches at `size` points."""
    printable = shown(" ".join(text.split()))
    font = FontProperties(size=size, weight=weight)

    def inches(line: str) -> float:
        return text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] / 72

    characters = round(width * 72 / (0.45 * size))  # as many as narrow letters would let in, then fewer
    while True:
        found = textwrap.wrap(printable, characters, max_lines=lines, placeholder=" …", break_on_hyphens=False)
        if characters <= 4 or max(map(inches, found), default=0) <= width:
            return found or [""]
        characters -= 1


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG of at most a megabyte. Raises StoreError if it cannot be written."""
    FigureCanvasAgg(figure)
    resolution = float(RESOLUTION)
    while True:
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=resolution)
        if png.tell() <= MAX_BYTES:
            break
        resolution *= 0.9 * (MAX_BYTES / png.tell()) ** 0.5  # bytes grow with nearly the square
    with whole_file(path) as aside:
        aside.write_bytes(png.getvalue())


@contextmanager
def sheet(
    items: Sequence[Item], *, head: float, block_width: float, block_height: Callable[[Item], float]
) -> Iterator[tuple[Axes, Image.Image, list[tuple[Item, float, float]]]]:
    """Blocks in two columns below a head, lengths in inches: axes that span the figure with y pointing down, the canvas of
    its pictures (`framed`), and each item with the left and the top of its block."""
    columns = 2 if len(items) > 1 else 1
    places, top = [], head
    for start in range(0, len(items), columns):
        row = items[start : start + columns]
        places += [(item, MARGIN + column * (block_width + MARGIN), top) for column, item in enumerate(row)]
        top += max(map(block_height, row)) + MARGIN
    width, height = MARGIN + columns * (block_width + MARGIN), top
    axes = Figure(figsize=(width, height), facecolor="white").add_axes((0, 0, 1, 1))
    canvas = Image.new("RGB", (round(width * RESOLUTION), round(height * RESOLUTION)), "white")
    yield axes, canvas, places
    axes.imshow(canvas, extent=(0, width, height, 0), aspect="auto", zorder=0)
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_axis_off()


def text_at(axes: Axes, x: float, y: float, text: str, **style: object) -> None:
    """A line of text whose middle is at (x, y) of the axes of a sheet."""
    axes.text(x, y, text, **{"verticalalignment": "center", "color": INK, "parse_math": False} | style)


def framed(
    axes: Axes, canvas: Image.Image, image: Image.Image, left: float, top: float, side: float, colour: str, line: float
) -> None:
    """The middle square of an image, framed. All go onto one canvas, which is much faster than one artist each."""
    pixels, corner = round(side * RESOLUTION), (round(left * RESOLUTION), round(top * RESOLUTION))
    canvas.paste(ImageOps.fit(image.convert("RGB"), (pixels, pixels), Image.Resampling.LANCZOS), corner)
    axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=colour, linewidth=line, joinstyle="miter"))


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """New axes, in inches from the left and the bottom of the figure."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def write_at(figure: Figure, left: float, top: float, text: str, **style: object) -> None:
    """Text at inches from the left and the top of the figure."""
    width, height = figure.get_size_inches()
    figure.add_artist(Text(left / width, 1 - top / height, text, **{"va": "center", "color": INK, "parse_math": False} | style))


def style_of(axes: Axes, grid: str, colour: str = "#ececec") -> None:
    """The look of axes with grid lines along "x" or "y"."""
    axes.tick_params(labelsize=8)
    axes.grid(axis=grid, color=colour, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
