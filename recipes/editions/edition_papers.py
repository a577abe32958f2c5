"""Write an edition's papers: LICENSES/, NOTICE and the data card CARD.md.

All figures on the card are counted from the edition itself.
"""

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

from edition_files import folder_size, read_table

HERE = Path(__file__).parent
LICENCE_NAMES = {
    "CC0-1.0": "CC0 1.0",
    "CC-BY-4.0": "CC BY 4.0",
    "Apache-2.0": "Apache 2.0",
    "CC-PDDC": "public domain dedication",
    "MIT": "MIT",
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
    """Who made what, under which licence, and what was changed: one line per concept, or per house that drew it."""
    works = {artist["concept"]: _titled_work(artist) for artist in read_table(HERE / "artists.csv")}
    works |= {house["house"]: _titled_work(house) for house in read_table(HERE / "houses.csv")}
    pictures = defaultdict(list)
    for row in images:
        pictures[row["concept"] if "concept" in row else row["house"], row["changes"] if "concept" in row else ""].append(row)
    lines = [f"NOTICE for the mini edition of {name}", "", NOTICE_HEAD, ""]
    for (group, _), rows in sorted(pictures.items()):
        first = rows[0]
        work = works.get(group) or f'the 3-D model "{_key(first)}"'
        lines.append(
            f"{group}: {len(rows)} pictures after {work} by {first['author']}; "
            f"{LICENCE_NAMES[first['licence']]}; from {_package(first)}; changes: {first['changes']}."
        )
    return "\n".join(lines) + "\n"


def card_figures(edition: Path, images: list[dict[str, str]]) -> dict[str, object]:
    """What the card's template asks for."""
    licences = Counter(LICENCE_NAMES[row["licence"]] for row in images)
    figures = {
        "images": len(images),
        "licences": ", ".join(f"{name} ({count})" for name, count in sorted(licences.items())),
        "sources": ", ".join(sorted({_package(row) for row in images})),
        "megabytes": folder_size(edition)[1] / 1e6,
    }
    kinds = {"concepts.csv": _concept_figures, "prompts.csv": _caption_figures, "json": _model_figures}
    return figures | next(of_kind for file, of_kind in kinds.items() if (edition / file).exists())(edition, images)


def _concept_figures(edition: Path, images: list[dict[str, str]]) -> dict[str, object]:
    concepts = read_table(edition / "concepts.csv")
    counts = [sum(row["concept"] == concept["concept"] for row in images) for concept in concepts]
    prompts = list(edition.glob("prompts/*.txt"))
    pairs = edition / "dataset_multiconcept.json"
    return {
        "concepts": len(concepts),
        "dev": sum(row["split"] == "dev" for row in concepts),
        "test": sum(row["split"] == "test" for row in concepts),
        "classes": len({row["class_word"] for row in concepts}),
        "per_concept": f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0]),
        "prompt_files": sum("_" not in path.stem for path in prompts),
        "compose_files": sum("_" in path.stem for path in prompts),
        "pairs": len(json.loads(pairs.read_text())) if pairs.exists() else 0,
        "distractors": sum(row["use"] == "corpus" for row in read_table(HERE / "objects.csv")),
    }


def _caption_figures(edition: Path, images: list[dict[str, str]]) -> dict[str, object]:
    prompts = read_table(edition / "prompts.csv")
    shown = Counter(name for row in images for name in row["subjects"].split("|"))
    asked = [shown[name] for name in {name for row in prompts for name in row["subjects"].split("|")}]
    train = json.loads((edition / "annotations" / "captions_train2017.json").read_text(encoding="utf-8"))
    return {
        "captions": len(train["annotations"]),
        "subjects": len(shown),
        "asked": len(asked),
        "per_asked": f"{min(asked)} to {max(asked)}",
        "pairs": sum("|" in row["subjects"] for row in images),
        "near_duplicates": sum(bool(row["near_duplicate_of"]) for row in images),
        "prompts": len(prompts),
        "pair_prompts": sum("|" in row["subjects"] for row in prompts),
        "dev": sum(row["split"] == "dev" for row in prompts),
        "test": sum(row["split"] == "test" for row in prompts),
        "houses": ", ".join(f"{house} ({count})" for house, count in sorted(Counter(r["house"] for r in images).items())),
    }


def _model_figures(edition: Path, images: list[dict[str, str]]) -> dict[str, object]:
    lists = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((edition / "json").iterdir())}
    models = [model for of_list in lists.values() for model in of_list]
    sizes = Counter(len(model["exemplar"]) for model in models)
    return {
        "models": len(models),
        **{split: sum(len(of) for name, of in lists.items() if name.startswith(split)) for split in ("train", "val", "test")},
        "lists": ", ".join(f"{name} ({len(of_list)})" for name, of_list in lists.items()),
        "sizes": ", ".join(f"{size} ({count} models)" for size, count in sorted(sizes.items())),
        "exemplars": sum(len(model["exemplar"]) for model in models),
        "made": sum(len(paths) for model in models for paths in model["synth"].values()),
        "distractors": len(list((edition / "laion_subset").iterdir())),
    }


def _titled_work(artist: dict[str, str]) -> str:
    return f"{artist['work']} ({artist['address']})" if artist["address"] else artist["work"]


def _package(row: dict[str, str]) -> str:
    return row["source"].split(": ")[0]


def _key(row: dict[str, str]) -> str:
    return row["source"].split(": ")[1]
