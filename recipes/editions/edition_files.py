"""What every edition has beside its pictures: tables, hashes, contact sheets."""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from composition import PICTURE_SIZE, WEBP

SHEET_LABEL_WIDTH = 132
SHEET_COLUMNS = 2
SHEET_GAP = 2
SHEET_WEBP = {"format": "WEBP", "quality": 60, "method": 6}


@dataclass(frozen=True)
class ImageRow:
    """One picture: its file in the edition, what it shows, where it comes from."""

    file: str
    concept: str
    caption: str
    source: str
    author: str
    licence: str
    changes: str


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with plain line ends."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Write images.csv from rows of one dataclass with a field `file`, sorted by it; each file may stand there once."""
    ordered = sorted(rows, key=lambda row: row.file)
    twice = [one.file for one, other in pairwise(ordered) if one.file == other.file]
    if twice:
        raise ValueError(f"{twice[0]} is written twice")
    write_table(path, [field.name for field in fields(ordered[0])], (asdict(row).values() for row in ordered))


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file as dictionaries."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write one picture in the editions' format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").save(path, **WEBP)


def folder_hash(folder: Path) -> str:
    """sha256 over the names and bytes of all files of a folder, in sorted order."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def folder_size(folder: Path) -> tuple[int, int]:
    """Number of files and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def pictures_by_concept(edition: Path) -> dict[str, list[Path]]:
    """The pictures of each concept of a built edition, in the order of images.csv."""
    pictures: dict[str, list[Path]] = {}
    for row in read_table(edition / "images.csv"):
        pictures.setdefault(row["concept"], []).append(edition / row["file"])
    return pictures


def contact_sheet(groups: dict[str, list[Path]], path: Path, per_concept: int) -> None:
    """One labelled strip of pictures per concept, in two columns, as one WebP."""
    strips = [_strip(label, pictures, per_concept) for label, pictures in groups.items()]
    rows = -(-len(strips) // SHEET_COLUMNS)
    width, height = strips[0].size
    sheet = Image.new("RGB", (SHEET_COLUMNS * width, rows * height), "white")
    for index, strip in enumerate(strips):
        sheet.paste(strip, (index // rows * width, index % rows * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, **SHEET_WEBP)


def _strip(label: str, pictures: Sequence[Path], per_concept: int) -> Image.Image:
    cell = PICTURE_SIZE + SHEET_GAP
    strip = Image.new("RGB", (SHEET_LABEL_WIDTH + cell * per_concept, cell), "white")
    ImageDraw.Draw(strip).text((4, cell // 2 - 6), label, fill="black")
    for index, picture in enumerate(pictures[:per_concept]):
        with Image.open(picture) as image:
            strip.paste(image, (SHEET_LABEL_WIDTH + index * cell, SHEET_GAP // 2))
    return strip
