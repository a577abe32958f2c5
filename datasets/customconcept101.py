"""CustomConcept101: 101 objects, pets, persons and scenes with a few pictures each (Kumari et al., CVPR 2023)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from attribench.data import Edition
from attribench.errors import DatasetError
from attribench.files.confined import RESTORE, FileFault, Problem, confined, fault, read_bytes, read_text
from attribench.files.text import shown

from .concept_folders import ConceptFolder, ConceptFolders
from .edition_tables import EditionTables

INDEX = "dataset.json"
COMPOSITIONS = "dataset_multiconcept.json"
REPOSITORY_FOLDER = "customconcept101"
INDEX_BYTES = 4 * 2**20
PROMPT_BYTES = 2**20
MODIFIER = re.compile(r"<new\d+>")
PROMPTS_PER_CONCEPT = 20
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

Parsed = TypeVar("Parsed")


def _without_braces(text: str) -> str:
    if not text.isprintable() or "{" in text or "}" in text:
        raise ValueError("must be plain text without braces")
    return text.strip()


def _with_one_modifier(text: str) -> str:
    if len(MODIFIER.findall(text)) != 1:
        raise ValueError("must hold one modifier, as in 'photo of a <new1> barn'")
    return text


def _below_root(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.name:
        raise ValueError(f"must be a relative path below the data root, not {shown(path)!r}")
    return str(pure)


Plain = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_without_braces)]
Relative = Annotated[str, Field(max_length=1000), AfterValidator(_below_root)]


class Entry(BaseModel):
    """One concept in dataset.json, key for key."""

    instance_prompt: Annotated[Plain, AfterValidator(_with_one_modifier)]
    class_prompt: Plain
    instance_data_dir: Relative
    class_data_dir: str
    prompt_filename: Relative

    @property
    def concept(self) -> str:
        return PurePosixPath(self.instance_data_dir).name


class ComposePrompts(BaseModel):
    """The third member of an entry of dataset_multiconcept.json."""

    prompt_filename_compose: Relative


Pairs = list[tuple[Entry, Entry, ComposePrompts]]


@dataclass(frozen=True)
class Composition:
    """Two concepts that the data set's authors compose, and their prompts with `{concept1}` and `{concept2}`."""

    concepts: tuple[str, str]
    templates: tuple[str, ...]


class CustomConcept101(ConceptFolders):
    """Objects, pets, persons and scenes in `benchmark_dataset/{super}_{name}/`, listed by `dataset.json`.

    The root is the folder that holds dataset.json, or the one above it (Custom Diffusion's repository). Image
    ids start at the former. Several concepts share a class word (eleven cars), so only the modifier token
    tells them apart. Without the tables of an edition a caption is "a {class_prompt}" and a quarter of the
    concepts is dev.
    """

    name = "customconcept101"
    index = INDEX
    default_protocol = "between-concepts"
    layout = (
        "dataset.json, prompts/*.txt and benchmark_dataset/{super}_{name}/* (customconcept101/ of "
        "https://github.com/adobe-research/custom-diffusion with benchmark_dataset.zip unpacked in it)"
    )
    citation = (
        "Kumari, Zhang, Zhang, Shechtman, Zhu: Multi-Concept Customization of Text-to-Image Diffusion. CVPR 2023 "
        "(Custom Diffusion)."
    )
    licence = (
        "Pictures from Unsplash: Unsplash License; taken by the authors: CC BY-SA 4.0; flowers: from Wikimedia, Flickr and "
        "Pixabay, rights with their photographers (https://www.cs.cmu.edu/~custom-diffusion/assets/urls.txt). The mini "
        "edition holds other pictures, openly licensed one by one in its images.csv and NOTICE."
    )
    monitoring_templates = (
        "Enchanted {concept} in a dream forest.",
        "{concept} essence in abstract art.",
        "Sci-fi {concept} cityscape.",
        "{concept} harmony in serene landscape.",
        "Epic {concept} in graphic novel.",
        "Retro {concept} in vintage poster.",
        "Scale-play of {concept} in conceptual art.",
        "Playful {concept} in children's illustration.",
        "{concept} silhouette in modern minimalism.",
        "{concept} vibes in impressionist city.",
    )
    """MONTRAGE, supplement A, "Monitoring Prompts"."""

    default_caption: ClassVar[str] = "a {class_prompt}"

    def __init__(self, root: Path, edition: Edition) -> None:
        if not (root / INDEX).is_file() and (root / REPOSITORY_FOLDER / INDEX).is_file():
            root = confined(root, REPOSITORY_FOLDER)
        if not (root / INDEX).exists():
            raise DatasetError(f"{shown(str(root))}: has no {INDEX}; expected {self.layout}")
        entries = _parsed(root, INDEX, list[Entry])
        self._prompt_files = _prompt_files(entries)
        super().__init__(root, edition, self._folders(entries), EditionTables.beside(root))

    def prompts(self, concept: str) -> tuple[str, ...]:
        """The authors' prompts for one concept as templates with `{concept}`, twenty in the public data set.

        Raises DatasetError if their file is missing or a prompt has no placeholder.
        """
        self.images(concept)
        templates, faults = _templates(self.root, self._prompt_files[concept], {"": "{concept}"})
        if faults:
            others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise FileFault(Problem(faults[0].file, faults[0].fault + others, faults[0].remedy))
        return templates

    def compositions(self) -> tuple[Composition, ...]:
        """The pairs of usable concepts that the authors compose. Raises DatasetError if their index is missing or
        not in the layout.

        A prompt that names only one of the two (the public scene_pet.txt has one) would pass for a picture of
        both, so it is left out and reported by `verify`, as is a pair whose concepts or prompts are not usable.
        """
        return self._composed()[0]

    def verify(self) -> list[Problem]:
        try:
            left_out = self._composed()[1]
        except FileFault as error:
            left_out = [error.problem]
        return [*super().verify(), *self._prompt_problems(), *left_out]

    def _prompt_problems(self) -> list[Problem]:
        found = []
        for file in sorted(set(self._prompt_files.values())):
            templates, faults = _templates(self.root, file, {"": "{concept}"})
            if not faults and len(templates) != PROMPTS_PER_CONCEPT:
                what = f"holds {len(templates)} prompts, not the {PROMPTS_PER_CONCEPT} of the public data set"
                faults = [Problem(shown(file), what, RESTORE)]
            found += faults
        return found

    def _composed(self) -> tuple[tuple[Composition, ...], list[Problem]]:
        usable = {concept.name for concept in self.concepts}
        read: dict[str, tuple[str, ...]] = {}
        compositions, left_out = [], []
        for number, (first, second, compose) in enumerate(_parsed(self.root, COMPOSITIONS, Pairs), start=1):
            file = compose.prompt_filename_compose
            absent = sorted({first.concept, second.concept} - usable)
            if absent:
                what = f"composes {' and '.join(map(shown, absent))}, not usable here"
                left_out.append(Problem(f"{COMPOSITIONS}, entry {number}", what, "restore the pictures or remove the entry"))
                continue
            if file not in read:
                read[file], faults = _templates(self.root, file, {"0": "{concept1}", "1": "{concept2}"})
                left_out += faults
            if read[file]:
                compositions.append(Composition((first.concept, second.concept), read[file]))
        return tuple(compositions), left_out

    @classmethod
    def _folders(cls, entries: Sequence[Entry]) -> list[ConceptFolder]:
        return [
            ConceptFolder(
                name=entry.concept,
                folder=entry.instance_data_dir,
                class_word=entry.class_prompt,
                prompt=MODIFIER.sub("{modifier}", entry.instance_prompt),
                phrase=_phrase(entry),
                caption=cls.default_caption.format(class_prompt=entry.class_prompt),
            )
            for entry in entries
        ]


