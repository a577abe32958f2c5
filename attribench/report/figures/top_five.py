"""A picture of a run: what each method found for some queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from attribench.data.region import Region
from attribench.report.figures.drawing import (
    GREEN,
    GREY,
    INK,
    MARGIN,
    YELLOW,
    framed,
    missing_glyphs_as_boxes,
    save,
    sheet,
    text_at,
    wrapped,
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One query: its prompt and picture, and for each method its first training images, best first."""

    prompt: str
    picture: Image.Image
    title: str
    """The prompt's concepts, as a reader calls them; "" where there are none."""
    marks: str = ""
    """What a green frame says of a training image; "" where there is nothing to tell them apart by."""
    region: Region | None = None
    """The box of the picture that is attributed."""
    top: Mapping[str, Sequence[tuple[Image.Image, bool]]]
    """Method -> (training image, whether it has a green frame)."""


# All lengths are inches.
THUMBNAIL, GAP, LABEL, PICTURE, HEAD, COUNT, LINE = 0.68, 0.07, 1.45, 1.75, 1.2, 0.5, 0.15
BLOCK_HEAD, TITLE_LINES, CAPTION_LINES, LABEL_LINES = 0.3, 3, 8, 3
FIVE = 5
BLOCK_WIDTH = PICTURE + 0.15 + LABEL + FIVE * (THUMBNAIL + GAP) + COUNT


@missing_glyphs_as_boxes()
def top_five(path: Path, items: Sequence[Shown]) -> None:
    """Write a PNG: each query's generated picture and prompt, and per method its five highest-scored images.

    Those that `marks` is true of are framed in green, and the attributed box of a picture in yellow. Raises
    StoreError if it cannot be written.
    """
    marks = next((item.marks for item in items if item.marks), "")
    with sheet(items, head=HEAD, block_width=BLOCK_WIDTH, block_height=_block_height) as (axes, canvas, places):
        _head(axes, marks, with_boxes=any(item.region is not None for item in items))
        for item, left, top in places:
            _block(axes, canvas, item, left, top)
    save(axes.figure, path)


def _head(axes: Axes, marks: str, *, with_boxes: bool) -> None:
    text_at(axes, MARGIN, 0.32, "Generated pictures and their top five training images, by method", size=13, weight="bold")
    x = MARGIN
    for colour, line, meaning, length in (
        *([(GREEN, 2.5, marks, 2.7)] if marks else []),
        (GREY, 0.8, "another image" if marks else "training image", 2.1),
        *([(YELLOW, 2.5, "the box that is attributed", 2.1)] if with_boxes else []),
    ):
        axes.add_patch(Rectangle((x + 0.03, 0.56), 0.16, 0.16, fill=False, edgecolor=colour, linewidth=line))
        text_at(axes, x + 0.3, 0.64, meaning, size=9.5)
        x += length
    counted = "; n/5: how many of the five have a green frame" if marks else ""
    text_at(axes, MARGIN, 0.9, f"The highest score is at the left{counted}.", size=9.5)


def _caption(item: Shown) -> list[tuple[str, str]]:
    """Lines below a generated picture with their weight: concepts, then prompt."""
    title = wrapped(item.title, PICTURE, TITLE_LINES, size=8, weight="bold")
    prompt = wrapped(item.prompt, PICTURE, CAPTION_LINES, size=8)
    return [(line, "bold") for line in title] + [(line, "normal") for line in prompt]


def _block_height(item: Shown) -> float:
    return BLOCK_HEAD + max(PICTURE + 0.1 + LINE * len(_caption(item)), len(item.top) * (THUMBNAIL + GAP))


def _block(axes: Axes, canvas: Image.Image, item: Shown, left: float, top: float) -> None:
    text_at(axes, left, top + 0.12, "generated", size=8.5, color="#666666")
    start = left + PICTURE + 0.15 + LABEL
    text_at(axes, start, top + 0.12, "training images with the highest scores", size=8.5, color="#666666")
    top += BLOCK_HEAD
    framed(axes, canvas, item.picture, left, top, PICTURE, INK, 0.8)
    if item.region is not None:
        _box(axes, item.region, item.picture.size, left, top)
    for i, (line, weight) in enumerate(_caption(item)):
        text_at(axes, left, top + PICTURE + 0.17 + i * LINE, line, size=8, weight=weight)
    for row, (method, images) in enumerate(item.top.items()):
        y = top + row * (THUMBNAIL + GAP)
        label = "\n".join(wrapped(method, LABEL - 0.15, LABEL_LINES, size=9))
        text_at(axes, start - 0.12, y + THUMBNAIL / 2, label, size=9, horizontalalignment="right")
        for i, (image, own) in enumerate(images[:FIVE]):
            colour, line = (GREEN, 2.5) if own else (GREY, 0.8)
            framed(axes, canvas, image, start + i * (THUMBNAIL + GAP), y, THUMBNAIL, colour, line)
        if item.marks:
            found, x = sum(own for _, own in images[:FIVE]), start + FIVE * (THUMBNAIL + GAP) + 0.02
            said, colour = f"{found}/{len(images[:FIVE])}", GREEN if found else "#666666"
            text_at(axes, x, y + THUMBNAIL / 2, said, size=9, color=colour)


def _box(axes: Axes, region: Region, size: tuple[int, int], left: float, top: float) -> None:
    """The part of a generated picture that is attributed, on its middle square; light on dark, to be seen on any picture."""
    width, height = size
    edge = min(width, height)
    spans = (region.x - (width - edge) / 2, region.width), (region.y - (height - edge) / 2, region.height)
    (x0, x1), (y0, y1) = [[min(max(end, 0), edge) * PICTURE / edge for end in (start, start + length)] for start, length in spans]
    for colour, line in ((INK, 3.6), (YELLOW, 1.8)):
        axes.add_patch(Rectangle((left + x0, top + y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=line))
