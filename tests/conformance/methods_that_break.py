"""A plugin file: a sound method, and others that break one thing each. Their names say which check is to find it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL.Image import Image

from attribench.data import Queries
from attribench.files.state import State
from attribench.interface import Access, AttributionMethod, Scores, Study


def rows(pictures: Iterable[Image]) -> np.ndarray:
    """[n, d], unit length."""
    values = np.stack([np.asarray(picture.resize((8, 8)), dtype=np.float64).ravel() for picture in pictures])
    values -= values.mean(axis=1, keepdims=True)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@dataclass(frozen=True, kw_only=True)
class Sound(AttributionMethod):
    """Cosine of small pictures; nothing is wrong with it."""

    name = "sound"

    def fit(self, study: Study, state: State) -> None:
        state["train"] = rows(study.train)

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        return Scores.of(queries, study.train, self.change(rows(queries) @ state["train"].T, study, state))

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        """Where the others go wrong."""
        return scores


@dataclass(frozen=True, kw_only=True)
class HoldsArrays(Sound):
    """Keeps the training rows on itself."""

    name = "identity-of-arrays"

    def fit(self, study: Study, state: State) -> None:
        super().fit(study, state)
        object.__setattr__(self, "train", rows(study.train))


class Undecorated(Sound):
    """Adds a field that is none, since the decorator is missing."""

    name = "identity-of-undecorated"
    size: int = 8


@dataclass(frozen=True, kw_only=True)
class NoDocstring(Sound):
    name = "identity-of-undocumented"


@dataclass(frozen=True, kw_only=True)
class Restless(Sound):
    """Resolves to another method each time."""

    name = "identity-of-restless"
    rounds: int = 0

    def resolve(self, edition):
        return Restless(rounds=self.rounds + 1)


@dataclass(frozen=True, kw_only=True)
class LargerCounts(Sound):
    """Would be checked as another than it is: with more rounds than a run has."""

    name = "identity-of-larger-counts"
    checked_with = {"rounds": 3}
    rounds: int = 2


@dataclass(frozen=True, kw_only=True)
class Nosy(Sound):
    """Looks at the trained model without a word."""

    name = "needs-unsaid"

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return scores + 0 * len(study.model.modifiers)


@dataclass(frozen=True, kw_only=True)
class Transposed(Sound):
    """The axes the wrong way round."""

    name = "shape-transposed"

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        return Scores.of(queries, study.train, (rows(queries) @ state["train"].T).T)


@dataclass(frozen=True, kw_only=True)
class Undefined(Sound):
    """A score that is no number."""

    name = "shape-undefined"

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return np.where(scores == scores.max(), np.nan, scores)


@dataclass(frozen=True, kw_only=True)
class Sorted(Sound):
    """Ids in an order of its own."""

    name = "shape-of-other-ids"

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        return Scores(rows(queries) @ state["train"].T, queries.ids[::-1], study.train.ids)


@dataclass(frozen=True, kw_only=True)
class Flipped(Sound):
    """The closest image has the lowest score."""

    name = "sign-flipped"

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return -scores


@dataclass(frozen=True, kw_only=True)
class Indifferent(Sound):
    """All images alike: a tie of images that share nothing is no first place."""

    name = "sign-of-ties"

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return np.ones_like(scores)


@dataclass(frozen=True, kw_only=True)
class Moody(Sound):
    """A little noise from the operating system with every fit."""

    name = "determinism-lost"

    def fit(self, study: Study, state: State) -> None:
        super().fit(study, state)
        state["mood"] = np.array(1 + 1e-3 * int.from_bytes(os.urandom(6)) / 2**48)

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return scores * state["mood"]


@dataclass(frozen=True, kw_only=True)
class Relative(Sound):
    """Scores relative to those of the other queries of the call."""

    name = "batches-mixed"

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return scores - 0.01 * scores.mean(axis=0)


@dataclass(frozen=True, kw_only=True)
class Positional(Sound):
    """A bonus for images that come late."""

    name = "permutation-of-rows"

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return scores + 1e-4 * np.arange(scores.shape[1])


@dataclass(frozen=True, kw_only=True)
class Unkeyed(Sound):
    """A field that changes the scores and not the key."""

    name = "hyper-parameters-unkeyed"
    power: float = field(default=1.0, compare=False)

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return np.sign(scores) * np.abs(scores) ** self.power


@dataclass(frozen=True, kw_only=True)
class Gambler(Sound):
    """Draws from numpy's global random numbers."""

    name = "hyper-parameters-and-chance"

    def fit(self, study: Study, state: State) -> None:
        super().fit(study, state)
        state["luck"] = 1 + 1e-4 * np.random.random(1)

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return scores * state["luck"]


