"""The truth about a study's queries. No method ever sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from attribench.errors import MethodError


@dataclass(frozen=True)
class Retrained:
    """The losses of some queries under models that were trained on parts of the training images.

    Arrays over the queries (Q), the subsets (M), the seeds of each (R) and the training images (N). Lower loss =
    the model makes that query more readily.
    """

    masks: np.ndarray
    """[M, N] bool: whether the subset holds the image. No two rows are equal."""
    seeds: tuple[int, ...]
    """[R] of the trainings."""
    losses: np.ndarray
    """[Q, M, R] float64: mean over timesteps and noise draws, the same for every model. NaN where the protocol did not ask
    for that query under that model."""
    full: np.ndarray
    """[Q] float64: the loss under the model that is attributed, which saw all images."""
    own_seed: int
    """Of the training of that model; it may be one of `seeds`."""
    squared_errors: np.ndarray | None = None
    """[Q, M, R] float64: of the picture that a model makes from the query's noise and prompt, against the query's own;
    mean over pixels in [0, 1]. None where no picture was generated again, NaN like `losses`."""
    similarities: np.ndarray | None = None
    """[Q, M, R] float64: the cosine of the two pictures' features, by an encoder of the protocol's."""
    drawn: np.ndarray | None = None
    """[M] bool: the subset was drawn at random, whatever the scores. None where no subset is told apart."""

    def subset(self, mask: np.ndarray) -> int:
        """The number of the subset that holds just the images of `mask` [N]. Raises MethodError if it was not trained."""
        found = np.flatnonzero((self.masks == np.asarray(mask, dtype=bool)).all(axis=1))
        if not len(found):
            raise MethodError(
                f"no model was retrained on the images {np.flatnonzero(mask).tolist()}; the protocol must ask for the subset"
            )
        return int(found[0])

    def of_subsets(self, numbers: Sequence[int] | np.ndarray) -> Retrained:
        """The same of some subsets, by number."""
        return replace(
            self, masks=self.masks[numbers], drawn=None if self.drawn is None else self.drawn[numbers],
            **{name: of[:, numbers] for name, of in self._by_query().items()},
        )  # fmt: skip

    def of_queries(self, numbers: Sequence[int] | np.ndarray) -> Retrained:
        """The same of some queries, by number."""
        return replace(self, full=self.full[numbers], **{name: of[numbers] for name, of in self._by_query().items()})

    def _by_query(self) -> dict[str, Any]:
        """The arrays [Q, M, R] that there are."""
        arrays = {name: getattr(self, name) for name in ("losses", "squared_errors", "similarities")}
        return {name: array for name, array in arrays.items() if array is not None}


@dataclass(frozen=True)
class Truth:
    """What is known of the queries of one study, with the ids of both axes of every [n_query, n_train] array.

    A protocol gives what its metrics need and leaves out the rest.
    """

    query_ids: tuple[str, ...]
    train_ids: tuple[str, ...]
    relevant: np.ndarray | None = None
    """[n_query, n_train] bool: the training image shows a concept of the query's prompt."""
    tables: Mapping[str, np.ndarray] = field(default_factory=dict)
    """[n_query, n_train] float: attributions of these queries from elsewhere, by name ("table": columns of MONTRAGE's M)."""
    retrained: Retrained | None = None
    """What became of these queries where some training images were left out."""
    concepts: np.ndarray | None = None
    """[n_train] int: the number of the concept that each training image shows, where all show one."""

    def of_queries(self, numbers: Sequence[int]) -> Truth:
        """The truth of some queries, by number."""
        return replace(
            self,
            query_ids=tuple(self.query_ids[i] for i in numbers),
            relevant=None if self.relevant is None else self.relevant[numbers],
            tables={name: table[numbers] for name, table in self.tables.items()},
            retrained=None if self.retrained is None else self.retrained.of_queries(numbers),
        )
