"""The pictures of a site: training images of an edition at 64 pixels, each written once, and a sheet of each data set."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from PIL import Image

from attribench.data import ConceptDataset, Dataset, ExemplarDataset, ExemplarSplit
from attribench.data.pictures import square

SIDE = 64
SHEET = (12, 5)
"""Columns and rows."""
QUALITY = 82
SPLITS: tuple[ExemplarSplit, ...] = get_args(ExemplarSplit)


@dataclass(frozen=True)
class Sheet:
    """One picture of many."""

    path: str
    width: int
    height: int
    alt: str


class Album:
    """The pictures that a site needs, by their paths below it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def picture(self, dataset: Dataset, image_id: str) -> str:
        """The path of one training image."""
        name = hashlib.sha256(image_id.encode()).hexdigest()[:12]
        path = f"pictures/{dataset.name}-{dataset.edition}/{name}.webp"
        if path not in self.files:
            self.files[path] = _webp(square(dataset.load(image_id), SIDE))
        return path

    def sheet(self, dataset: Dataset, image_ids: Sequence[str]) -> Sheet:
        """Some pictures of a data set, evenly spaced over it."""
        columns, rows = SHEET
        wanted = min(columns * rows, len(image_ids))
        chosen = [image_ids[i * len(image_ids) // wanted] for i in range(wanted)]
        n_rows = -(-wanted // columns)
        sheet = Image.new("RGB", (columns * SIDE, n_rows * SIDE), "white")
        for i, image_id in enumerate(chosen):
            sheet.paste(square(dataset.load(image_id), SIDE), (i % columns * SIDE, i // columns * SIDE))
        path = f"pictures/{dataset.name}-{dataset.edition}.webp"
        self.files[path] = _webp(sheet)
        return Sheet(path, sheet.width, sheet.height, f"{wanted} of the {len(image_ids)} pictures of {dataset.name}")


def image_ids_of(dataset: Dataset) -> list[str]:
    """All pictures of a data set that a model may learn from, or take for learned, whatever its kind."""
    if isinstance(dataset, ConceptDataset):
        return [record.id for concept in dataset.concepts for record in dataset.images(concept.name)]
    if isinstance(dataset, ExemplarDataset):
        exemplars = [image.id for split in SPLITS for model in dataset.models(split) for image in model.exemplars]
        return list(dict.fromkeys([*exemplars, *(image.id for image in dataset.distractors)]))
    return [image.id for image in dataset.images]


def _webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()
