"""The contract of a method, the study as a method sees it, and the scores that it gives: all that a method author needs.

The plain values that are named here (`Queries`, `TrainingImages`, `State`, …) are imported from this page too; they are
written in `attribench.data` and `attribench.files.state`, the contract of observers in `attribench.diffusion.observing`.
Data sets have a page of their own (`attribench.data`), as have truths and metrics (`attribench.measurement`). In short:

    @dataclass(frozen=True, kw_only=True)
    class PixelCosine(AttributionMethod):
        '''Cosine between flattened pictures.'''
        name = "pixel"
        needs = Access.FEATURES
        size: int = 32                                  # a field is a hyper-parameter, and the identity

        def fit(self, study, state):                    # see the training images once, keep arrays
            state["train"] = flatten(study.train, self.size)

        def score(self, study, state, queries):         # [n_query, n_train], higher = more influential
            return Scores.of(queries, study.train, flatten(queries, self.size) @ state["train"].T)

Data sets know no model, protocols know no method, methods know no data set and no truth. Nothing here
imports torch.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from attribench.data import Edition, Pictures, Queries, TrainingImages, Trajectory
from attribench.diffusion.observing import TrainingObserver, Watch
from attribench.errors import MethodError
from attribench.files.state import State

if TYPE_CHECKING:
    from attribench.diffusion.model import DiffusionModel

__all__ = [
    "Access", "AttributionMethod", "Edition", "Ensemble", "Features", "Pictures", "Queries", "Scores", "State", "Study",
    "TrainingImages", "TrainingObserver", "Trajectory", "Watch",
]  # fmt: skip

# ---------------------------------------------------------------------------------- what may be seen


class Access(enum.Flag):
    """What a method may touch. The engine grants just that."""

    FEATURES = 0
    """Images, prompts and captions: always granted."""
    GRADIENTS = enum.auto()
    """The trained model."""
    CHECKPOINTS = enum.auto()
    """Models along the way, or an ensemble."""
    TRAINING = enum.auto()
    """What its observers saw during training, and the generations of the monitored prompts."""
    TRAJECTORY = enum.auto()
    """How each query came about: the predicted clean latents along its sampling."""


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Which models a method reads: `checkpoints` of each of `seeds` trainings on the same images.

    Checkpoints are evenly spaced over a training, the last one at its end. Further seeds are trained for this
    alone, and the record says what that cost.
    """

    checkpoints: int = 1
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.checkpoints < 1 or self.seeds < 1:
            raise MethodError(f"{self} is no ensemble: ask for at least one checkpoint of at least one seed")

    @property
    def n_models(self) -> int:
        return self.checkpoints * self.seeds


class Study(ABC):
    """One trained model, its training images and its monitored generations, as far as a method may see them."""

    id: str
    edition: Edition
    seed: int
    """The seed of a method that draws random numbers. Nothing else may be drawn from."""
    device: str
    flips: bool
    """Whether training used horizontal flips: then each training image is scored in both versions."""
    train: TrainingImages

    @property
    def trained_rows(self) -> tuple[int, ...]:
        """The rows of `train` that the model was trained on, in the order in which observers count them.

        All of them, unless distractors are scored beside them. Needs Access.TRAINING where that is not so.
        """
        return tuple(range(len(self.train)))

    @property
    @abstractmethod
    def prompts(self) -> tuple[str, ...]:
        """Every prompt that the trained model generates a picture for, each once, sorted. Needs Access.TRAINING."""

    @property
    @abstractmethod
    def model(self) -> DiffusionModel:
        """The trained model. Needs Access.GRADIENTS."""

    @property
    @abstractmethod
    def models(self) -> Iterable[DiffusionModel]:
        """The ensemble that was asked for: seed by seed, checkpoints from first to last. Needs Access.CHECKPOINTS;
        for an ensemble of one model Access.GRADIENTS is enough.

        One model at a time is in memory: each is valid until the next is asked for. The last checkpoint of the
        first seed is the trained model itself, and alone the ensemble of a method that asks for none.
        """

    @abstractmethod
    def features(self, features: Features, queries: Queries | None = None) -> Mapping[str, np.ndarray]:
        """What `features` kept of the training images, or of `queries`.

        These are, in `score`, the queries that are being scored. In `fit` they are `generations`, for features that read
        pictures alone. Only for what `AttributionMethod.features()` names.
        """

    @abstractmethod
    def trajectory(self, query_id: str) -> Trajectory:
        """How a query was sampled that is being scored or read. Needs Access.TRAJECTORY."""

    @property
    @abstractmethod
    def generations(self) -> Queries:
        """Pictures generated for the monitored prompts, to learn from. Needs Access.TRAINING."""

    @abstractmethod
    def observation(self, observer: TrainingObserver) -> Mapping[str, np.ndarray]:
        """The arrays that this observer kept. Needs Access.TRAINING."""


# ------------------------------------------------------------------------------------------ methods


@dataclass(frozen=True)
class Scores:
    """Attribution scores: values [n_query, n_train] float32 with the ids of both axes.

    Higher = more influential: removing that image hurts the query.
    """

    values: np.ndarray
    query_ids: tuple[str, ...]
    train_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float32)
        expected = (len(self.query_ids), len(self.train_ids))
        if values.shape != expected:
            raise MethodError(f"scores have shape {values.shape}, expected [n_query, n_train] = {expected}")
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise MethodError(f"{bad} of {values.size} scores are NaN or infinite; a method must return finite scores")
        object.__setattr__(self, "values", values)

    @classmethod
    def of(cls, queries: Queries, train: TrainingImages, values: Any) -> Self:
        """Scores [n_query, n_train] from an array or tensor in the order of `queries` and `train`."""
        array = values.detach().cpu().numpy() if hasattr(values, "detach") else values
        return cls(np.asarray(array), queries.ids, train.ids)


