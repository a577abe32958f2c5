"""Draws the pictures of the data-set template: eight shapes in five poses each. Run: python recipes/templates/shapes.py

Deterministic: a second run writes the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

TARGET = Path(__file__).parent.parent.parent / "attribench" / "templates" / "dataset" / "$module" / "mini"
SHAPES = {
    "blue-square": (4, "royalblue"), "gold-star": (5, "goldenrod"), "green-triangle": (3, "seagreen"),
    "grey-hexagon": (6, "slategrey"), "orange-disc": (40, "darkorange"), "pink-pentagon": (5, "hotpink"),
    "purple-square": (4, "rebeccapurple"), "red-triangle": (3, "firebrick"),
}  # fmt: skip
SIDE, POSES = 64, 5

for number, (name, (corners, colour)) in enumerate(SHAPES.items()):
    (TARGET / name).mkdir(parents=True, exist_ok=True)
    for pose in range(POSES):
        ground = (225 + 6 * ((pose + number) % 5), 240 - 5 * ((2 * pose + number) % 5), 230 + 5 * ((3 * pose + number) % 5))
        picture = Image.new("RGB", (SIDE, SIDE), ground)
        centre = (24 + 4 * ((pose + number) % 5), 38 - 3 * ((2 * pose + number) % 5))
        size = 13 + 2 * ((pose * 3 + number) % 5)
        ImageDraw.Draw(picture).regular_polygon((*centre, size), corners, rotation=17 * pose + 5 * number, fill=colour)
        picture.quantize(8).save(TARGET / name / f"{pose}.png", optimize=True)
