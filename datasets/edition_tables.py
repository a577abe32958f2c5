"""`images.csv`, `concepts.csv` and `prompts.csv`: what the public layouts have no place for.

The public data sets come without splits, and those of concepts without captions and readable names. An edition may
hold them in tables beside its pictures; the mini editions do. Each table may be absent, and each adapter documents
what it then falls back on. Other columns (source, author, licence …) are for people and pass unread.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from attribench.files.confined import fault, read_text

BYTE_LIMIT = 64 * 2**20

Row = TypeVar("Row", bound=BaseModel)


class ImageRow(BaseModel):
    """A picture: its path below the folder that holds the table, and what a person sees."""

    file: str = Field(min_length=1)
    caption: str = Field(min_length=1)


class ConceptRow(BaseModel):
    """A concept: its plain noun, its split and, for a style, the artist as people write the name."""

    concept: str = Field(min_length=1)
    class_word: str = ""
    split: Literal["dev", "test"]
    artist: str = ""

    @property
    def plain_name(self) -> str:
        """How a person would name it, or "" where the table does not say."""
        return self.artist or self.class_word


class PromptRow(BaseModel):
    """The picture that a prompt is a caption of, by its number in the annotations, and the split of its captions."""

    image_id: int = Field(ge=0)
    split: Literal["dev", "test"]


def prompt_rows(root: Path) -> dict[int, PromptRow]:
    """The rows of `prompts.csv` by image id. Raises DatasetError as `EditionTables.beside` does."""
    return _rows(root, "prompts.csv", PromptRow, "image_id")


@dataclass(frozen=True)
class EditionTables:
    """The rows of the tables of a data set of concepts: `images` by image id, `concepts` by concept name."""

    images: dict[str, ImageRow]
    concepts: dict[str, ConceptRow]

    @classmethod
    def beside(cls, root: Path, pictures: str = "") -> EditionTables:
        """The tables in `root`, with files named from `pictures`, the folder below it that image ids start from.

        Raises DatasetError for a table that is there but is not UTF-8, lacks a column or has a row that is
        wrong or doubled.
        """
        prefix = f"{pictures}/" if pictures else ""
        images = _rows(root, "images.csv", ImageRow, "file")
        return cls(
            {file.removeprefix("./").removeprefix(prefix): row for file, row in images.items()},
            _rows(root, "concepts.csv", ConceptRow, "concept"),
        )


def _rows(root: Path, name: str, row_type: type[Row], key: str) -> dict[Any, Row]:
    if not (root / name).exists():
        return {}
    remedy = f"mend it, or remove {name} to go without"
    rows: dict[Any, Row] = {}
    reader = csv.DictReader(io.StringIO(read_text(root, name, BYTE_LIMIT), newline=""), strict=True)
    needed = [column for column, field in row_type.model_fields.items() if field.is_required()]
    try:
        missing = [column for column in needed if column not in (reader.fieldnames or ())]
        if missing:
            raise fault(name, f"has no column {missing[0]!r} (its first line must name {', '.join(needed)})", remedy)
        for cells in reader:
            if None in cells:
                what = "has more fields than the first line names"
                raise fault(f"{name} line {reader.line_num}", what, f"quote its commas, or {remedy}")
            row = row_type.model_validate(cells)
            identity = getattr(row, key)
            if identity in rows:
                raise fault(f"{name} line {reader.line_num}", f"names {identity!r} a second time", remedy)
            rows[identity] = row
    except csv.Error as error:
        raise fault(f"{name} line {reader.line_num}", f"is not CSV ({error})", remedy) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise fault(f"{name} line {reader.line_num}", f"{first['loc'][0]}: {first['msg']}", remedy) from error
    return rows
