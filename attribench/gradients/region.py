"""A box of a generated picture: what the loss of a query is restricted to, so that one part of it is attributed.

Boxes are in pixels of the picture as it was generated. The model sees the picture's centre square at its own
resolution, and its loss is over latent cells: a cell counts if the box touches it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from attribench.errors import MethodError

_FORM = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*")


@dataclass(frozen=True)
class Region:
    """Left, top, width and height in pixels."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "x,y,w,h". Raises MethodError for anything else, and for a box without area."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise MethodError(f"the region {text!r} is not x,y,w,h in whole pixels, such as 128,0,256,256")
        region = cls(*(int(number) for number in found.groups()))
        if not (region.width and region.height):
            raise MethodError(f"the region {text!r} has no area; give it a width and a height")
        return region

    def mask(self, size: tuple[int, int], resolution: int, downscale: int) -> Tensor:
        """[1, cells, cells] float32: 1 where the box touches a latent cell of a picture of `size` (width, height).

        Raises MethodError for a box that leaves the picture, or that the model does not see any of.
        """
        width, height = size
        if self.x + self.width > width or self.y + self.height > height:
            raise MethodError(f"the {self} reaches beyond the picture of {width} × {height} pixels; give a box inside it")
        edge, cells = min(width, height), resolution // downscale
        left, top = (width - edge) // 2, (height - edge) // 2  # as images.square cuts
        mask = torch.zeros(1, cells, cells)
        rows, columns = _cells(self.y - top, self.height, edge, cells), _cells(self.x - left, self.width, edge, cells)
        mask[:, rows, columns] = 1.0
        if not mask.any():
            raise MethodError(f"the {self} lies outside the centre square of {width} × {height} pixels, all that the model sees")
        return mask

    def __str__(self) -> str:
        return f"region {self.x},{self.y},{self.width},{self.height}"


def _cells(start: int, length: int, edge: int, cells: int) -> slice:
    """The cells that [start, start + length) of `edge` pixels touches; whole numbers, so that no cell is rounding's."""
    first, last = start * cells // edge, -(-(start + length) * cells // edge)
    return slice(max(first, 0), max(min(last, cells), 0))
