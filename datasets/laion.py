"""LAION pictures as distractors: a folder of pictures, or features of them that somebody has published.

GenDataAttribution hides a model's exemplars among a million of them (`laion_subset/`); any other folder of pictures
serves as well. There is nothing to be learned or asked here, so no protocol takes this data set alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from attribench.data import Dataset, Edition, PoolImage, Unusable
from attribench.data.pictures import picture_ids, problems, read_rgb
from attribench.files.confined import Problem
from attribench.files.text import shown

from .edition_tables import EditionTables

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDERS = ("laion_subset", "laion_subset_jpeg")
"""GenDataAttribution's names for the pictures as they are, and for a smaller copy of them."""


class Laion(Dataset):
    """A pool of distractors: pictures in `laion_subset/`, or in the root itself. Captions from an edition's `images.csv`."""

    kind = "a pool of distractors"
    name = "laion"
    default_protocol = ""
    layout: ClassVar[str] = "laion_subset/*, or any folder of pictures"
    citation = "Schuhmann et al.: LAION-5B. NeurIPS Datasets and Benchmarks 2022; the subset of Wang et al., ICCV 2023."
    licence = "The pictures are their makers'; the index is CC BY 4.0."

    def __init__(self, root: Path, edition: Edition) -> None:
        super().__init__(root, edition)
        folder = distractor_folder(root) or "."
        ids, self._left_out = picture_ids(root, folder)
        captions = {file: row.caption for file, row in EditionTables.beside(root).images.items()}
        self.images = tuple(PoolImage(id=path, caption=captions.get(path, "")) for path in ids)
        if not ids:
            raise Unusable(f"{shown(str(root))}: holds no picture; expected {self.layout}", self)

    @property
    def n_images(self) -> int:
        return len(self.images)

    @property
    def contents(self) -> str:
        return f"{self.n_images} distractors"

    def load(self, image_id: str) -> Image:
        return read_rgb(self.root, image_id)

    def verify(self) -> list[Problem]:
        return [*self._left_out, *problems(self.root, [image.id for image in self.images])]


def distractor_folder(root: Path) -> str | None:
    """The folder of distractors below a root, if it is there."""
    return next((folder for folder in FOLDERS if (root / folder).is_dir()), None)
