"""Features of pictures by an encoder, made once for a study and shared by every method that names them.

    EncoderFeatures(encoder="clip-tiny")        study.features(...)["features"]  [versions, n_train, d] float32
                                                study.features(..., queries)["features"]  [1, n_query, d] float32

They depend on the pictures' bytes and the encoder alone. Versions of a training image: as it is, and mirrored if the model
was trained with horizontal flips. Written as they come; after a kill the pictures that are there are not read again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from PIL.Image import Image, Transpose

from attribench import encoders
from attribench.data import Pictures, Queries
from attribench.encoders.encoder import as_it_is
from attribench.errors import MethodError
from attribench.files.state import State
from attribench.interface import Features, Study

FEATURES, WRITTEN = "features", "features_written"


@dataclass(frozen=True, kw_only=True)
class EncoderFeatures(Features):
    """What an encoder makes of the training images and of the queries."""

    images_axis: ClassVar[Mapping[str, int]] = {FEATURES: 1}

    encoder: str
    """A name of `attribench.encoders`, no "auto"."""
    checkpoint: str = ""
    """A file of weights, for an encoder that takes one."""

    @property
    def name(self) -> str:
        return f"{self.encoder} features"

    def assets(self) -> str:
        return encoders.fingerprint(self.encoder, self.checkpoint)

    def of_training(self, study: Study, state: State) -> None:
        self._write(study, state, study.train, partial(training_versions, study))

    def of_queries(self, study: Study, state: State, queries: Queries) -> None:
        self._write(study, state, queries, as_it_is)

    def _write(self, study: Study, state: State, pictures: Pictures, versions: Callable[[Image], tuple[Image, ...]]) -> None:
        encoder = encoders.load_encoder(self.encoder, study.device, self.checkpoint)
        written = state.create(WRITTEN, (1,), "int64")
        start = int(written[0])
        for batch in encoder.batches(pictures, versions, start):
            found = batch.numpy()
            if not np.isfinite(found).all():
                bad = pictures.ids[start + int(np.flatnonzero(~np.isfinite(found).all(axis=(0, 2)))[0])]
                raise MethodError(
                    f"{self.encoder} gives features of {bad} that are NaN or infinite; check that picture and the weights"
                )
            features = state.create(FEATURES, (found.shape[0], len(pictures), found.shape[2]))
            features[:, start : start + found.shape[1]] = found
            features.flush()
            start += found.shape[1]
            written[0] = start
            written.flush()


def training_versions(study: Study, picture: Image) -> tuple[Image, ...]:
    """The versions of a training picture that the model may have seen: as it is, and mirrored if it flipped."""
    return (picture, picture.transpose(Transpose.FLIP_LEFT_RIGHT)) if study.flips else (picture,)
