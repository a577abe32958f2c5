"""AbC with heads that are trained inside the study that they are applied to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import numpy as np
import torch

from attribench import encoders
from attribench.errors import MethodError
from attribench.interface import Access, Edition, Queries, Scores, State, Study

from ..features import NearestEncoded, best_version
from . import Output
from .calibrator import Calibrator
from .heads import Shape, drawn_heads
from .training import Group, Schedule, train_heads


@dataclass(frozen=True, kw_only=True)
class AbcStudy(NearestEncoded):
    """AbC whose heads learn from the study's own monitored generations; each concept is a model of its own.

    Not in Wang et al. (ICCV 2023), whose heads learn from other models than those they are applied to: here a pair is a
    generation for a prompt with one modifier, and a training image whose prompt has the same. For studies of several
    concepts; of one alone there are no negatives, and the heads stay the identity. Needs the monitored generations; one
    pass of the encoder over each picture and seconds of training.
    """

    name: ClassVar[str] = "abc-study"
    needs: ClassVar[Access] = Access.TRAINING
    stochastic: ClassVar[bool] = True
    by_edition: ClassVar[Mapping[Edition, str]] = encoders.CLIP

    shape: Shape = "linear"
    """The published shapes: a linear map, a weight per feature ("channel"), or two layers ("mlp")."""
    temperature: float = 0.5
    orthogonality: float = 1.0
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    output: Output = "similarity"
    """As for `abc`; the calibrator learns from the same pairs."""

    def assets(self) -> str:
        return encoders.fingerprint(self.encoder, self.checkpoint)

    def untrained(self) -> Self:
        return replace(self, epochs=0)

    def fit(self, study: Study, state: State) -> None:
        train = torch.from_numpy(np.array(study.features(self.pictures)["features"][0]))
        generations = study.generations
        made = torch.from_numpy(np.array(study.features(self.pictures, generations)["features"][0]))
        modifiers = [modifier[0] if len(modifier) == 1 else None for modifier in generations.modifiers]
        trained, prompts = set(study.trained_rows), study.train.prompts
        belongs = {
            modifier: torch.tensor([modifier in prompt and row in trained for row, prompt in enumerate(prompts)])
            for modifier in sorted({*modifiers} - {None})
        }
        if not any(rows.any() for rows in belongs.values()):
            raise MethodError(f"{self.name} finds no generation whose prompt has one modifier of a training prompt; take abc")
        groups = [
            Group(train[by_id(study.train.ids, rows.tolist())], made[by_id(generations.ids, [m == modifier for m in modifiers])])
            for modifier, rows in belongs.items()
            if rows.any()
        ]
        heads = drawn_heads(self.shape, train.shape[1], study.seed)
        schedule = Schedule(**{field.name: getattr(self, field.name) for field in fields(Schedule)})
        state["losses"] = np.array(train_heads(heads, groups, schedule, study.seed))
        for name, value in heads.state_dict().items():
            state[name] = value
        judged = [k for k, m in enumerate(modifiers) if m is not None and belongs[m].any()]
        calibrator = Calibrator.fit(
            heads.eval().similarity(made[judged], train), torch.stack([belongs[modifiers[k]] for k in judged])
        )
        state["calibrator"] = np.array([calibrator.inv_tau, calibrator.bias])

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        train = study.features(self.pictures)["features"]
        own = torch.from_numpy(np.array(study.features(self.pictures, queries)["features"][0]))
        heads = drawn_heads(self.shape, own.shape[1], study.seed)
        heads.load_state_dict({name: torch.from_numpy(np.array(state[name])) for name in heads.state_dict()})
        similarities = best_version(heads.eval().similarity, own, train)
        if self.output == "influence":
            influence = Calibrator(*state["calibrator"].tolist()).influence(torch.from_numpy(similarities))
            return Scores.of(queries, study.train, influence)
        return Scores.of(queries, study.train, similarities)


def by_id(ids: Sequence[str], chosen: Sequence[bool]) -> list[int]:
    """The rows that are chosen, in the order of their ids: what is drawn from them does not depend on their places."""
    return sorted((row for row, is_chosen in enumerate(chosen) if is_chosen), key=lambda row: ids[row])
