"""Build the mini edition of MS-COCO: pictures of everyday subjects by three emoji houses, with five captions each.

The folder is laid out as the public data set is: train2017/, annotations/captions_train2017.json and
annotations/captions_val2017.json. subjects.csv names the subjects, what can be said of them and, for those that queries
ask for, a prompt; houses.csv names the houses. Beside them images.csv says what each picture shows and where it comes
from, prompts.csv the split and the subjects of each prompt.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from composition import PICTURE_SIZE
from edition_files import read_table, save_picture, write_rows, write_table
from emoji_scenes import LARGEST, CutOut, Ground, chosen_ground, pair_layout, scene_picture, single_layout
from object_renderer import seeded
from scene_captions import Subject, pair_captions, pair_prompt, single_captions
from sources import NPM_VERSIONS
from vector_drawings import IconSet, rasterise

HERE = Path(__file__).parent
HOUSES = ("noto", "twemoji", "fluent")
FLAT = "fluent-flat"
DEV_SHARE = 0.25
DRAWINGS_OF_OTHERS = 2
"""Pictures of a subject that no query asks for; the others have one per house and label."""
PAIR_ROUNDS = 2
PAIRS_OF_OTHERS = 40
PAIR_PROMPTS = {"dev": 5, "test": 15}
NEAR_DUPLICATES = {"dev": 5, "test": 15}
IDS = 10**9
CHANGES = "rasterised, resized, put on a drawn ground"
LICENCES = {
    "Apache-2.0": (1, "Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
    "CC-BY-4.0": (2, "Attribution 4.0 International", "https://creativecommons.org/licenses/by/4.0/"),
    "MIT": (3, "MIT License", "https://github.com/microsoft/fluentui-emoji/blob/main/LICENSE"),
}
SHEET_KIND_PAIR = "two things"
SHEET_KIND_NEAR = "near-duplicates"


@dataclass(frozen=True)
class Planned:
    """One training picture: a house's drawings of one or two subjects."""

    subjects: tuple[Subject, ...]
    labels: tuple[str, ...]
    house: str

    @property
    def key(self) -> str:
        return f"{self.house}: {' + '.join(self.labels)}"

    @property
    def id(self) -> int:
        return _number(f"train/{self.key}")

    @property
    def file(self) -> str:
        return f"{self.id:012d}.webp"


@dataclass(frozen=True)
class PictureRow:
    """One row of images.csv."""

    file: str
    subjects: str
    house: str
    view: str
    background: str
    near_duplicate_of: str
    source: str
    author: str
    licence: str
    changes: str


def build(work: Path, out: Path) -> None:
    """Write the whole edition into `out`, an empty folder."""
    splits = query_splits()
    houses = {row["house"]: row for row in read_table(HERE / "houses.csv")}
    drawn = _Drawn(work, houses)
    singles, pairs = planned_singles(), planned_pairs(splits)
    rows, captions, taken = [], {}, {}
    grounds: dict[str, Ground] = {}
    for plan in (*singles, *pairs):
        used = taken.setdefault(plan.subjects[0].name, set()) if len(plan.subjects) == 1 else ()
        ground = chosen_ground(seeded("ground", plan.key), drawn.all(plan), used)
        grounds[plan.key] = ground
        if len(plan.subjects) == 1:
            used.add(ground.colour)
        rows.append(_picture(plan, plan, ground, drawn, houses, captions, out))
    for plan, original in planned_near_duplicates(splits, singles):
        rows.append(_picture(plan, original, grounds[original.key], drawn, houses, captions, out))
    write_rows(out / "images.csv", rows)
    _write_annotations(out, rows, captions)
    _write_prompts(out, splits, pairs)


@cache
def subjects() -> tuple[Subject, ...]:
    """The subjects, in the order of subjects.csv."""
    return tuple(
        Subject(
            name=row["subject"],
            labels=tuple(row["labels"].split("|")),
            kind=row["kind"],
            names=tuple(row["names"].split("|")),
            details=tuple(row["details"].split("|")),
            prompt=row["prompt"],
        )
        for row in read_table(HERE / "subjects.csv")
    )


def query_splits() -> dict[str, list[Subject]]:
    """The subjects that queries ask for, dev and test, each in a seeded order. No subject is in both."""
    asked = [subject for subject in subjects() if subject.prompt]
    order = [asked[at] for at in seeded("mscoco", "splits").permutation(len(asked))]
    n_dev = round(DEV_SHARE * len(order))
    return {"dev": order[:n_dev], "test": order[n_dev:]}