def _phrase(entry: Entry) -> str:
    """What the model was taught to call the concept: the instance prompt from its modifier on.

    Not the class prompt, which in the public data set is once shorter ("dice" for "<new1> dice plushie").
    """
    taught = MODIFIER.split(entry.instance_prompt)[1].strip()
    return f"{{modifier}} {taught or entry.class_prompt}"


def _parsed(root: Path, name: str, shape: type[Parsed]) -> Parsed:
    """A json file of the data set in the shape that its layout gives it, or one line about the first fault."""
    data = read_bytes(root, name, INDEX_BYTES)
    try:
        return TypeAdapter(shape).validate_json(data)
    except ValidationError as error:
        first, more = error.errors()[0], error.error_count() - 1
        where = "".join(f", {f'entry {part + 1}' if isinstance(part, int) else part}" for part in first["loc"])
        others = f" (and {more} more)" if more else ""
        what = f"{shown(first['msg']).removeprefix('Value error, ')}{others}"
        raise fault(name + where, what, f"restore the public {name}, or mend it") from error


def _prompt_files(entries: Sequence[Entry]) -> dict[str, str]:
    """The file of prompts by concept. Raises DatasetError for a concept that is listed twice."""
    files: dict[str, str] = {}
    for entry in entries:
        if entry.concept in files:
            raise fault(INDEX, f"lists the concept {shown(entry.concept)!r} twice", "remove one of the two entries")
        files[entry.concept] = entry.prompt_filename
    return files


def _templates(root: Path, file: str, names: dict[str, str]) -> tuple[tuple[str, ...], list[Problem]]:
    """The prompts of one file with its placeholders renamed by `names`, and what is wrong with the file or its lines."""
    try:
        lines = read_text(root, file, PROMPT_BYTES).splitlines()
    except FileFault as error:
        return (), [error.problem]
    templates, faults = [], []
    wanted = " and ".join(f"{{{name}}}" for name in names)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        placeholders = set(PLACEHOLDER.findall(line))
        if placeholders == names.keys() and not set("{}") & set(PLACEHOLDER.sub("", line)):
            templates.append(PLACEHOLDER.sub(lambda match: names[match[1]], line.strip()))
        else:
            what = f"the prompt has not {wanted} as its placeholder{'s' if len(names) > 1 else ''}"
            faults.append(Problem(f"{shown(file)} line {number}", what, f"write {wanted} where the concept goes, or remove it"))
    if not templates and not faults:
        faults.append(Problem(shown(file), "holds no prompt", f"write one prompt a line, each with {wanted}"))
    return tuple(templates), faults
