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


def write_scores(path: Path, scores: Scores | Sequence[Scores]) -> None:
    """The scores of a method, or a sequence of those of each of its candidates, all with the same ids."""
    ids, values = (scores, scores.values) if isinstance(scores, Scores) else (scores[0], np.stack([one.values for one in scores]))
    metadata = {"query_ids": json.dumps(ids.query_ids), "train_ids": json.dumps(ids.train_ids)}
    save_file({"scores": np.ascontiguousarray(values)}, path, metadata=metadata)


def read_scores(path: Path, candidate: int | None = None) -> Scores:
    """What `write_scores` wrote of a method, or of one of its candidates; no other part is read."""
    with safe_open(path, framework="numpy") as file:
        ids = file.metadata()
        values = file.get_tensor("scores") if candidate is None else file.get_slice("scores")[candidate]
        return Scores(values, tuple(json.loads(ids["query_ids"])), tuple(json.loads(ids["train_ids"])))
