"""Attribution by Customization: features tuned towards attribution on models customized on known exemplars.

    s(x_gen, x_i) = cos( H_synth f(x_gen), H_real f(x_i) )                     f frozen; two heads, the identity at the start

Wang, Efros, Zhu, Zhang, "Evaluating data attribution for text-to-image models", ICCV 2023. The heads learn from many
customized models, each of whose pictures has known exemplars, and are then applied to others. `heads.py` holds their
shapes, `training.py` the loss they are trained with, `calibrator.py` what turns s into shares of influence, `in_study.py`
the variant that learns inside one study. The authors' heads load; their training code is not public, so that the recipe
of the heads that ship here is ours: docs/abc.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch

from attribench import encoders
from attribench.encoders.weights import file_fingerprint
from attribench.errors import UsageError
from attribench.interface import Edition, Queries, Scores, State, Study

from ..features import NearestEncoded, best_version
from .calibrator import Calibrator
from .heads import Heads, load_heads

SHIPPED = "abc-tiny"
ASSETS = encoders.ASSETS / SHIPPED
"""Heads and a calibrator for each small encoder, named after it (recipes/abc/train.py)."""
Output = Literal["similarity", "influence"]


@dataclass(frozen=True, kw_only=True)
class Abc(NearestEncoded):
    """Cosine after two learned heads, one for training images and one for generated ones (AbC).

    Wang et al., ICCV 2023. On CLIP features by default (mini: clip-tiny). Needs the pictures and trained heads: those
    that ship for the small encoders, or the authors' (-p abc.heads=PATH/clip_tuned.pth); one pass of the encoder over each
    picture and a matrix product.
    """

    name: ClassVar[str] = "abc"
    by_edition: ClassVar[Mapping[Edition, str]] = encoders.CLIP

    heads: str = "auto"
    """The heads: "abc-tiny", or the path of a checkpoint. auto: abc-tiny on a mini edition; on the paper edition they have
    to be given."""
    output: Output = "similarity"
    """similarity: s. influence: the calibrated share of each training image, which sums to 1 over all; images below the
    calibrator's threshold tie at 0."""
    calibrator: str = ""
    """For output="influence" with heads of a checkpoint: the path of the calibrator's."""

    def resolve(self, edition: Edition) -> Self:
        heads = SHIPPED if self.heads == "auto" and edition == "mini" else self.heads
        return dataclasses.replace(super().resolve(edition), heads=heads)

    def skip(self, edition: Edition) -> str | None:
        own = self.resolve(edition)
        if own.heads == "auto":
            return f"the heads of {self.name} have to be given: -p {self.name}.heads=PATH of its authors' checkpoint"
        if own.heads == SHIPPED and not own._shipped("safetensors").is_file():
            return f"{SHIPPED} has no heads for {own.encoder}; train them with recipes/abc/train.py, or give heads=PATH"
        return super().skip(edition)

    def assets(self) -> str:
        return " ".join(file_fingerprint(path) for path in self._files())

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        train = study.features(self.pictures)["features"]
        own = torch.from_numpy(np.array(study.features(self.pictures, queries)["features"][0]))
        heads, calibrator = self._trained(state, own.shape[1])
        similarities = best_version(heads.similarity, own, train)
        if self.output == "influence":
            return Scores.of(queries, study.train, calibrator.influence(torch.from_numpy(similarities)))
        return Scores.of(queries, study.train, similarities)

    def _trained(self, state: State, dimension: int) -> tuple[Heads, Calibrator]:
        """The heads for features of that width, and the calibrator (of no use unless influence is asked for)."""
        heads, *calibrator = self._files()
        loaded = load_heads(heads, dimension, self.encoder)
        return loaded, Calibrator.load(calibrator[0]) if calibrator else Calibrator()

    def _files(self) -> tuple[Path, ...]:
        """The file of the heads and, where influence is asked for, that of the calibrator."""
        wants_calibrator = self.output == "influence"
        if self.heads == SHIPPED:
            heads = self._shipped("safetensors")
            return (heads, self._shipped("calibrator.safetensors")) if wants_calibrator else (heads,)
        if wants_calibrator and not self.calibrator:
            raise UsageError(f"output=influence with heads={self.heads} needs the calibrator too: -p {self.name}.calibrator=PATH")
        return tuple(Path(path) for path in ((self.heads, self.calibrator) if wants_calibrator else (self.heads,)))

    def _shipped(self, suffix: str) -> Path:
        return ASSETS / f"{self.encoder}.{suffix}"


@dataclass(frozen=True, kw_only=True)
class AbcDino(Abc):
    """AbC on DINO features (mini: dino-tiny): cosine after two learned heads.

    The same as `abc`, with the authors' dino_tuned.pth.
    """

    name: ClassVar[str] = "abc-dino"
    by_edition: ClassVar[Mapping[Edition, str]] = encoders.DINO