def planned_singles() -> list[Planned]:
    """One drawing per house and label of each subject that queries ask for, fewer of the others, by seed."""
    plans = []
    for subject in subjects():
        drawings = [Planned((subject,), (label,), house) for label in subject.labels for house in HOUSES]
        if not subject.prompt:
            order = seeded("mscoco", "houses", subject.name).permutation(len(HOUSES))
            drawings = [drawings[at] for at in order[:DRAWINGS_OF_OTHERS]]
        plans += drawings
    return plans


def planned_pairs(splits: dict[str, list[Subject]]) -> list[Planned]:
    """Pictures of two subjects: each that queries ask for in two of them, with one of its own split."""
    couples: list[tuple[Subject, Subject]] = []
    for split, asked in splits.items():
        for number in range(PAIR_ROUNDS):
            couples += _couples(asked, f"{split} {number}", couples)
    others = _mixed([subject for subject in subjects() if not subject.prompt], "pairs of others")
    couples += _couples(others[: 2 * PAIRS_OF_OTHERS], "others", couples)
    plans = []
    for first, second in couples:
        rng = seeded("mscoco", "pair", first.name, second.name)
        labels = tuple(str(rng.choice(subject.labels)) for subject in (first, second))
        plans.append(Planned((first, second), labels, str(rng.choice(HOUSES))))
    return plans


def planned_near_duplicates(
    splits: dict[str, list[Subject]], singles: Sequence[Planned]
) -> Iterator[tuple[Planned, Planned]]:
    """(near-duplicate, its original): the flat version of a fluent drawing, in the very same place on the same ground."""
    fluent = {plan.labels[0]: plan for plan in singles if plan.house == "fluent"}
    for split, count in NEAR_DUPLICATES.items():
        for subject in splits[split][:count]:
            original = fluent[subject.labels[0]]
            yield Planned(original.subjects, original.labels, FLAT), original


def sheet_groups(edition: Path) -> dict[str, list[Path]]:
    """Pictures of a built edition for its contact sheet: by kind of subject, two together, near-duplicates."""
    kinds = {subject.name: subject.kind.removeprefix("something ") for subject in subjects()}
    groups: dict[str, list[Path]] = {kind: [] for kind in dict.fromkeys(kinds.values())}
    groups |= {SHEET_KIND_PAIR: [], SHEET_KIND_NEAR: []}
    for row in read_table(edition / "images.csv"):
        shown = row["subjects"].split("|")
        if row["near_duplicate_of"]:
            groups[SHEET_KIND_NEAR] += [edition / row["near_duplicate_of"], edition / row["file"]]
        else:
            groups[SHEET_KIND_PAIR if len(shown) == 2 else kinds[shown[0]]].append(edition / row["file"])
    return groups


class _Drawn:
    """The houses' drawings, rasterised and cut out when asked for."""

    def __init__(self, work: Path, houses: dict[str, dict[str, str]]) -> None:
        self._sets = {
            house: IconSet(row["package"].removeprefix("@iconify-json/"), work) for house, row in houses.items()
        }
        self._one = cache(lambda house, label: CutOut(rasterise(self._svg(house, label), LARGEST)))

    def name(self, house: str, label: str) -> str:
        return self._sets[house].name(label)

    def all(self, plan: Planned) -> list[CutOut]:
        return [self._one(plan.house, label) for label in plan.labels]

    def _svg(self, house: str, label: str) -> str:
        return self._sets[house].svg(self.name(house, label))


def _picture(
    plan: Planned,
    composed_as: Planned,
    ground: Ground,
    drawn: _Drawn,
    houses: dict[str, dict[str, str]],
    captions: dict[int, list[str]],
    out: Path,
) -> PictureRow:
    """Write one picture, add its captions, and return its row."""
    rng = seeded("scene", composed_as.key)
    single = len(plan.subjects) == 1
    layout = single_layout(rng) if single else pair_layout(rng)
    save_picture(scene_picture(rng, drawn.all(plan), layout, ground), out / "train2017" / plan.file)
    words = seeded("captions", plan.key)
    house = plan.house.removesuffix("-flat")
    captions[plan.id] = (
        single_captions(words, plan.subjects[0], layout, ground, house)
        if single
        else pair_captions(words, plan.subjects, layout, ground)
    )
    maker = houses[plan.house]
    names = ", ".join(drawn.name(plan.house, label) for label in plan.labels)
    return PictureRow(
        file=f"train2017/{plan.file}",
        subjects="|".join(subject.name for subject in plan.subjects),
        house=plan.house,
        view=layout.view,
        background=f"{ground.colour}, {ground.pattern}",
        near_duplicate_of="" if plan is composed_as else f"train2017/{composed_as.file}",
        source=f"{maker['package']} {NPM_VERSIONS[maker['package']]}: {names}",
        author=maker["author"],
        licence=maker["licence"],
        changes=CHANGES,
    )


