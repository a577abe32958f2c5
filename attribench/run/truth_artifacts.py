"""What the truth of a run consists of: artifacts of its store, and the looks at queries that were asked for by scores.

Of every study the trained weights, the generated pictures, and what was seen of them under each retrained model: losses, and
where pictures are generated again how they deviate, with those of them that a run shows. Which models were retrained the
protocol knows beforehand (the subsets of lds, the random curve of leave-k-out), or the scores of a run decided it; the looks
that they asked for then belong to the truth, since no other run can tell them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pydantic
from pydantic import NonNegativeInt

from attribench.data import Role
from attribench.engine.steps import Step
from attribench.errors import UsageError
from attribench.run.outcomes import score_tables
from attribench.study.generated import picture_name
from attribench.study.plan import StudyPlan
from attribench.study.retrainings import Look, Part
from attribench.study.steps import WEIGHTS
from attribench.study.study_steps import StudySteps
from attribench.truth.losses import LOSSES, TakenLosses
from attribench.truth.regeneration import DEVIATION

if TYPE_CHECKING:
    from attribench.run.prepared import Prepared

PICTURE_LIMIT = 64 * 2**20
SMALL_LIMIT = 16 * 2**20
"""Bytes of a file of numbers or of text."""
WEIGHTS_LIMIT = 2**30
PIXEL_LIMIT = 2**26

ROLES: tuple[Role, ...] = ("query", "fit")
Further = Mapping[tuple[str, Role], Sequence[Look]]
"""Looks that were asked for by scores, by study id and role."""


@dataclass(frozen=True)
class Expected:
    """An artifact that a truth consists of."""

    step: Step
    output: str
    needed: bool
    """Whether a truth without it is refused; what only tuning needs, or only a picture, may be absent."""
    limits: Mapping[str, int]
    """Its files, and how many bytes each may have."""
    check: Callable[[str, bytes], None]
    """Raises ValueError for a file that cannot be what it is called."""

    @property
    def key(self) -> str:
        """In the store."""
        return self.step.keys[self.output]


def expected(prepared: Prepared, further: Further) -> list[Expected]:
    """The artifacts that the truth of a run consists of, with those that only tuning needs.

    Raises UsageError for a protocol that retrains nothing, and for looks that none of its studies can be asked for.
    """
    if strange := {study for study, _ in further} - {plan.id for plan in prepared.plans}:
        raise UsageError(f"it is the truth of {min(strange)!a}, which is no study of this run")
    artifacts = []
    for plan in prepared.plans:
        requests = [prepared.protocol.request(plan, role, further.get((plan.id, role), ())) for role in ROLES]
        study, asked = prepared.studies[plan.id], [request for request in requests if request is not None]
        if not asked:
            raise UsageError(
                f"nothing was retrained for the truth of {prepared.protocol.name} in {plan.id}: there is nothing to exchange"
            )
        random = set(prepared.protocol.shown_at_random(plan).values())
        artifacts += _of_study(study, TakenLosses.of_all(study, asked, prepared.store.has).values(), random)
    return artifacts


def _of_study(study: StudySteps, taken: Iterable[TakenLosses], random: set[Part]) -> list[Expected]:
    """A study's model, its pictures, and all that was seen of them under other models. `random`: models that a run shows."""
    plan, trained = study.plan, study.trainings[0]
    artifacts = [
        Expected(trained, "weights", True, {WEIGHTS: WEIGHTS_LIMIT, "losses.npy": SMALL_LIMIT}, _check_weights),
        Expected(study.pictures, "pictures", True, _pictures(len(plan.cases)) | {"cases.json": SMALL_LIMIT}, _check_picture),
    ]
    for of_role in taken:
        needed = of_role.request.role == "query"
        numbers = [
            *((ref, LOSSES, (len(queries),)) for queries, ref in of_role.full.items()),
            *((ref, LOSSES, (len(look.queries),)) for look, ref in of_role.losses.items()),
            *((ref, DEVIATION, (2, len(look.queries))) for look, ref in of_role.deviations.items()),
        ]
        for ref, file, shape in numbers:
            artifacts.append(Expected(ref.step, ref.output, needed, {file: SMALL_LIMIT}, partial(_check_numbers, shape)))
        for look, ref in of_role.pictures.items():
            if look.queries == (0,) or (0 in look.queries and look.part in random):  # a run shows its first query
                artifacts.append(Expected(ref.step, ref.output, False, _pictures(len(look.queries)), _check_picture))
    return artifacts


