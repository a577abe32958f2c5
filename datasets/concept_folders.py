"""What Artchive and CustomConcept101 have in common: the pictures of a concept lie in one folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from attribench.data import Concept, ConceptDataset, Edition, ImageRecord, Unusable
from attribench.data.pictures import picture_ids, problems, read_rgb
from attribench.errors import DatasetError
from attribench.files.confined import FileFault, Problem
from attribench.files.text import is_text, shown, some_shown

from .edition_tables import EditionTables
from .splits import default_split

if TYPE_CHECKING:
    from PIL.Image import Image

FEWEST_IMAGES = 2
"""A concept with one picture cannot be told from that picture, nor cut into two halves."""
FEWEST_CONCEPTS = 5
"""The papers' smaller customization."""


@dataclass(frozen=True, kw_only=True)
class ConceptFolder:
    """One concept as its layout gives it; `class_word` and `caption` stand where the tables say nothing."""

    name: str
    folder: str
    """Posix path below the root."""
    class_word: str
    prompt: str
    phrase: str
    caption: str


class ConceptFolders(ConceptDataset):
    """A data set with one folder of pictures per concept.

    A concept with fewer than two pictures is left out, told in `notices` and reported by `verify`. Where an index
    promises pictures for each concept it is a DatasetError instead (Unusable), and so are fewer than five concepts.
    """

    layout: ClassVar[str]
    """The public layout and where it comes from, for the message that it was not found."""
    index: ClassVar[str] = ""
    """The file that lists the concepts, if there is one: then a concept without pictures means a damaged copy."""

    def __init__(self, root: Path, edition: Edition, folders: Iterable[ConceptFolder], tables: EditionTables) -> None:
        super().__init__(root, edition)
        self._left_out: list[Problem] = []
        ordered = sorted(folders, key=lambda folder: folder.name)
        found = {folder.name: self._images_of(folder, tables) for folder in ordered}
        self._images = {name: images for name, images in found.items() if len(images) >= FEWEST_IMAGES}
        self._concepts = tuple(_concept(self.name, folder, tables) for folder in ordered if folder.name in self._images)
        self._thin = {name: len(images) for name, images in found.items() if name not in self._images}
        self._found_ids = tuple(image.id for images in found.values() for image in images)
        self._left_out += _rows_without_files(self._found_ids, found, tables)
        self._require_enough()
        self._require_promised()

    @property
    def concepts(self) -> tuple[Concept, ...]:
        return self._concepts

    def images(self, concept: str) -> tuple[ImageRecord, ...]:
        if concept not in self._images:
            raise DatasetError(
                f"{self.name} has no usable concept {shown(concept)!r}; take one of its {len(self._images)}: "
                f"{some_shown(self._images)}"
            )
        return self._images[concept]

    def load(self, image_id: str) -> Image:
        return read_rgb(self.root, image_id)

    @property
    def notices(self) -> tuple[str, ...]:
        """One line if concepts had to be left out."""
        if not self._thin:
            return ()
        return (f"left out, since a concept needs {FEWEST_IMAGES} pictures: {self._too_thin()}",)

    def verify(self) -> list[Problem]:
        return [*self._left_out, *problems(self.root, self._found_ids)]

    def _images_of(self, folder: ConceptFolder, tables: EditionTables) -> tuple[ImageRecord, ...]:
        if not is_text(folder.folder):
            self._left_out.append(Problem(shown(folder.folder), "has a name that is not clean UTF-8 text", "rename it"))
            return ()
        try:
            ids, left_out = picture_ids(self.root, folder.folder)
        except FileFault as error:
            self._left_out.append(error.problem)
            return ()
        self._left_out += left_out
        if len(ids) < FEWEST_IMAGES:
            self._left_out.append(
                Problem(
                    shown(folder.folder),
                    f"holds {len(ids)} of the {FEWEST_IMAGES} pictures that a concept needs, so it is left out",
                    "add pictures or remove it",
                )
            )
        captions = {image_id: tables.images[image_id].caption for image_id in ids if image_id in tables.images}
        return tuple(
            ImageRecord(id=image_id, concept=folder.name, caption=captions.get(image_id, folder.caption)) for image_id in ids
        )

    def _too_thin(self) -> str:
        """How many concepts have too few pictures, and the first of them."""
        counts = (f"{name} has {count or 'none'}" for name, count in self._thin.items())
        return f"{len(self._thin)} of {len(self._thin) + len(self._images)} concepts ({some_shown(counts)})"

    def _require_promised(self) -> None:
        if self.index and self._thin:
            raise Unusable(
                f"{shown(str(self.root))}: fewer than {FEWEST_IMAGES} pictures for {self._too_thin()}; "
                f"restore their pictures, or take their entries out of {self.index}",
                self,
            )

    def _require_enough(self) -> None:
        if len(self._concepts) >= FEWEST_CONCEPTS:
            return
        found = f"{len(self._concepts)} concepts with at least {FEWEST_IMAGES} pictures"
        first = f"; first fault: {self._left_out[0].file} {self._left_out[0].fault}" if self._left_out else ""
        raise Unusable(
            f"{shown(str(self.root))}: found {found} where {self.name} needs {FEWEST_CONCEPTS}"
            f"{f' ({some_shown(self._images)})' if self._images else ''}{first}; expected {self.layout}",
            self,
        )


def _concept(dataset: str, folder: ConceptFolder, tables: EditionTables) -> Concept:
    row = tables.concepts.get(folder.name)
    return Concept(
        name=folder.name,
        class_word=(row.plain_name if row else "") or folder.class_word,
        split=row.split if row else default_split(dataset, folder.name),
        prompt=folder.prompt,
        phrase=folder.phrase,
    )


def _rows_without_files(ids: Iterable[str], concepts: Iterable[str], tables: EditionTables) -> list[Problem]:
    """A table's rows whose picture or concept is not there: a sign of a copy that is not whole."""
    lost = {
        "images.csv": sorted(tables.images.keys() - set(ids)),
        "concepts.csv": sorted(tables.concepts.keys() - set(concepts)),
    }
    return [
        Problem(shown(name), f"is in {table} but was not found", "restore it, or remove the row")
        for table, names in lost.items()
        for name in names
    ]
