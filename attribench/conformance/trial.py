"""One fit of a method in the world, and what it scores: behind the access that it declares, in a folder of its own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from attribench.attribution.granted import GrantedStudy, Materials
from attribench.attribution.reading import Reader, features_name, reader_name
from attribench.attribution.shared import SharedStudy
from attribench.attribution.steps import of_generations, of_queries
from attribench.conformance.world import Stage
from attribench.data import GenerationCase, Queries
from attribench.diffusion.model import DiffusionModel
from attribench.files.state import State
from attribench.interface import Access, AttributionMethod, Features, Scores, Study
from attribench.study.generated import generated

METHOD_SEED = 4


@dataclass(eq=False)
class Trial:
    """A method with features and state below `folder`; `order` permutes the training images that it sees."""

    stage: Stage
    method: AttributionMethod
    folder: Path
    order: Sequence[int] | None = None
    seed: int = METHOD_SEED
    """Of a method that draws random numbers."""
    randomness: int = 1
    """Where the global random numbers of Python, numpy and torch begin, each time that it fits or scores."""
    used: set[Access] = field(default_factory=set, init=False)
    """What it and its features asked for until now."""
    _asked: int = field(default=0, init=False)

    def fit(self) -> None:
        """Read the features of the training images, then fit; after a kill in the same folder, go on."""
        with _global_randomness(self.randomness):
            for features in dict.fromkeys(self.method.features()):
                study = self._base(features) if features.of_base() else self._study(features)
                features.of_training(study, State(self._folder(features)))
            if learned := of_generations(self.method):
                materials = self.stage.materials(self.method, self.order)
                pictures = generated(materials.plan, materials.generations, "fit")
                for features in learned:
                    features.of_queries(self._study(features, pictures), State(self._folder(features, "learned-")), pictures)
            self.method.fit(self._study(self.method), State(self.folder / "state"))

    def score(self, cases: Sequence[GenerationCase]) -> list[Scores]:
        """The scores of these queries, asked for in one call: of every candidate, or of the method alone."""
        self._asked += 1
        queries = self.stage.pictures_of(cases)
        with _global_randomness(self.randomness):
            for features in of_queries(dict.fromkeys(self.method.features())):
                state = State(self._folder(features, f"query-{self._asked}-"))
                features.of_queries(self._study(features, queries), state, queries)
            study, state = self._study(self.method, queries), State(self.folder / "state")
            if self.method.candidates():
                return self.method.score_candidates(study, state, queries)
            return [self.method.score(study, state, queries)]

    @property
    def kept(self) -> int:
        """Files that fitting left."""
        return sum(1 for path in self.folder.rglob("*") if path.is_file())

    # --------------------------------------------------------------------------------- what it sees

    def _study(self, reader: Reader, queries: Queries | None = None) -> Study:
        seed, materials = 0, self.stage.materials(reader, self.order)
        if isinstance(reader, AttributionMethod):
            seed = self.seed if reader.stochastic else 0
            materials.features = {features: self._folder(features) for features in reader.features()}
            if queries is None:
                materials.query_features = {f: self._folder(f, "learned-") for f in of_generations(reader)}
            else:
                asked = f"query-{self._asked}-"
                materials.query_features = {f: self._folder(f, asked) for f in of_queries(reader.features())}
        materials.queries = queries
        return _NotedStudy(self.used, materials, reader.needs, reader_name(reader), seed)

    def _base(self, features: Features) -> Study:
        world, plan = self.stage.world, self.stage.plan
        return SharedStudy(plan.base, world.dataset, plan.edition, "cpu", reader_name(features), base_model=world.model)

    def _folder(self, features: Features, of: str = "") -> Path:
        """Where features are kept: of the training images, or of the pictures that `of` tells from these."""
        return self.folder / f"{of}{features_name(features)}"


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
def _global_randomness(seed: int) -> Iterator[None]:
    """Python's, numpy's and torch's global random numbers begin at `seed` inside, and go on as they were outside."""
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
