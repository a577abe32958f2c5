"""MS-COCO captions, 2017: 118,287 photographs with five captions each (Lin et al., ECCV 2014; Chen et al., 2015)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, FailFast, Field, Strict, TypeAdapter, ValidationError

from attribench.data import CaptionedDataset, CaptionedImage, Edition, PromptRecord, Unusable
from attribench.data.pictures import picture_ids, problems, read_rgb
from attribench.errors import DatasetError
from attribench.files.confined import Problem, fault, read_bytes
from attribench.files.text import is_text, shown, some_shown

from .edition_tables import prompt_rows
from .splits import default_split

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = "train2017"
TRAIN = "annotations/captions_train2017.json"
VAL = "annotations/captions_val2017.json"
ANNOTATION_BYTES = 256 * 2**20
"""The public captions_train2017.json has about 92 million."""
CAPTIONS = 5
"""As many of each picture are read; a few pictures of the public set have six or seven."""
RESTORE = "restore the public annotations, or mend them"
RESTORE_PICTURES = "restore them from train2017.zip"


def _plain_name(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or not is_text(name):
        raise ValueError(f"must be the plain name of a picture file, not {shown(name)!r}")
    return name


Number = Annotated[int, Strict(), Field(ge=0, lt=10**12)]
"""COCO writes the id of a picture with twelve digits into its file's name."""
PlainName = Annotated[str, Field(max_length=255), AfterValidator(_plain_name)]


@dataclass(frozen=True, slots=True)
class Listed:
    """One of `images`, with the keys that are read."""

    id: Number
    file_name: PlainName


@dataclass(frozen=True, slots=True)
class Annotation:
    """One of `annotations`, with the keys that are read."""

    image_id: Number
    caption: Annotated[str, Field(max_length=10_000)]


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """A captions_*.json; what else it holds passes unread. The first fault ends the reading."""

    images: Annotated[list[Listed], FailFast()]
    annotations: Annotated[list[Annotation], FailFast()]


@dataclass(frozen=True)
class Captions:
    """What one captions_*.json says."""

    files: dict[int, str]
    """The file's name by image id, in the order of `images`."""
    texts: dict[int, list[str]]
    """The first five captions by image id, in the order of `annotations`. Every listed picture has an entry."""
    strays: dict[int, int]
    """How many captions name a picture that is not listed, by its id."""


@dataclass(frozen=True)
class Contents:
    """What was found under a root."""

    images: tuple[CaptionedImage, ...]
    prompts: tuple[PromptRecord, ...]
    lost: tuple[str, ...]
    """Ids of pictures with five captions that are not on disk."""
    short: dict[str, int]
    """How many captions the pictures have that have fewer than five."""
    unlisted: tuple[str, ...]
    """Ids of pictures on disk that the annotations do not list."""
    strays: dict[str, dict[int, int]]
    """By annotation file: captions of unlisted pictures, as in `Captions`."""
    left_out: tuple[Problem, ...]
    """Files in train2017/ that cannot be read as pictures, and rows of prompts.csv without a caption."""


class Mscoco(CaptionedDataset):
    """Photographs in `train2017/` with five captions each, and the captions of the val split as prompts.

    `images` has the order of `images` in captions_train2017.json, and of each picture the first five captions in
    the order of `annotations`, with white space made single blanks. A picture with fewer than five captions (empty
    ones do not count) is left out, and so are captions of pictures that are not listed and pictures that are not:
    a run tells their number, `verify` each. A listed picture that is not on disk means a damaged copy and is an error.

    A prompt is one of the first five captions of a picture of captions_val2017.json, with the id
    `{image id}-{number of the caption}`; val2017's pictures are not needed. All captions of a picture are in one
    split: that of its row in `prompts.csv`, if the data root holds that table, or else dev for a quarter of the
    hashes of the image id (`splits.default_split`).

    What travels to a worker is the root alone: a worker that only loads pictures parses no annotations.
    """

    name = "mscoco"
    default_protocol = "leave-k-out"
    layout = (
        f"{PICTURES}/*.jpg, {TRAIN} and {VAL} (train2017.zip and annotations_trainval2017.zip "
        "of https://cocodataset.org/#download, unpacked side by side)"
    )
    citation = (
        "Lin, Maire, Belongie, Bourdev, Girshick, Hays, Perona, Ramanan, Zitnick, Dollár: Microsoft COCO: Common Objects in "
        "Context. ECCV 2014. Captions: Chen, Fang, Lin, Vedantam, Gupta, Dollár, Zitnick: Microsoft COCO Captions. 2015."
    )
    licence = (
        "Annotations: CC BY 4.0, COCO Consortium. Pictures: from Flickr, rights with their photographers, each under the "
        "Creative Commons licence that the annotations name for it, and under Flickr's terms of use. The mini edition holds "
        "other pictures, openly licensed one by one in its images.csv and NOTICE."
    )

    def __init__(self, root: Path, edition: Edition) -> None:
        super().__init__(root, edition)
        for needed in (TRAIN, VAL, PICTURES):
            if not (root / needed).exists():
                raise DatasetError(f"{shown(str(root))}: has no {needed}; expected {self.layout}")
        self._require_whole()

    @property
    def images(self) -> tuple[CaptionedImage, ...]:
        return self._contents.images

    @property
    def prompts(self) -> tuple[PromptRecord, ...]:
        return self._contents.prompts

    def load(self, image_id: str) -> Image:
        return read_rgb(self.root, image_id)

    @property
    def notices(self) -> tuple[str, ...]:
        found = self._contents
        notices = []
        if found.short:
            some = some_shown(f"{image_id} has {count or 'none'}" for image_id, count in islice(found.short.items(), 6))
            notices.append(
                f"left out, since a picture needs {CAPTIONS} captions: {len(found.short):,} of "
                f"{len(found.short) + len(found.images):,} pictures ({some})"
            )
        if found.unlisted:
            notices.append(
                f"left out, since {TRAIN} does not list them: {len(found.unlisted):,} pictures ({some_shown(found.unlisted[:6])})"
            )
        for file, strays in found.strays.items():
            if strays:
                some = some_shown(map(str, islice(strays, 6)))
                notices.append(
                    f"left out, since {file} does not list their pictures: {sum(strays.values()):,} captions (image id {some})"
                )
        return tuple(notices)

    def verify(self) -> list[Problem]:
        found = self._contents
        lost = set(found.lost)
        return [
            *found.left_out,
            *(Problem(shown(image_id), f"has captions in {TRAIN} but is missing", RESTORE_PICTURES) for image_id in found.lost),
            *(
                Problem(shown(image_id), f"has {count} of the {CAPTIONS} captions that a picture needs", RESTORE)
                for image_id, count in found.short.items()
            ),
            *(
                Problem(shown(image_id), f"has no captions: {TRAIN} does not list it", f"remove it, or {RESTORE}")
                for image_id in found.unlisted
            ),
            *(
                Problem(f"{file}, image id {number}", f"is not among the images but has captions: {count}", RESTORE)
                for file, strays in found.strays.items()
                for number, count in strays.items()
            ),
            *problems(self.root, (image.id for image in found.images if image.id not in lost)),
        ]

    @cached_property
    def _contents(self) -> Contents:
        return _read(self.root, self.name)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "edition": self.edition}

    def _require_whole(self) -> None:
        found, root = self._contents, shown(str(self.root))
        if found.lost:
            raise Unusable(
                f"{root}: {len(found.lost):,} of {len(found.images):,} pictures are missing ({some_shown(found.lost[:6])}); "
                f"{RESTORE_PICTURES}, or take them out of {TRAIN}",
                self,
            )
        if not found.images:
            raise Unusable(f"{root}: no picture of {TRAIN} has {CAPTIONS} captions; expected {self.layout}", self)
        if not found.prompts:
            raise Unusable(f"{root}: {VAL} holds no caption of a picture that it lists; expected {self.layout}", self)


