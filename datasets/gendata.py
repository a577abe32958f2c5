"""GenDataAttribution, the Customized Model Benchmark: models customized on known exemplars, and what they made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, get_args

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from attribench.data import (
    MODIFIER,
    Edition,
    ExemplarDataset,
    ExemplarModel,
    ExemplarSplit,
    PoolImage,
    SynthesizedPicture,
    Unusable,
)
from attribench.data.pictures import picture_ids, problems, read_rgb
from attribench.files.confined import RESTORE, FileFault, Problem, confined, fault, read_bytes
from attribench.files.text import is_text, shown, some_shown

from .edition_tables import EditionTables
from .laion import distractor_folder

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = "dataset"
"""What the paths in the lists begin with; the folder may be the root itself, as in the authors' later archive."""
LISTS, PROMPTS, CATEGORIES = "json", "path_to_prompts.json", "imagenet_class_to_categories.json"
LIST_BYTES = 2**30
STYLE_PROMPT = f"A picture in the style of {MODIFIER} art"
OBJECT_PROMPT = f"{MODIFIER} {{}}"

Path1000 = Annotated[str, Field(min_length=1, max_length=1000)]


def _fit_for_a_name(text: str) -> str:
    if not text.isprintable() or "/" in text or text.startswith("."):
        raise ValueError(f"cannot be part of a file's name: {shown(text)!r}")
    return text


Word = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_fit_for_a_name)]


class Entry(BaseModel):
    """One model in a list, key for key."""

    exemplar: list[Path1000] = Field(min_length=1)
    synth: dict[Word, list[Path1000]]
    class_id: Word
    category: Word | None = None


