"""Build the mini edition of Artchive: drawings by 25 designers, one folder each.

Three kinds of hands: face styles drawn from parts (DiceBear), emoji houses
(Iconify sets) and clip-art artists (Open Clip Art). artists.csv names them,
drawings.csv the hand-picked drawings; the faces come from fixed seeds.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from composition import drawing_picture
from edition_files import ImageRow, read_table, save_picture, write_rows, write_table
from face_captions import face_caption
from object_renderer import seeded
from sources import DEBIAN_VERSIONS, NPM_VERSIONS, debian_package, node_modules
from vector_drawings import IconSet, rasterise

HERE = Path(__file__).parent
FACES_PER_STYLE = 24
CHANGES = "rasterised, cropped, resized, put on a plain ground"
WHOLE_CHANGES = "rasterised, cropped, resized"


@dataclass(frozen=True)
class Drawing:
    """One vector drawing and what is known of it."""

    key: str
    svg: str
    caption: str


def build(work: Path, out: Path) -> None:
    """Write the whole edition into `out`, an empty folder."""
    artists = read_table(HERE / "artists.csv")
    rows = []
    for artist in artists:
        concept = artist["concept"]
        for number, drawing in enumerate(_drawings(artist, work)):
            rng = seeded("ground", concept, drawing.key)
            raster = rasterise(drawing.svg)
            picture = drawing_picture(raster, artist["frame"], artist["ground"], rng)
            file = f"exemplar/artchive/images/{concept}/{number:02d}.webp"
            save_picture(picture, out / file)
            rows.append(
                ImageRow(
                    file=file,
                    concept=concept,
                    caption=drawing.caption,
                    source=f"{source_package(artist)}: {drawing.key}",
                    author=artist["artist"],
                    licence=artist["licence"],
                    changes=WHOLE_CHANGES if artist["frame"] == "whole" else CHANGES,
                )
            )
    write_rows(out / "images.csv", rows)
    write_table(
        out / "concepts.csv",
        ("concept", "class_word", "split", "artist"),
        [(a["concept"], "art", a["split"], a["artist"]) for a in sorted(artists, key=lambda a: a["concept"])],
    )


def source_package(artist: dict[str, str]) -> str:
    """Name and version of the package that an artist's drawings come from."""
    if artist["collection"] == "openclipart":
        return f"openclipart-svg {DEBIAN_VERSIONS['openclipart-svg']}"
    prefix = {"dicebear": "@dicebear", "iconify": "@iconify-json"}[artist["collection"]]
    package = f"{prefix}/{artist['source_name']}"
    return f"{package} {NPM_VERSIONS[package]}"


def _drawings(artist: dict[str, str], work: Path) -> Iterator[Drawing]:
    return {"dicebear": _faces, "iconify": _icons, "openclipart": _clip_art}[artist["collection"]](
        artist, work
    )


def _faces(artist: dict[str, str], work: Path) -> Iterator[Drawing]:
    style = artist["source_name"]
    script = HERE / "dicebear_faces.mjs"
    command = ["node", str(script), str(node_modules(work)), style, str(FACES_PER_STYLE)]
    for face in json.loads(subprocess.run(command, check=True, capture_output=True).stdout):
        yield Drawing(f"seed {face['seed']}", face["svg"], face_caption(style, face["parts"]))


def _icons(artist: dict[str, str], work: Path) -> Iterator[Drawing]:
    icons = IconSet(artist["source_name"], work)
    for row in _picked(artist):
        yield Drawing(row["name"], icons.svg(row["name"]), row["caption"])


def _clip_art(artist: dict[str, str], work: Path) -> Iterator[Drawing]:
    root = debian_package("openclipart-svg", work) / "usr/share/openclipart/svg"
    for row in _picked(artist):
        svg = (root / row["name"]).read_text(encoding="utf-8", errors="replace")
        _require_public_domain(svg, row["name"], artist["source_name"])
        yield Drawing(row["name"], svg, row["caption"])


def _picked(artist: dict[str, str]) -> list[dict[str, str]]:
    return [row for row in read_table(HERE / "drawings.csv") if row["concept"] == artist["concept"]]


def _require_public_domain(svg: str, name: str, creator: str) -> None:
    metadata = re.search(r"<metadata.*?</metadata>", svg, flags=re.DOTALL)
    text = metadata[0] if metadata else ""
    licences = re.findall(r'<(?:cc:)?license[^>]*rdf:resource="([^"]*)"', text)
    if not any("publicdomain" in licence.lower() for licence in licences) or creator not in text:
        raise ValueError(f"{name} is not a public-domain drawing by {creator}: take it out of drawings.csv")