@dataclass(frozen=True, kw_only=True)
class Forgetful(Sound):
    """Counts its fits, and adds a killed one to the whole."""

    name = "resume-counted-twice"

    def fit(self, study: Study, state: State) -> None:
        count = state.create("count", (1,))
        count += 1
        count.flush()
        time.sleep(0.3)  # so that half of its time is behind the count
        super().fit(study, state)

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return scores * state["count"]


@dataclass(frozen=True, kw_only=True)
class Greedy(Sound):
    """Takes four times the memory that it declares."""

    name = "memory-beyond"
    memory = 2**26

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return scores + 0 * np.ones(2**25).sum()  # 256 MiB


@dataclass(frozen=True, kw_only=True)
class Scribbler(Sound):
    """Keeps a cache of its own in the folder of temporary files."""

    name = "writes-elsewhere"

    def fit(self, study: Study, state: State) -> None:
        super().fit(study, state)
        cache = Path(tempfile.gettempdir()) / f"attribench-scribbler-{os.getpid()}.txt"
        cache.write_text("seen")
        cache.unlink()


@dataclass(frozen=True, kw_only=True)
class Maker(Sound):
    """Makes a folder and takes it away again."""

    name = "writes-and-removes"

    def fit(self, study: Study, state: State) -> None:
        super().fit(study, state)
        os.rmdir(tempfile.mkdtemp())


@dataclass(frozen=True, kw_only=True)
class Idle(Sound):
    """Declares the trained model and never looks at it."""

    name = "passes-idle"
    needs = Access.GRADIENTS


@dataclass(frozen=True, kw_only=True)
class Control(Sound):
    """A control, which may know nothing of the query and look at the other queries."""

    name = "passes-as-control"
    control = True

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return -scores + scores.mean(axis=0)


@dataclass(frozen=True, kw_only=True)
class OfPrompts(Sound):
    """Sees prompts alone, so that images of one concept tie."""

    name = "passes-by-prompt"

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        return Scores.of(queries, study.train, [[float(p == q) for p in study.train.prompts] for q in queries.prompts])


@dataclass(frozen=True, kw_only=True)
class Slow(Sound):
    """Takes its time, and asks to be checked with less of it."""

    name = "passes-with-fewer"
    checked_with = {"rounds": 2}
    rounds: int = 50

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return scores + 1e-3 * self.rounds


@dataclass(frozen=True, kw_only=True)
class LearnsNothing(Sound):
    """Learns a shift of its scores, which ranks nothing otherwise."""

    name = "learning-of-nothing"
    steps: int = 3

    def untrained(self) -> LearnsNothing:
        return replace(self, steps=0)

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return scores + self.steps


@dataclass(frozen=True, kw_only=True)
class DrawsNothing(Sound):
    """Says that it is stochastic, and draws nothing that counts."""

    name = "learning-of-chance"
    stochastic = True

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        return scores * (1 + 1e-3 * study.seed)


@dataclass(frozen=True, kw_only=True)
class Learns(Sound):
    """What it learns and draws changes its ranks."""

    name = "passes-learns"
    stochastic = True
    steps: int = 3

    def untrained(self) -> Learns:
        return replace(self, steps=0)

    def change(self, scores: np.ndarray, study: Study, state: State) -> np.ndarray:
        order = np.argsort(study.train.ids).argsort()
        return scores + 0.2 * self.steps * np.sin(order * (1 + study.seed))