@dataclass(frozen=True, kw_only=True)
class Features(ABC):
    """What several methods may share of a study: arrays made once for its training images, and once for queries.

    The fields are the identity, as for a method. Each method that names the same features gets the same arrays,
    and what they cost is counted in full for each. `study.seed` is 0 here, since methods of any seed share the
    arrays: a seed that matters is a field. Features cannot ask for other features.
    """

    name: ClassVar[str] = ""
    """What the progress display calls them ("read <name>"); the class's own name if empty."""
    needs: ClassVar[Access] = Access.FEATURES
    images_axis: ClassVar[Mapping[str, int]] = {}
    """Of arrays in which a training image's part is made of its picture alone (and of `study.flips`): the axis of the
    training images, by the array's name. `study.features` then holds these arrays alone, and the pictures that all studies
    have in their pools are read once for all of them."""
    version: ClassVar[int] = 1
    """Raise it when the same fields come to mean other arrays."""

    def ensemble(self) -> Ensemble:
        """The models that are read. More than one needs Access.CHECKPOINTS, one that or Access.GRADIENTS."""
        return Ensemble()

    def of_base(self) -> bool:
        """Whether `of_training` reads the base model with pictures that no study is about, once for all studies.

        `study` is then that model with those pictures, and nothing is read of queries.
        """
        return False

    def assets(self) -> str:
        """What the arrays depend on beyond the fields: a hash of weights that a field names, say."""
        return ""

    @abstractmethod
    def of_training(self, study: Study, state: State) -> None:
        """Keep arrays of `study.train` in `state`. After a kill it is called again with what was written before."""

    @abstractmethod
    def of_queries(self, study: Study, state: State, queries: Queries) -> None:
        """Keep arrays of `queries` in `state`. After a kill it is called again with what was written before."""


@dataclass(frozen=True, kw_only=True)
class AttributionMethod(ABC):
    """A way to score training images for a generated one. Fields = hyper-parameters = identity.

    The docstring's first line says what it is, then the paper, what it needs and what it costs.
    """

    name: ClassVar[str]
    needs: ClassVar[Access] = Access.FEATURES
    stochastic: ClassVar[bool] = False
    """True if `study.seed` matters; the protocol then averages its metrics over several seeds."""
    control: ClassVar[bool] = False
    """True for a method that is there to be beaten, or to show the value of chance."""
    on_request: ClassVar[bool] = False
    """Of a control: whether it runs only where it is asked for. The others run in every run."""
    takes_regions: ClassVar[bool] = False
    """Whether a query with a box (`Queries.regions`) is attributed by that box alone, or never looked at. A method that
    does neither is not run where queries have boxes."""
    at_chance: ClassVar[bool] = False
    """True for a control that draws anew for every query, so that its expected value is that of chance."""
    fewest_queries: ClassVar[int] = 1
    """Of a study that has fewer, it has nothing to say and is not run."""
    memory: ClassVar[int] = 2**30
    """Bytes that fitting and scoring take beyond the trained model, at the counts of a mini preset; `attribench check`
    measures them."""
    checked_with: ClassVar[Mapping[str, int]] = {}
    """Counts, smaller than its own, that `attribench check` takes for a method that is slow with its own; it says so."""
    version: ClassVar[int] = 1
    """Raise it when the same hyper-parameters come to mean other scores; old results are then not reused."""

    def resolve(self, edition: Edition) -> Self:
        """This method with every "auto" field made concrete for an edition; what the record shows."""
        return self

    def skip(self, edition: Edition) -> str | None:
        """Why it cannot run here, or None. Asked before anything is trained."""
        return None

    def skip_models(self, *, customized: bool) -> str | None:
        """Why it cannot attribute the pictures of models that are customized, or else trained from scratch; or None.

        Asked before anything is trained, after `resolve`.
        """
        return None

    def observers(self, prompts: Sequence[str]) -> tuple[TrainingObserver, ...]:
        """What to watch training with. `prompts`: every prompt that a picture will be generated for, sorted."""
        return ()

    def assets(self) -> str:
        """What the scores depend on beyond the fields: a hash of weights that a field names, say."""
        return ""

    def features(self) -> tuple[Features, ...]:
        """What it reads of training images and queries that other methods may read too (`study.features`)."""
        return ()

    def ensemble(self) -> Ensemble:
        """The models that `fit` and `score` read themselves. More than one needs Access.CHECKPOINTS."""
        return Ensemble()

    def candidates(self) -> tuple[Self, ...]:
        """This method with each value of what is left to tune, or nothing if all is given.

        The bench picks one by the dev queries, never by the queries that it reports on. `fit` is called on the
        method itself and serves all candidates, as do its features and its ensemble. Asked after `resolve`.
        """
        return ()

    def default_candidate(self) -> int:
        """Which candidate stands for not tuning; shown beside the tuned one."""
        return 0

    def score_candidates(self, study: Study, state: State, queries: Queries) -> list[Scores]:
        """The scores of every candidate, in their order. Override where one pass serves them all."""
        return [candidate.score(study, state, queries) for candidate in self.candidates()]

    def untrained(self) -> Self | None:
        """This method before it has learned anything, to be held against it; None for one that learns nothing.

        `attribench check` fails a method that ranks as it does untrained: its training changes nothing.
        """
        return None

    def fit(self, study: Study, state: State) -> None:  # noqa: B027
        """Prepare for queries; keep arrays in `state`. What it costs is timed as `fit_seconds`."""

    @abstractmethod
    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        """Scores [n_query, n_train] for queries of this study. Timed as `query_seconds`."""
