"""What feature methods share: cosine between an encoder's features, and the flips rule.

Flips rule (rule 7 of docs/design.md): a model trained with horizontal flips gets each training image scored
as it is and mirrored, and the larger score counts. Every method follows it through this page.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from attribench import encoders
from attribench.encoders.features import EncoderFeatures
from attribench.interface import Access, AttributionMethod, Edition, Queries, Scores, State, Study


@dataclass(frozen=True, kw_only=True)
class NearestPictures(AttributionMethod):
    """Cosine of features of pictures: score(x_gen, x_i) = cos(f(x_gen), f(x_i))."""

    needs: ClassVar[Access] = Access.FEATURES

    @property
    @abstractmethod
    def pictures(self) -> EncoderFeatures:
        """f."""

    def features(self) -> tuple[EncoderFeatures, ...]:
        return (self.pictures,)

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        own = torch.from_numpy(np.array(study.features(self.pictures, queries)["features"][0]))
        return Scores.of(queries, study.train, best_version(cosine, own, study.features(self.pictures)["features"]))


@dataclass(frozen=True, kw_only=True)
class NearestEncoded(NearestPictures):
    """Cosine of the features of a named encoder."""

    by_edition: ClassVar[Mapping[Edition, str]]
    """What "auto" means."""

    encoder: str = "auto"
    """A name of attribench/encoders; auto: the encoder of this method, on a mini edition its small stand-in if there
    is one."""
    checkpoint: str = ""
    """A file of weights, for an encoder that takes one."""

    def resolve(self, edition: Edition) -> Self:
        return dataclasses.replace(self, encoder=encoders.resolve(self.encoder, edition, self.by_edition))

    def skip(self, edition: Edition) -> str | None:
        return encoders.available(self.resolve(edition).encoder, self.checkpoint)

    @property
    def pictures(self) -> EncoderFeatures:
        return EncoderFeatures(encoder=self.encoder, checkpoint=self.checkpoint)


def best_version(
    score: Callable[[Tensor, Tensor], Tensor], queries: Tensor, features: np.ndarray, block: int = 8192
) -> np.ndarray:
    """`score(queries [Q, d], training images [n, d]) -> [Q, n]` for features [versions, n_train, d]: [Q, n_train]."""
    columns = []
    for start in range(0, features.shape[1], block):
        part = torch.from_numpy(np.array(features[:, start : start + block], dtype=np.float32))
        columns.append(torch.stack([score(queries, version) for version in part]).amax(dim=0))
    return torch.cat(columns, dim=1).numpy()


def cosine(queries: Tensor, train: Tensor) -> Tensor:
    """Cosine similarity of every query [Q, d] with every training image [n, d]: [Q, n]."""
    return functional.normalize(queries, dim=1) @ functional.normalize(train, dim=1).T
