"""What feature methods share: features of the training images, and the flips rule.

Flips rule (rule 7 of docs/design.md): a model trained with horizontal flips gets each training image scored
as it is and mirrored, and the larger score counts. Every method follows it through this page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL.Image import Image, Transpose
from torch import Tensor
from torch.nn import functional

from attribench.interface import State, Study

BLOCK = 256


def embed_training_images(study: Study, state: State, embed: Callable[[Sequence[Image]], Tensor]) -> None:
    """Write state["features"] [versions, n_train, d], block by block; goes on where a killed fit stopped.

    `embed` turns pictures into features [n, d]. Version 0 is the image as it is, version 1 its mirror image.
    """
    written = state.create("features_written", (1,), "int64")
    for start in range(int(written[0]), len(study.train), BLOCK):
        pictures = [study.train[i] for i in range(start, min(start + BLOCK, len(study.train)))]
        versions = torch.stack([embed(version) for version in training_versions(study, pictures)]).cpu().numpy()
        shape = (len(versions), len(study.train), versions.shape[2])
        features = state.create("features", shape)
        features[:, start : start + len(pictures)] = versions
        features.flush()
        written[0] = start + len(pictures)
        written.flush()


def training_versions(study: Study, pictures: Sequence[Image]) -> list[list[Image]]:
    """The versions of training pictures that the model may have seen: [as they are], and mirrored if it flipped."""
    versions = [list(pictures)]
    if study.flips:
        versions.append([picture.transpose(Transpose.FLIP_LEFT_RIGHT) for picture in pictures])
    return versions


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