def _read(root: Path, dataset: str) -> Contents:
    train, val = _captions(root, TRAIN), _captions(root, VAL)
    ids = {number: f"{PICTURES}/{file}" for number, file in train.files.items()}
    on_disk, left_out = picture_ids(root, PICTURES)
    there, listed = set(on_disk), set(ids.values())
    images = tuple(
        CaptionedImage(id=ids[number], captions=tuple(texts)) for number, texts in train.texts.items() if len(texts) == CAPTIONS
    )
    prompts, rows_without_prompt = _prompts(root, val, dataset)
    return Contents(
        images=images,
        prompts=prompts,
        lost=tuple(image.id for image in images if image.id not in there),
        short={ids[number]: len(texts) for number, texts in train.texts.items() if len(texts) < CAPTIONS},
        unlisted=tuple(image_id for image_id in on_disk if image_id not in listed),
        strays={TRAIN: train.strays, VAL: val.strays},
        left_out=(*left_out, *rows_without_prompt),
    )


def _captions(root: Path, file: str) -> Captions:
    """Raises DatasetError for a file that is too big or not in the layout, and for a picture that is listed twice."""
    read = _parsed(root, file)
    files: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for at, listed in enumerate(read.images, start=1):
        if listed.id in files:
            raise fault(f"{file}, image {at}", f"lists the image id {listed.id} a second time", "remove one of the two")
        if listed.file_name in numbers:
            what = f"lists the file {shown(listed.file_name)!r} a second time, as {listed.id} and as {numbers[listed.file_name]}"
            raise fault(f"{file}, image {at}", what, "remove one of the two")
        files[listed.id] = listed.file_name
        numbers[listed.file_name] = listed.id
    texts: dict[int, list[str]] = {number: [] for number in files}
    strays: dict[int, int] = {}
    for annotation in read.annotations:
        of = texts.get(annotation.image_id)
        if of is None:
            strays[annotation.image_id] = strays.get(annotation.image_id, 0) + 1
        elif len(of) < CAPTIONS and (text := " ".join(annotation.caption.split())):
            of.append(text)
    return Captions(files, texts, strays)


def _parsed(root: Path, file: str) -> AnnotationFile:
    data = read_bytes(root, file, ANNOTATION_BYTES)
    try:
        return TypeAdapter(AnnotationFile).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = "".join(f" {part + 1}" if isinstance(part, int) else f", {part}" for part in first["loc"])
        what = shown(first["msg"]).removeprefix("Value error, ")
        raise fault(file + where, what, f"restore the public {file}, or mend it") from error


def _prompts(root: Path, val: Captions, dataset: str) -> tuple[tuple[PromptRecord, ...], list[Problem]]:
    """The prompts, sorted by id, and the rows of prompts.csv that no caption belongs to."""
    rows = prompt_rows(root)
    prompts = [
        PromptRecord(
            id=f"{number:012d}-{at}",
            text=text,
            split=rows[number].split if number in rows else default_split(dataset, str(number)),
        )
        for number, texts in val.texts.items()
        for at, text in enumerate(texts)
    ]
    lost = _without_caption(rows, val.texts)
    return tuple(sorted(prompts, key=lambda prompt: prompt.id)), lost


def _without_caption(rows: Mapping[int, Any], texts: Mapping[int, Sequence[str]]) -> list[Problem]:
    return [
        Problem(f"prompts.csv, image id {number}", f"has no caption in {VAL}", "restore its caption, or remove the row")
        for number in rows
        if not texts.get(number)
    ]