def _pictures(count: int) -> dict[str, int]:
    return {picture_name(number): PICTURE_LIMIT for number in range(count)}


# ------------------------------------------------------------------------------- what scores asked for


class _Looks(pydantic.BaseModel):
    """Of one study and role: the sets of rows that are left out, and (number of such a set, seed, queries) of each look."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    study: str
    role: Role
    left_out: list[list[NonNegativeInt]]
    looks: list[tuple[NonNegativeInt, int, list[NonNegativeInt]]]


_ALL_LOOKS = pydantic.TypeAdapter(list[_Looks])


def further_looks(prepared: Prepared) -> Further:
    """The looks that the scores in the store ask for, beyond those that the protocol asks for in any case."""
    found: dict[tuple[str, Role], Sequence[Look]] = {}
    for plan in prepared.plans:
        known = {request.role: set(request.looks) for request in prepared.protocol.retrainings(plan)}
        tables = score_tables(prepared, plan, lambda step: all(map(prepared.store.has, step.keys.values())))
        for request in prepared.protocol.further_retrainings(plan, tables):
            beyond = [look for look in dict.fromkeys(request.looks) if look not in known.get(request.role, ())]
            if beyond:
                found[plan.id, request.role] = beyond
    return found


def looks_to_json(further: Further) -> bytes:
    """The looks as a file holds them."""
    described = []
    for (study, role), looks in further.items():
        numbers = {left_out: n for n, left_out in enumerate(dict.fromkeys(look.part.left_out for look in looks))}
        of_looks = [(numbers[look.part.left_out], look.part.seed, list(look.queries)) for look in looks]
        described.append(_Looks(study=study, role=role, left_out=[list(rows) for rows in numbers], looks=of_looks))
    return _ALL_LOOKS.dump_json(described)


def looks_from_json(data: bytes, prepared: Prepared) -> Further:
    """The looks of a file. Raises ValueError or UsageError for what none of this run's studies can be asked for."""
    plans, found = {plan.id: plan for plan in prepared.plans}, {}
    for of in _ALL_LOOKS.validate_json(data):
        if of.study not in plans:
            raise UsageError(f"it is the truth of {of.study[:80]!a}, which is no study of this run")
        if (of.study, of.role) in found:
            raise ValueError("holds the looks of a study twice")
        found[of.study, of.role] = [_look(of, number, seed, queries, plans[of.study]) for number, seed, queries in of.looks]
    return found


def _look(of: _Looks, number: int, seed: int, queries: Sequence[int], plan: StudyPlan) -> Look:
    n_train, n_queries = len(plan.training.images), len(plan.roles(of.role))
    if number >= len(of.left_out) or not queries or list(queries) != sorted(set(queries)) or queries[-1] >= n_queries:
        raise ValueError("holds a look at queries that are not there")
    part = Part(tuple(of.left_out[number]), seed)
    if len(part.left_out) >= n_train or (part.left_out and part.left_out[-1] >= n_train):
        raise ValueError("holds a look under a model without images that are not there")
    return Look(part, tuple(queries))


# --------------------------------------------------------------------------------------- checking


def _numbers(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _check_weights(name: str, data: bytes) -> None:
    from safetensors.numpy import load

    arrays = load(data).values() if name == WEIGHTS else [_numbers(data)]
    if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in arrays):
        raise ValueError("holds what is no finite float32 number")


def _check_picture(name: str, data: bytes) -> None:
    from PIL import Image

    if name == "cases.json":
        json.loads(data)
        return
    picture = Image.open(io.BytesIO(data), formats=("PNG",))
    if picture.width * picture.height > PIXEL_LIMIT:
        raise ValueError(f"has {picture.width} × {picture.height} pixels, more than any model makes")
    picture.convert("RGB")


def _check_numbers(shape: tuple[int, ...], name: str, data: bytes) -> None:
    found = _numbers(data)
    if found.shape != shape or found.dtype != np.float64 or not np.isfinite(found).all():
        raise ValueError(f"holds {found.dtype} {found.shape}, not {' × '.join(map(str, shape))} finite numbers")
