"""Pictures that models make again without what a method points at: Figure 4 of the unlearning paper.

A row for each method, a column for each K, in a block for each query: what the model that is attributed made of the prompt,
and what models retrained without the removed images make of the same noise and prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from PIL import Image

from attribench.report.figures.drawing import GREY, INK, MARGIN, framed, missing_glyphs_as_boxes, save, sheet, text_at, wrapped

# All lengths are inches.
ORIGINAL, THUMBNAIL, GAP, LABEL, HEAD, BLOCK_HEAD, LINE = 1.5, 0.85, 0.07, 1.5, 0.95, 0.3, 0.15
CAPTION_LINES = 4


@dataclass(frozen=True, kw_only=True)
class Regenerated:
    """One query: what the model that is attributed made of its prompt, and for each method what retrained models make."""

    prompt: str
    picture: Image.Image
    again: Mapping[str, Mapping[str, Image.Image]]
    """Method -> "without 500" -> picture."""


@missing_glyphs_as_boxes()
def regenerated_plot(path: Path, items: Sequence[Regenerated]) -> None:
    """Write the PNG. Raises StoreError if it cannot be written."""
    n_columns = max((len(pictures) for item in items for pictures in item.again.values()), default=1)
    block_width = ORIGINAL + 0.15 + LABEL + n_columns * (THUMBNAIL + GAP)
    with sheet(items, head=HEAD, block_width=block_width, block_height=_height) as (axes, canvas, places):
        title = wrapped("Generated again, from the same noise and prompt, without the images that a method points at",
                        axes.figure.get_figwidth() - 2 * MARGIN, 2, size=12, weight="bold")  # fmt: skip
        for number, line in enumerate(title):
            text_at(axes, MARGIN, 0.3 + 0.22 * number, line, size=12, weight="bold")
        for item, left, top in places:
            _block(axes, canvas, item, left, top)
    save(axes.figure, path)


def _height(item: Regenerated) -> float:
    return BLOCK_HEAD + max(ORIGINAL + 0.15 + LINE * CAPTION_LINES, len(item.again) * (THUMBNAIL + GAP))


def _block(axes: Axes, canvas: Image.Image, item: Regenerated, left: float, top: float) -> None:
    text_at(axes, left, top + 0.12, "the model with all images", size=8.5, color="#666666")
    start = left + ORIGINAL + 0.15 + LABEL
    names = list(dict.fromkeys(name for pictures in item.again.values() for name in pictures))
    for column, name in enumerate(names):
        text_at(axes, start + column * (THUMBNAIL + GAP), top + 0.12, name, size=8.5, color="#666666")
    top += BLOCK_HEAD
    framed(axes, canvas, item.picture, left, top, ORIGINAL, INK, 0.8)
    for number, line in enumerate(wrapped(item.prompt, ORIGINAL, CAPTION_LINES, size=8)):
        text_at(axes, left, top + ORIGINAL + 0.17 + number * LINE, line, size=8)
    for row, (method, pictures) in enumerate(item.again.items()):
        y = top + row * (THUMBNAIL + GAP)
        label = "\n".join(wrapped(method, LABEL - 0.15, 3, size=9))
        text_at(axes, start - 0.12, y + THUMBNAIL / 2, label, size=9, horizontalalignment="right")
        for column, name in enumerate(names):
            if name in pictures:
                framed(axes, canvas, pictures[name], start + column * (THUMBNAIL + GAP), y, THUMBNAIL, GREY, 0.8)