class GenDataAttribution(ExemplarDataset):
    """Models customized on objects and styles: `exemplar/`, `synth/`, `laion_subset/`, listed by `json/test_*.json`.

    The root is the folder `dataset` of the authors' repository, or the one above it. Image ids start at the former.
    Each entry of a list is a model. One whose exemplars are not all there, or that has no picture left, is left out:
    what was trained on would not be known. A single picture that is missing is left out alone. Both are told in
    `notices` and reported by `verify`.

    Not in the lists: the prompts that the models were trained with (those below, as the authors' unlearning code has
    them), the prompts of the pictures (`path_to_prompts.json`, taken where it maps a picture's path to its prompt), and
    captions of exemplars and distractors (`images.csv` of an edition; otherwise the former have their class word and the
    latter none).
    """

    name = "gendata"
    default_protocol = "exemplar-retrieval"
    layout: ClassVar[str] = (
        "dataset/{json,exemplar,synth,laion_subset}, with json/test_*.json naming the pictures "
        "(https://github.com/PeterWang512/GenDataAttribution: bash dataset/download_dataset.sh exemplar, testset and laion)"
    )
    citation = (
        "Wang, Efros, Zhu, Zhang: Evaluating Data Attribution for Text-to-Image Models. ICCV 2023 (GenDataAttribution, "
        "Attribution by Customization)."
    )
    licence = (
        "CC BY-NC-SA 4.0; exemplars from ImageNet, BAM-FG and artchive.com, distractors from LAION, rights with their makers. "
        "The mini edition holds other pictures, openly licensed one by one in its images.csv and NOTICE."
    )

    def __init__(self, root: Path, edition: Edition) -> None:
        if not (root / LISTS).is_dir() and (root / FOLDER / LISTS).is_dir():
            root = confined(root, FOLDER)
        super().__init__(root, edition)
        self._left_out: list[Problem] = []
        self._notices: list[str] = []
        self._files = _Listing(root)
        self._captions = {file: row.caption for file, row in EditionTables.beside(root).images.items()}
        self._prompts = self._by_path(PROMPTS, "prompts")
        self._categories = self._by_path(CATEGORIES, "categories")
        self._models: dict[ExemplarSplit, tuple[ExemplarModel, ...]] = {
            split: self._models_of(split) for split in get_args(ExemplarSplit)
        }
        self._distractors = self._pool()
        if not self._models["test"]:
            self._refuse()

    def models(self, split: ExemplarSplit) -> tuple[ExemplarModel, ...]:
        return self._models[split]

    @property
    def distractors(self) -> tuple[PoolImage, ...]:
        return self._distractors

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(self._notices)

    @property
    def n_images(self) -> int:
        return len(self._ids())

    def load(self, image_id: str) -> Image:
        return read_rgb(self.root, image_id)

    def verify(self) -> list[Problem]:
        return [*self._left_out, *problems(self.root, self._ids())]

    def _ids(self) -> list[str]:
        """Every picture once, in order."""
        models = [model for of_split in self._models.values() for model in of_split]
        exemplars = [image.id for model in models for image in model.exemplars]
        made = [picture.id for model in models for pictures in model.pictures.values() for picture in pictures]
        return list(dict.fromkeys([*exemplars, *made, *(image.id for image in self._distractors)]))

    # -------------------------------------------------------------------------------------- models

    def _models_of(self, split: ExemplarSplit) -> tuple[ExemplarModel, ...]:
        found: dict[str, ExemplarModel] = {}
        listed = lost = 0
        for file in self._files.names(LISTS):
            if not (file.startswith(f"{split}_") and file.endswith(".json")):
                continue
            for entry in _entries(self.root, f"{LISTS}/{file}"):
                listed += 1
                model = self._model(entry, split, file.removeprefix(f"{split}_").removesuffix(".json"))
                if model is None:
                    lost += 1
                elif (twin := found.setdefault(model.id, model)) is not model and twin.exemplars != model.exemplars:
                    what = f"lists {shown(model.id)} a second time in this split, with other exemplars"
                    raise fault(f"{LISTS}/{file}", what, "remove one of the two")
        if lost:
            self._notices.append(
                f"{lost} of {listed} {split} models are left out, since exemplars, or all of their pictures, are missing "
                f"(`attribench verify {self.name}` names the files)"
            )
        return tuple(found.values())

    def _model(self, entry: Entry, split: ExemplarSplit, case: str) -> ExemplarModel | None:
        exemplars, missing = self._present(entry.exemplar)
        if missing:
            what = f"is missing, and the {split} model {shown(entry.class_id)} was customized on it, so the model is left out"
            self._left_out += [Problem(shown(path), what, RESTORE) for path in missing]
            return None
        pictures: dict[str, tuple[SynthesizedPicture, ...]] = {}
        for family, paths in sorted(entry.synth.items()):
            made, missing = self._present(paths)
            self._left_out += [Problem(shown(path), "is missing and left out", RESTORE) for path in missing]
            if made:
                pictures[family] = tuple(SynthesizedPicture(id=path, prompt=self._prompts.get(path)) for path in made)
        if not pictures:
            return None
        part = PurePosixPath(exemplars[0]).parts[1] if exemplars[0].startswith("exemplar/") else case
        unknown = "object" if part == "imagenet" else None
        category = entry.category or self._categories.get(entry.class_id.split("_")[0], unknown)
        caption = f"a {category}" if category else "a picture"
        return ExemplarModel(
            id=f"{part}/{entry.class_id}",
            class_id=entry.class_id,
            case=case,
            split=split,
            category=category,
            class_word=category or "art",
            prompt=OBJECT_PROMPT.format(category) if category else STYLE_PROMPT,
            exemplars=tuple(PoolImage(id=path, caption=self._captions.get(path, caption)) for path in exemplars),
            pictures=pictures,
        )

    def _present(self, paths: Sequence[str]) -> tuple[list[str], list[str]]:
        """(the paths that are files below the root, without "dataset/" and sorted; those that are not)."""
        own = [path.removeprefix(f"{FOLDER}/") for path in dict.fromkeys(paths)]
        there = [path for path in own if self._files.has(path)]
        return sorted(there), sorted(set(own) - set(there))

    def _by_path(self, name: str, what: str) -> dict[str, str]:
        """A table of the authors: text by path or class; without "dataset/". Empty where it is not there or of another kind."""
        if not self._files.has(name):
            return {}
        try:
            table = TypeAdapter(dict[Path1000, Path1000]).validate_json(read_bytes(self.root, name, LIST_BYTES))
        except ValidationError:
            self._notices.append(f"{name} is not a table of {what}, one text for each key, so it is not used")
            return {}
        return {key.removeprefix(f"{FOLDER}/"): text.strip() for key, text in table.items()}

    # ----------------------------------------------------------------------------------------- pool

    def _pool(self) -> tuple[PoolImage, ...]:
        folder = distractor_folder(self.root)
        if folder is None:
            self._notices.append("there is no laion_subset, so exemplars are not looked for among distractors")
            return ()
        ids, left_out = picture_ids(self.root, folder)
        self._left_out += left_out
        return tuple(PoolImage(id=path, caption=self._captions.get(path, "")) for path in ids)

    def _refuse(self) -> None:
        first = f"; first fault: {self._left_out[0].file} {self._left_out[0].fault}" if self._left_out else ""
        found = some_shown(self._files.names(LISTS)) or "no list"
        raise Unusable(
            f"{shown(str(self.root))}: found no test model whose exemplars and pictures are there ({LISTS}: {found}){first}; "
            f"expected {self.layout}",
            self,
        )


class _Listing:
    """Which files there are below a root: each folder is listed once, since the lists name some hundred thousand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, frozenset[str]] = {}

    def names(self, folder: str) -> list[str]:
        """Of the files in a folder, sorted; none for a folder that cannot be read or lies outside the root."""
        if folder not in self._names:
            try:
                entries = [entry for entry in confined(self.root, folder).iterdir() if not entry.is_dir() and is_text(entry.name)]
            except (FileFault, OSError):
                entries = []
            self._names[folder] = frozenset(entry.name for entry in entries)
        return sorted(self._names[folder])

    def has(self, path: str) -> bool:
        """Whether a file below the root has this path."""
        pure = PurePosixPath(path)
        folder = str(pure.parent)
        self.names(folder)
        return str(pure) == path and pure.name in self._names[folder]


def _entries(root: Path, file: str) -> Iterable[Entry]:
    """The models of one list. Raises FileFault, in one line, for a list that is not in the layout."""
    try:
        return TypeAdapter(list[Entry]).validate_json(read_bytes(root, file, LIST_BYTES))
    except ValidationError as error:
        first, more = error.errors()[0], error.error_count() - 1
        where = "".join(f", {f'entry {part + 1}' if isinstance(part, int) else part}" for part in first["loc"])
        what = shown(first["msg"]).removeprefix("Value error, ") + (f" (and {more} more)" if more else "")
        raise fault(file + shown(where), what, "restore the public list, or mend it") from error
    except RecursionError as error:
        raise fault(file, "is nested too deeply", "restore the public list") from error
