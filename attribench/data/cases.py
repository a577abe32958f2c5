"""What is studied, as plain values: training images, and pictures to generate and attribute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

    from attribench.data.region import Region


Edition = Literal["mini", "paper"]
Split = Literal["dev", "test"]
Role = Literal["fit", "query"]
"""Of a generated picture: methods may learn from it and are tuned on it ("fit"), or it is held out and reported on."""


@dataclass(frozen=True, kw_only=True)
class TrainImage:
    """A training picture as the training saw it."""

    id: str
    prompt: str
    """The training prompt, modifier token included: "photo of a <new1> teddy bear"; of several captions, the first."""
    caption: str
    concept: str
    """Ground truth, "" where the data set has no labels; methods never see it."""
    further_prompts: tuple[str, ...] = ()
    """The other captions that training drew from, where a picture has several."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every text that the picture was trained with, `prompt` first."""
        return (self.prompt, *self.further_prompts)


@dataclass(frozen=True, kw_only=True)
class GenerationCase:
    """A prompt and a noise seed: one picture that the trained model is to generate."""

    id: str
    prompt: str
    """With modifier tokens, as the model gets it."""
    plain_prompt: str
    """The same with the concepts' class words, as a text encoder that knows no modifier gets it."""
    seed: int
    concepts: tuple[str, ...]
    """Ground truth; methods never see it."""
    modifiers: tuple[str, ...]
    """The modifier tokens in the prompt, in order; what a method may know of the concepts."""
    variant: str
    """"un-mixed" or "mixed" here; each protocol names its own."""
    role: Role
    """"fit": a method may learn from the picture and its attribution table column. "query": held out."""
    monitored: bool = False
    """Of a query: its attribution table column is known too, as where the table itself is what is reported on."""


class Pictures:
    """Pictures in a fixed order, decoded when asked for. `ids` is the order of every array made from them."""

    def __init__(self, ids: Sequence[str], loader: Any) -> None:
        self.ids = tuple(ids)
        self._load = loader

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Image:
        return self._load(self.ids[index])

    def __iter__(self) -> Iterator[Image]:
        return (self[i] for i in range(len(self)))


class TrainingImages(Pictures):
    """The images behind a trained model. No concept label: what groups them is in their prompts.

    Ids are names of rows, for arrays and files; a method that reads a concept out of them is cheating.
    """

    def __init__(self, images: Sequence[TrainImage], loader: Any) -> None:
        super().__init__([image.id for image in images], loader)
        self.prompts = tuple(image.prompt for image in images)
        """One for each image; where it has several captions, the first."""
        self.all_prompts = tuple(image.prompts for image in images)
        """All that each image was trained with: its five captions, say."""
        self.captions = tuple(image.caption for image in images)


class Queries(Pictures):
    """Generated pictures with their prompts, and the boxes of those that are not attributed as a whole."""

    def __init__(self, cases: Sequence[GenerationCase], loader: Any, regions: Mapping[str, Region] | None = None) -> None:
        super().__init__([case.id for case in cases], loader)
        self.regions = tuple((regions or {}).get(case.id) for case in cases)
        self.prompts = tuple(case.prompt for case in cases)
        self.plain_prompts = tuple(case.plain_prompt for case in cases)
        self.modifiers = tuple(case.modifiers for case in cases)
        self.seeds = tuple(case.seed for case in cases)
        self.monitored = tuple(case.role == "fit" or case.monitored for case in cases)


@dataclass(frozen=True)
class Trajectory:
    """How a picture was sampled: at each timestep the model's guess of the clean latent, first to last."""

    timesteps: np.ndarray
    """[steps] int64, falling."""
    estimates: np.ndarray
    """[steps, channels, height, width] float32: predicted x_0, in the latent scale that the UNet is trained in."""
