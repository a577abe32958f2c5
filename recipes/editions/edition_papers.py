"""Write an edition's papers: LICENSES/, NOTICE and the data card CARD.md.

All figures on the card are counted from the edition itself.
"""

import json
import shutil
from collections import defaultdict
from pathlib import Path

from edition_files import folder_size, read_table

HERE = Path(__file__).parent
LICENCE_NAMES = {
    "CC0-1.0": "CC0 1.0",
    "CC-BY-4.0": "CC BY 4.0",
    "Apache-2.0": "Apache 2.0",
    "CC-PDDC": "public domain dedication",
}
NOTICE_HEAD = """The pictures are adapted from the works below. Their makers neither made nor endorse this edition. The
licence texts are in LICENSES, the source of each picture is in images.csv."""


def write_papers(name: str, edition: Path) -> None:
    """Add licences, notice and card to a built edition."""
    images = read_table(edition / "images.csv")
    (edition / "LICENSES").mkdir()
    for licence in sorted({row["licence"] for row in images}):
        shutil.copy(HERE / "licences" / f"{licence}.txt", edition / "LICENSES" / f"{licence}.txt")
    (edition / "NOTICE").write_text(notice(name, images), encoding="utf-8")
    template = (HERE / "cards" / f"{name}.md").read_text(encoding="utf-8")
    (edition / "CARD.md").write_text(template.format(**card_figures(edition, images)), encoding="utf-8")


def notice(name: str, images: list[dict[str, str]]) -> str:
    """Who made what, under which licence, and what was changed: one line per concept."""
    works = {artist["concept"]: _titled_work(artist) for artist in read_table(HERE / "artists.csv")}
    pictures = defaultdict(list)
    for row in images:
        pictures[row["concept"]].append(row)
    lines = [f"NOTICE for the mini edition of {name}", "", NOTICE_HEAD, ""]
    for concept, rows in sorted(pictures.items()):
        first = rows[0]
        work = works.get(concept) or f'the 3-D model "{_key(first)}"'
        lines.append(
            f"{concept}: {len(rows)} pictures after {work} by {first['author']}; "
            f"{LICENCE_NAMES[first['licence']]}; from {_package(first)}; changes: {first['changes']}."
        )
    return "\n".join(lines) + "\n"


def card_figures(edition: Path, images: list[dict[str, str]]) -> dict[str, object]:
    """What the card's template asks for."""
    concepts = read_table(edition / "concepts.csv")
    counts = [sum(row["concept"] == concept["concept"] for row in images) for concept in concepts]
    licences = defaultdict(int)
    for row in images:
        licences[LICENCE_NAMES[row["licence"]]] += 1
    prompts = list(edition.glob("prompts/*.txt"))
    pairs = edition / "dataset_multiconcept.json"
    return {
        "concepts": len(concepts),
        "dev": sum(row["split"] == "dev" for row in concepts),
        "test": sum(row["split"] == "test" for row in concepts),
        "classes": len({row["class_word"] for row in concepts}),
        "images": len(images),
        "per_concept": f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0]),
        "licences": ", ".join(f"{name} ({count})" for name, count in sorted(licences.items())),
        "sources": ", ".join(sorted({_package(row) for row in images})),
        "prompt_files": sum("_" not in path.stem for path in prompts),
        "compose_files": sum("_" in path.stem for path in prompts),
        "pairs": len(json.loads(pairs.read_text())) if pairs.exists() else 0,
        "distractors": sum(row["use"] == "corpus" for row in read_table(HERE / "objects.csv")),
        "megabytes": folder_size(edition)[1] / 1e6,
    }


def _titled_work(artist: dict[str, str]) -> str:
    return f"{artist['work']} ({artist['address']})" if artist["address"] else artist["work"]


def _package(row: dict[str, str]) -> str:
    return row["source"].split(": ")[0]


def _key(row: dict[str, str]) -> str:
    return row["source"].split(": ")[1]
