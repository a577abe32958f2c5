"""Scores on disk: safetensors, the ids of both axes in the metadata.

One tensor "scores": [n_query, n_train], or, where a method has candidates, [n_candidates, n_query, n_train].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from attribench.data import Role
from attribench.interface import Scores

SCORES = "scores.safetensors"
"""The file of a score step."""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The scores of the queries of one role, by one method with one seed, and where it has candidates by one of them."""

    method: str
    seed: int
    candidate: int | None
    role: Role
    scores: Scores


def write_scores(path: Path, scores: Scores) -> None:
    """The scores of a method."""
    _write(path, scores.values, scores)


def write_candidates(path: Path, scores: Sequence[Scores]) -> None:
    """The scores of each candidate of a method, all with the same ids."""
    _write(path, np.stack([of_one.values for of_one in scores]), scores[0])


def read_scores(path: Path, candidate: int | None = None) -> Scores:
    """What `write_scores` wrote, or one candidate's part of what `write_candidates` did; no other part is read."""
    with safe_open(path, framework="numpy") as file:
        ids = file.metadata()
        values = file.get_tensor("scores") if candidate is None else file.get_slice("scores")[candidate]
        return Scores(values, tuple(json.loads(ids["query_ids"])), tuple(json.loads(ids["train_ids"])))


def _write(path: Path, values: np.ndarray, ids: Scores) -> None:
    metadata = {"query_ids": json.dumps(ids.query_ids), "train_ids": json.dumps(ids.train_ids)}
    save_file({"scores": np.ascontiguousarray(values)}, path, metadata=metadata)
