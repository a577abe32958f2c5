"""The contracts of data sets: files, captions, labels and prompts, and no model.

An adapter derives from the kind that its data is, and a protocol says which kind it takes:

    ConceptDataset      pictures of concepts (objects, artists) that a model can be customized on
    CaptionedDataset    pictures with captions, no labels, that a model can be trained on from scratch
    ExemplarDataset     models customized on known exemplars, the pictures that they made, and distractors

Nothing here imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from attribench.data.cases import Edition, Split
from attribench.errors import DatasetError
from attribench.files.confined import Problem

if TYPE_CHECKING:
    from PIL.Image import Image


class Dataset(ABC):
    """A data set as it lies on disk, read from a root in its public layout.

    The constructor reads the layout (not the pixels) and raises DatasetError when it does not hold.
    """

    kind: ClassVar[str]
    """What it holds, for a message: "pictures of concepts"."""
    name: ClassVar[str]
    default_protocol: ClassVar[str]
    citation: ClassVar[str]
    licence: ClassVar[str]

    def __init__(self, root: Path, edition: Edition) -> None:
        self.root = root
        self.edition: Edition = edition

    @property
    def notices(self) -> tuple[str, ...]:
        """What a run is to tell about the files that were found, a line each."""
        return ()

    @property
    @abstractmethod
    def n_images(self) -> int:
        """How many pictures `verify` looks at."""

    @property
    @abstractmethod
    def contents(self) -> str:
        """What it holds, as a line of `attribench verify` says it: "505 pictures of 101 usable concepts"."""

    @abstractmethod
    def load(self, image_id: str) -> Image:
        """The RGB picture. Raises DatasetError for one that is missing, truncated, huge or outside the root."""

    @abstractmethod
    def verify(self) -> list[Problem]:
        """Every missing, unreadable, truncated or duplicate file, in one go."""


# ---------------------------------------------------------------------------------------- concepts


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One object or one artist: what a customization is taught, and what a query is labelled with."""

    name: str
    class_word: str
    """The plain noun ("teddy bear"); for a style, how a person would name the artist."""
    split: Split
    prompt: str
    """The training prompt with its placeholder: "photo of a {modifier} teddy bear"."""
    phrase: str
    """What replaces {concept} in a prompt, with its placeholder: "{modifier} teddy bear"."""


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One picture of a concept. `id` is its posix path below the root, hence stable and sorted."""

    id: str
    concept: str
    caption: str
    """What a person sees, without the concept's name for styles; used by text baselines."""


class ConceptDataset(Dataset):
    """Pictures of concepts, each with a training prompt, and the prompts that a customized model is asked."""

    kind = "pictures of concepts"
    monitoring_templates: ClassVar[tuple[str, ...]]
    """Prompt templates with `{concept}`."""
    basic_template: ClassVar[str] = "An image of {concept}."
    mixed_template: ClassVar[str] = "{concept1} and {concept2} together."

    @property
    @abstractmethod
    def concepts(self) -> tuple[Concept, ...]:
        """All concepts, sorted by name."""

    @abstractmethod
    def images(self, concept: str) -> tuple[ImageRecord, ...]:
        """The pictures of one concept, sorted by id."""

    @property
    def n_images(self) -> int:
        return sum(len(self.images(concept.name)) for concept in self.concepts)

    @property
    def contents(self) -> str:
        return f"{self.n_images} pictures of {len(self.concepts)} usable concepts"


# ---------------------------------------------------------------------------------------- captions


@dataclass(frozen=True, kw_only=True)
class CaptionedImage:
    """One picture and what several people said of it. `id` is its posix path below the root."""

    id: str
    captions: tuple[str, ...]
    """In the order of the annotations; all pictures of a data set have as many."""


@dataclass(frozen=True, kw_only=True)
class PromptRecord:
    """A caption of a picture that no model is trained on, to be used as a prompt."""

    id: str
    text: str
    split: Split


class CaptionedDataset(Dataset):
    """Pictures with captions to train on, and captions of other pictures as prompts."""

    kind = "captioned pictures"

    @property
    @abstractmethod
    def images(self) -> tuple[CaptionedImage, ...]:
        """The training pictures, in the data set's own fixed order."""

    @property
    @abstractmethod
    def prompts(self) -> tuple[PromptRecord, ...]:
        """The prompts that queries are generated for, sorted by id."""

    @property
    def n_images(self) -> int:
        return len(self.images)

    @property
    def contents(self) -> str:
        return f"{self.n_images} captioned pictures and {len(self.prompts)} prompts"


# --------------------------------------------------------------------------------------- exemplars

ExemplarSplit = Literal["train", "val", "test"]
"""Of the models: those that heads on features are learned from, those that judge the learning, and those reported on."""


@dataclass(frozen=True, kw_only=True)
class PoolImage:
    """A picture that may be retrieved: an exemplar or a distractor. `id` is its posix path below the root."""

    id: str
    caption: str
    """What a person sees, or what the picture came with on the web; "" where nothing is known."""


MODIFIER = "<new1>"
"""V* in the prompts of an ExemplarDataset: the token that a model was customized with."""


@dataclass(frozen=True, kw_only=True)
class SynthesizedPicture:
    """A picture that a customized model made. `id` is its posix path below the root."""

    id: str
    prompt: str | None
    """As the model got it: "a charcoal drawing of <new1> bird"; None: not known."""


@dataclass(frozen=True, kw_only=True)
class ExemplarModel:
    """One model that was customized on exemplars, and what it made."""

    id: str
    """Unique among all models of the data set: "artchive/monet"."""
    class_id: str
    """As the data set names it, unique in its part: "monet", "n01518878_0008"."""
    case: str
    """The test case, or other list, that it is part of: "observed_imagenet"."""
    split: ExemplarSplit
    category: str | None
    """Of an object ("bird"); None for a style."""
    class_word: str
    """The plain noun that stands for V* and its noun in a prompt: "bird", "art"."""
    prompt: str
    """The training prompt: "<new1> bird"."""
    exemplars: tuple[PoolImage, ...]
    """What it was trained on, sorted by id."""
    pictures: Mapping[str, tuple[SynthesizedPicture, ...]]
    """What it made, by family of prompts ("gpt", "object", "media"), sorted by id."""


class ExemplarDataset(Dataset):
    """Models customized on known exemplars, the pictures that they made, and distractors to find the exemplars among."""

    kind = "models customized on known exemplars"

    @abstractmethod
    def models(self, split: ExemplarSplit) -> tuple[ExemplarModel, ...]:
        """The models of a split, in the order of its lists; none if it is not there."""

    @property
    @abstractmethod
    def distractors(self) -> tuple[PoolImage, ...]:
        """Pictures that no model was customized on, sorted by id."""

    @property
    def contents(self) -> str:
        counts = {split: len(self.models(split)) for split in ("train", "val", "test")}
        models = ", ".join(f"{count} {split}" for split, count in counts.items())
        return f"{self.n_images} pictures of {sum(counts.values())} models ({models}) with {len(self.distractors)} distractors"


class Unusable(DatasetError):
    """The layout was read, but what it holds is not enough to run on. `dataset` is what was read, to be verified."""

    def __init__(self, message: str, dataset: Dataset) -> None:
        super().__init__(message, dataset)
        self.dataset = dataset

    def __str__(self) -> str:
        return self.args[0]
