"""BM25 as an attribution method: words of the prompt in the training captions, and no picture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np

from attribench.interface import Access, AttributionMethod, Queries, Scores, State, Study


@dataclass(frozen=True, kw_only=True)
class Bm25(AttributionMethod):
    """Rare words that the prompt shares with the captions (BM25): a baseline that sees no picture.

        score(p_gen, c_i) = Σ_w idf(w) · f(w, c_i) / ( f(w, c_i) + k1 · (1 − b + b · |c_i| / mean |c|) )
        idf(w) = ln( 1 + (n − n_w + 1/2) / (n_w + 1/2) )

    over the words w of the plain prompt; f: how often w is in the captions of image i, n_w: in how many images' captions.
    Robertson & Zaragoza, "The probabilistic relevance framework: BM25 and beyond", 2009, in Lucene's form, by the
    library bm25s. What it finds, images need not explain. Equal captions tie, and so do all images that share no word
    with the prompt (score 0); ties are broken as for every method. Needs prompts and captions; costs next to nothing.
    """

    name: ClassVar[str] = "bm25"
    needs: ClassVar[Access] = Access.FEATURES

    k1: float = 1.5
    """How soon a word that is repeated stops to count."""
    b: float = 0.75
    """How far long captions are held against an image."""
    stopwords: bool = True
    """Leave out English stop words, such as "a" and "of"."""

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        bm25s = _bm25s()
        documents = self._words(documents_of(study))
        index = bm25s.BM25(method="lucene", k1=self.k1, b=self.b, backend="numpy")
        if any(documents):
            index.index(documents, show_progress=False)
        known = {word for words in documents for word in words}
        values = np.zeros((len(queries), len(study.train)), dtype=np.float32)
        for row, words in enumerate(self._words(queries.plain_prompts)):
            shared = [word for word in words if word in known]
            if shared:
                values[row] = index.get_scores(shared)
        return Scores.of(queries, study.train, values)

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        """Words of two letters and more, in lower case, of each text."""
        stopwords = "english" if self.stopwords else None
        return _bm25s().tokenize(list(texts), stopwords=stopwords, return_ids=False, show_progress=False)


def _bm25s() -> ModuleType:
    """The library, which tells each step to whoever keeps a log unless it is asked not to."""
    import bm25s

    bm25s.logger.setLevel(logging.WARNING)
    return bm25s


def documents_of(study: Study) -> list[str]:
    """All captions of each training image as one text."""
    train = study.train
    return [" ".join((caption, *prompts[1:])) for caption, prompts in zip(train.captions, train.all_prompts, strict=True)]
