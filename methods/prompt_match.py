"""Prompt match, a control: what a string comparison finds, without a picture, a model or a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attribench.interface import Queries, Scores, State, Study

from .bm25 import Bm25


@dataclass(frozen=True, kw_only=True)
class PromptMatch(Bm25):
    """Whether a modifier of the query's prompt stands in the training prompt; else the words that they share (BM25).

        score(q, i) = 1                        if a token V* of q's prompt is in a training prompt of i
                    = r / (1 + max_j r_j)      else, r: BM25 of q's plain prompt and the captions of i

    Where the truth is the concept of V* and methods are told V*, it ranks every image of the concept first: a method that does
    not beat it there has shown nothing. Needs prompts and captions.
    """

    name: ClassVar[str] = "prompt-match"
    control: ClassVar[bool] = True
    on_request: ClassVar[bool] = True

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        words = super().score(study, state, queries).values
        words = words / (1 + words.max(axis=1, keepdims=True))
        prompts = study.train.all_prompts
        matched = [
            [any(token in text for token in tokens for text in texts) for texts in prompts] for tokens in queries.modifiers
        ]
        return Scores.of(queries, study.train, np.where(np.array(matched, dtype=bool), 1.0, words))
