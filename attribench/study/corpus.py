"""The step that encodes a data set once, for every training from scratch on it or on a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from attribench.data import TrainImage
from attribench.diffusion.config import ARCHITECTURES, FromScratchConfig
from attribench.engine.identity import token
from attribench.engine.steps import Step, StepContext
from attribench.files.state import State

ENCODINGS = "encodings"
"""The output, and the name of the input of steps that train."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Pictures with their captions that trainings take their images from."""

    model: str
    """Fingerprint of the base model, whose VAE and text encoder encode them."""
    data: str
    """Fingerprint of the pictures' bytes."""
    images: tuple[TrainImage, ...]

    @cached_property
    def identity(self) -> str:
        """A token of all of it: a corpus may have a hundred thousand pictures, and every training names it."""
        return token([self.model, self.data, [[image.id, *image.prompts] for image in self.images]], "corpus")

    @cached_property
    def place(self) -> Mapping[str, int]:
        """The row of each picture, by its id."""
        return {image.id: row for row, image in enumerate(self.images)}


def encode_step(corpus: Corpus, config: FromScratchConfig, bindings: Mapping[str, Any]) -> Step:
    """Encode all pictures and captions; of the configuration only what this depends on enters the key."""
    return Step(
        name="encode",
        label=f"{len(corpus.images)} pictures",
        function=encode,
        params={
            "corpus": corpus.identity,
            "sample_size": ARCHITECTURES[config.architecture]["sample_size"],
            "flips": config.flips,
            "stored": config.stored,
        },
        inputs={},
        outputs={ENCODINGS: None},
        bindings={"model": bindings["model"], "dataset": bindings["dataset"], "corpus": corpus, "config": config},
        estimate={"seconds": 0.05 * len(corpus.images), "peak_bytes": 1e9, "bytes": 1e5 * len(corpus.images)},
        gpu=True,
    )


def encode(ctx: StepContext) -> None:
    """Write the arrays that `attribench.diffusion.encodings` names; go on after a kill."""
    from attribench.diffusion.encodings import encode  # here, since torch takes seconds to import
    from attribench.diffusion.untrained import UntrainedModel

    corpus: Corpus = ctx.bindings["corpus"]
    model = UntrainedModel.build(ctx.bindings["model"], ctx.bindings["config"], 0, ctx.device)
    encode(
        model,
        corpus.images,
        ctx.bindings["dataset"].load,
        State(ctx.out(ENCODINGS)),
        flips=ctx.params["flips"],
        stored=ctx.params["stored"],
        report=lambda done, total: ctx.report(done, total, "pictures and captions"),
    )