def _write_annotations(out: Path, rows: Sequence[PictureRow], captions: dict[int, list[str]]) -> None:
    """As in the public file, pictures are in no order of their ids, and captions in no order of the pictures."""
    licences = {_file_id(row.file): LICENCES[row.licence][0] for row in rows}
    ids = _mixed(sorted(captions), "pictures")
    said = _mixed([(number, text) for number in sorted(captions) for text in captions[number]], "captions")
    images = [_listed(number, licences[number]) for number in ids]
    annotations = [
        {"image_id": number, "id": at, "caption": text} for at, (number, text) in enumerate(said, start=1)
    ]
    _write_coco(out / "annotations" / "captions_train2017.json", images, annotations)


def _write_prompts(out: Path, splits: dict[str, list[Subject]], pairs: Sequence[Planned]) -> None:
    prompts: list[tuple[str, str, str]] = []
    for split, asked in splits.items():
        prompts += [(split, subject.name, subject.prompt) for subject in asked]
        of_split = [plan.subjects for plan in pairs if plan.subjects[0] in asked]
        for couple in _mixed(of_split, f"pair prompts {split}")[: PAIR_PROMPTS[split]]:
            text = pair_prompt(seeded("prompt", *(subject.name for subject in couple)), couple)
            prompts.append((split, "|".join(subject.name for subject in couple), text))
    numbered = sorted((_number(f"val/{names}"), split, names, text) for split, names, text in prompts)
    write_table(
        out / "prompts.csv",
        ("image_id", "split", "subjects"),
        [(number, split, names) for number, split, names, _ in numbered],
    )
    mixed = _mixed(numbered, "prompts")
    _write_coco(
        out / "annotations" / "captions_val2017.json",
        [_listed(number) for number, *_ in mixed],
        [{"image_id": number, "id": at, "caption": text} for at, (number, _, _, text) in enumerate(mixed, start=1)],
    )


def _write_coco(path: Path, images: Sequence[dict], annotations: Sequence[dict]) -> None:
    """A captions_*.json with one entry a line."""
    info = {"description": "MS-COCO, mini edition of attribench", "version": "1.0", "year": 2017}
    licences = [{"id": number, "name": name, "url": url} for number, name, url in LICENCES.values()]
    parts = {"licenses": licences, "images": images, "annotations": annotations}
    lists = ",\n".join(
        f'"{key}": [\n' + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]"
        for key, entries in parts.items()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"info": {json.dumps(info)},\n{lists}}}\n', encoding="utf-8")


def _listed(number: int, licence: int | None = None) -> dict[str, object]:
    """An entry of `images`; the pictures of the prompts do not exist, and have no licence."""
    entry = {"file_name": f"{number:012d}.webp", "height": PICTURE_SIZE, "width": PICTURE_SIZE, "id": number}
    return entry if licence is None else {"license": licence} | entry


def _couples(
    found: Sequence[Subject], key: str, earlier: Sequence[tuple[Subject, Subject]]
) -> list[tuple[Subject, Subject]]:
    """Each subject with one of another kind that it was not with earlier; of an odd number the last stays alone."""
    met = {frozenset((first.name, second.name)) for first, second in earlier}
    for attempt in range(10_000):
        order = [found[at] for at in seeded("mscoco", "couples", key, attempt).permutation(len(found))]
        couples = list(zip(order[::2], order[1::2]))
        if all(one.kind != two.kind and frozenset((one.name, two.name)) not in met for one, two in couples):
            return couples
    raise ValueError(f"no couples of {key} are all of two kinds and new")


def _mixed(values: Sequence, key: str) -> list:
    return [values[at] for at in seeded("mscoco", "order", key).permutation(len(values))]


def _number(key: str) -> int:
    """A picture's id: a hash, so that it stays what it is when others come or go."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % IDS + 1


def _file_id(file: str) -> int:
    return int(Path(file).stem)
