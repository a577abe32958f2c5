"""Build the mini edition of CustomConcept101: 101 CC0 3-D objects from 8 sides each.

The folder is laid out as the public data set is: dataset.json,
dataset_multiconcept.json, prompts/ and benchmark_dataset/. What each model is
called, how it is viewed and which split it belongs to stands in objects.csv;
the prompts stand in prompts/.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from composition import object_picture
from edition_files import ImageRow, read_table, save_picture, write_rows, write_table
from object_renderer import ObjectScene, poses, readable_copy, seeded
from sources import DEBIAN_VERSIONS, carries_cc0_file, furniture_catalogue, furniture_library

HERE = Path(__file__).parent
VIEWS = 8
DISTRACTOR_SIZE = 128
PLURALS = {"slippers", "boots", "headphones", "scissors"}
MASS_NOUNS = {"bread", "toilet paper"}
PACKAGE = f"sweethome3d-furniture {DEBIAN_VERSIONS['sweethome3d-furniture']}"
CHANGES = "3-D model rendered on a coloured ground, cropped, resized"
COMPOSE_GROUP = {
    "furniture": "room", "lamp": "room", "appliance": "room", "bath": "room",
    "food": "thing", "instrument": "thing", "wearable": "thing", "luggage": "thing", "things": "thing",
    "toy": "play", "animal": "play",
    "plant": "garden", "outdoor": "garden", "container": "garden", "transport": "garden",
}  # fmt: skip
COMPOSE_GROUP_ORDER = ("room", "thing", "play", "garden")


@dataclass(frozen=True)
class Concept:
    """One object of the edition: its folder name and its row of objects.csv."""

    name: str
    model: str
    supercategory: str
    class_word: str
    caption: str
    prompts: str
    view: str
    split: str

    def entry(self, token: str) -> dict[str, str]:
        """The concept as dataset.json writes it, with its modifier token."""
        bare = self.class_word in PLURALS | MASS_NOUNS
        return {
            "instance_prompt": f"photo of {'' if bare else 'a '}{token} {self.class_word}",
            "class_prompt": self.class_word,
            "instance_data_dir": f"./benchmark_dataset/{self.name}",
            "class_data_dir": f"./regularization/{self.name}",
            "prompt_filename": f"prompts/{self.prompts}.txt",
        }


def concepts() -> list[Concept]:
    """The 101 concepts, named as the public set names them: furniture_chair1, toy_biplane."""
    rows = [row for row in read_table(HERE / "objects.csv") if row["use"] != "corpus"]
    instances = Counter(_stem(row) for row in rows)
    seen: Counter[str] = Counter()
    found = []
    for row in rows:
        stem = _stem(row)
        seen[stem] += 1
        name = f"{stem}{seen[stem]}" if instances[stem] > 1 else stem
        found.append(Concept(name=name, split=row.pop("use"), **row))
    return sorted(found, key=lambda concept: concept.name)


def build(work: Path, out: Path) -> None:
    """Write the whole edition into `out`, an empty folder."""
    found = concepts()
    library = furniture_library(work)
    catalogue = furniture_catalogue(library)
    rows = []
    for concept in found:
        author = author_of(library, catalogue[concept.model])
        source = f"{PACKAGE}: {concept.model}"
        for view, picture in _views(concept.model, concept.view, work):
            file = f"benchmark_dataset/{concept.name}/{view:02d}.webp"
            save_picture(picture, out / file)
            rows.append(ImageRow(file, concept.name, concept.caption, source, author, "CC0-1.0", CHANGES))
    write_rows(out / "images.csv", rows)
    write_table(
        out / "concepts.csv",
        ("concept", "class_word", "split"),
        [(concept.name, concept.class_word, concept.split) for concept in found],
    )
    _write_json(out / "dataset.json", [concept.entry("<new1>") for concept in found])
    _write_json(out / "dataset_multiconcept.json", multi_concept_entries(found))
    shutil.copytree(HERE / "prompts", out / "prompts")


def multi_concept_entries(found: list[Concept]) -> list[list[dict[str, str]]]:
    """101 pairs of concepts of one split; every concept stands in exactly two of them."""
    entries = []
    for split in ("dev", "test"):
        ring = _ring_without_equal_neighbours([c for c in found if c.split == split], split)
        for one, other in zip(ring, ring[1:] + ring[:1]):
            first, second = sorted((one, other), key=_compose_rank)
            groups = COMPOSE_GROUP[first.supercategory], COMPOSE_GROUP[second.supercategory]
            compose = {"prompt_filename_compose": f"prompts/{groups[0]}_{groups[1]}.txt"}
            entries.append([first.entry("<new1>"), second.entry("<new2>"), compose])
    return entries


def write_distractors(work: Path, out: Path) -> int:
    """Write the CC0 objects outside the edition as PNG files with captions.json; return their number.

    They are meant for the training corpus of the base model, which must not
    see an object of the edition.
    """
    out.mkdir(parents=True, exist_ok=True)
    captions = {}
    for row in read_table(HERE / "objects.csv"):
        if row["use"] != "corpus":
            continue
        for view, picture in _views(row["model"], row["view"], work, DISTRACTOR_SIZE):
            file = f"{row['model']}_{view}.png"
            picture.save(out / file)
            captions[file] = row["caption"]
    _write_json(out / "captions.json", captions)
    return len(captions)


def _stem(row: dict[str, str]) -> str:
    return f"{row['supercategory']}_{row['class_word'].replace(' ', '')}"


def _views(model: str, kind: str, work: Path, size: int | None = None) -> Iterator[tuple[int, Image.Image]]:
    library = furniture_library(work)
    obj = library / furniture_catalogue(library)[model]["model"].lstrip("/")
    if not carries_cc0_file(obj.parent):
        raise ValueError(f"model {model} carries no CC0 file of its own: take it out of objects.csv")
    scene = ObjectScene(readable_copy(obj, work / "furniture_readable" / model), obj.parent)
    for view, pose in enumerate(poses(model, kind, VIEWS)):
        rng = seeded("ground", model, view)
        cutout = scene.cutout(pose)
        yield view, object_picture(cutout, rng, size) if size else object_picture(cutout, rng)
    scene.close()


def author_of(library: Path, entry: dict[str, str]) -> str:
    """Who made a model, by its entry of the catalogue or its licence file."""
    creator = entry["creator"]
    if creator.replace(" ", "") != "BlendSwap":
        return creator
    folder = (library / entry["model"].lstrip("/")).parent
    texts = "\n".join(path.read_text("latin-1") for path in sorted(folder.glob("*LICENSE*")))
    named = re.search(r'downloading ".*?" by (\S+)', texts)
    return f"{named[1] if named else 'anonymous'} (Blend Swap)"


def _compose_rank(concept: Concept) -> tuple[int, str]:
    return COMPOSE_GROUP_ORDER.index(COMPOSE_GROUP[concept.supercategory]), concept.name


def _ring_without_equal_neighbours(found: list[Concept], split: str) -> list[Concept]:
    for attempt in range(10_000):
        order = seeded("pairs", split, attempt).permutation(len(found))
        ring = [found[index] for index in order]
        if all(a.class_word != b.class_word for a, b in zip(ring, ring[1:] + ring[:1])):
            return ring
    raise ValueError(f"no ring of the {split} concepts keeps equal class words apart")


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
