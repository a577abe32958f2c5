"""A box of a generated picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from attribench.errors import UsageError
from attribench.files.text import shown

_FORM = re.compile(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*")


@dataclass(frozen=True)
class Region:
    """Left, top, width and height in pixels of the picture as it was generated."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "x,y,w,h". Raises UsageError for anything else, and for a box without area."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise UsageError(f"the region {shown(text)!r} is not x,y,w,h in whole pixels, such as 128,0,256,256")
        region = cls(*(int(number) for number in found.groups()))
        if not (region.width and region.height):
            raise UsageError(f"the region {text!r} has no area; give it a width and a height")
        return region

    def require_within(self, size: tuple[int, int]) -> None:
        """Raise UsageError for a box that leaves a picture of `size` (width, height)."""
        width, height = size
        if self.x + self.width > width or self.y + self.height > height:
            raise UsageError(f"the region {self} reaches beyond the picture of {width} × {height} pixels; give a box inside it")

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"
