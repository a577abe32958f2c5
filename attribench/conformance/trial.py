"""One fit of a method in the world, and what it scores: behind the access that it declares, in a folder of its own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attribench.attribution.granted import GrantedStudy, Materials
from attribench.attribution.reading import features_name, reader_name
from attribench.attribution.shared import SharedStudy
from attribench.attribution.steps import of_generations, of_queries
from attribench.conformance.world import Reader, Stage
from attribench.data import GenerationCase, Queries
from attribench.files.state import State
from attribench.interface import Access, AttributionMethod, Features, Scores, Study
from attribench.study.generated import generated

if TYPE_CHECKING:
    from attribench.diffusion.model import DiffusionModel

METHOD_SEED = 4
"""Of a method that draws random numbers."""


class Trial:
    """A method with features and state below `folder`; `order` permutes the training images that it sees."""

    def __init__(self, stage: Stage, method: AttributionMethod, folder: Path, order: Sequence[int] | None = None) -> None:
        self.stage, self.method, self.folder, self.order = stage, method, folder, order
        self.used: set[Access] = set()
        """What it and its features asked for until now."""
        self._asked = 0

    def fit(self) -> None:
        """Read the features of the training images, then fit; after a kill in the same folder, go on."""
        for features in dict.fromkeys(self.method.features()):
            state = State(self._training_features(features))
            features.of_training(self._base(features) if features.of_base() else self._study(features, seed=0), state)
        if learned := of_generations(self.method):
            materials = self.stage.materials(self.method, self.order)
            pictures = generated(materials.plan, materials.generations, "fit")
            for features in learned:
                features.of_queries(self._study(features, pictures, seed=0), State(self._learned_features(features)), pictures)
        self.method.fit(self._study(self.method), State(self.folder / "state"))

    def score(self, cases: Sequence[GenerationCase]) -> list[Scores]:
        """The scores of these queries, asked for in one call: of every candidate, or of the method alone."""
        self._asked += 1
        queries = self.stage.pictures_of(cases)
        for features in of_queries(dict.fromkeys(self.method.features())):
            features.of_queries(self._study(features, queries, seed=0), State(self._query_features(features)), queries)
        study, state = self._study(self.method, queries), State(self.folder / "state")
        if self.method.candidates():
            return self.method.score_candidates(study, state, queries)
        return [self.method.score(study, state, queries)]

    def values(self, cases: Sequence[GenerationCase]) -> np.ndarray:
        """The same as one array [candidates, n_query, n_train]."""
        return np.stack([scores.values for scores in self.score(cases)])

    @property
    def kept(self) -> int:
        """Files that fitting left."""
        return sum(1 for path in self.folder.rglob("*") if path.is_file())

    # --------------------------------------------------------------------------------- what it sees

    def _study(self, reader: Reader, queries: Queries | None = None, seed: int = METHOD_SEED) -> Study:
        materials = self.stage.materials(reader, self.order)
        if isinstance(reader, AttributionMethod):
            named = dict.fromkeys(reader.features())
            materials.features = {features: self._training_features(features) for features in named}
            if queries is None:
                materials.query_features = {features: self._learned_features(features) for features in of_generations(reader)}
            else:
                materials.query_features = {features: self._query_features(features) for features in of_queries(named)}
        materials.queries = queries
        return _NotedStudy(self.used, materials, reader.needs, reader_name(reader), seed if reader_draws(reader) else 0)

    def _base(self, features: Features) -> Study:
        world = self.stage.world
        plan, name = self.stage.plan, reader_name(features)
        return SharedStudy(plan.base, world.dataset, plan.edition, "cpu", name, base_model=world.model)

    def _training_features(self, features: Features) -> Path:
        return self.folder / features_name(features)

    def _learned_features(self, features: Features) -> Path:
        return self.folder / f"learned-{features_name(features)}"

    def _query_features(self, features: Features) -> Path:
        return self.folder / f"query-{self._asked}-{features_name(features)}"


def reader_draws(reader: Reader) -> bool:
    """Whether it is given a seed of its own."""
    return isinstance(reader, AttributionMethod) and reader.stochastic


class _NotedStudy(GrantedStudy):
    """A study that notes what it was asked for."""

    def __init__(self, used: set[Access], materials: Materials, access: Access, reader: str, seed: int) -> None:
        super().__init__(materials, access, reader, seed, "cpu")
        self._used = used

    def _require(self, access: Access, what: str) -> None:
        super()._require(access, what)
        self._used.add(access)

    @property
    def models(self) -> Iterable[DiffusionModel]:
        found = super().models
        self._used.add(Access.CHECKPOINTS if self._materials.ensemble.n_models > 1 else Access.GRADIENTS)
        return found


@contextmanager
def global_randomness(seed: int) -> Iterator[None]:
    """Python's, numpy's and torch's global random numbers begin at `seed` inside, and go on as they were outside."""
    import torch

    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.random.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])
