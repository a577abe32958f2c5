"""The truth of a run in open files, to look at and to compute with: truth/<study>-<role>.safetensors.

    relevant        [Q, N] uint8        whether the training image shows a concept of the query's prompt
    table/<name>    [Q, N] float64      attributions of the queries from elsewhere ("table": columns of MONTRAGE's M)
    masks           [M, N] uint8        which images each subset holds that a model was retrained on
    seeds           [R] int64           of these trainings
    losses          [Q, M, R] float64   of each query under each model
    full            [Q] float64         under the model that is attributed
    squared_errors  [Q, M, R] float64   of the query generated again, against itself; similarities: by an encoder
    drawn           [M] uint8           whether the subset was drawn at random, where some were and some were not

A protocol leaves out what its metrics do not need. The metadata name the queries and the training images, and where
models were retrained the seed of the attributed model, how a loss is taken, and the keys of the weights and pictures,
which are made of all that they depend on; all JSON. The truth of dev queries is written where models were retrained for
it. What a machine needs to score further methods without retraining is another file: see `truth_file`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from attribench.errors import StoreError
from attribench.interface import Role
from attribench.measurement import Retrained, Truth
from attribench.results.values import Outcomes, is_trained, truth_of
from attribench.results.whole_file import whole_file
from attribench.study.plan import StudyPlan

if TYPE_CHECKING:
    from attribench.job import Prepared

FOLDER = "truth"
TABLE = "table/"
OPTIONAL = ("squared_errors", "similarities", "drawn")
KNOWN = {
    Truth: ("query_ids", "train_ids", "relevant", "tables", "retrained"),
    Retrained: ("masks", "seeds", "losses", "full", "own_seed", *OPTIONAL),
}
"""What `arrays_of` writes; a field that is added to the classes must find its place here."""


def file_name(study: str, role: Role = "query") -> str:
    """The file of a study, below the run folder."""
    return f"{FOLDER}/{study}-{role}.safetensors"


def write_truths(prepared: Prepared, outcomes: Outcomes) -> None:
    """One file for each study and role whose truth is known. Raises StoreError if one cannot be written."""
    from safetensors.numpy import save_file

    for plan in (plan for plan in prepared.plans if is_trained(prepared, plan, outcomes)):
        for role in ("query", "fit"):
            taken = prepared.truths[plan.id].get(role)
            if (taken is None and role == "fit") or not all(_done(step, outcomes) for step in (taken.steps if taken else ())):
                continue
            arrays, about = arrays_of(truth_of(prepared, plan, role))
            if taken is not None:
                about |= _retraining(prepared, plan, taken.request.measure)
            with whole_file(prepared.folder / file_name(plan.id, role)) as path:
                save_file(arrays, path, metadata={name: json.dumps(value) for name, value in about.items()})


def arrays_of(truth: Truth) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a truth's file, and what its metadata say of them. Raises StoreError for what has no place there."""
    for value in (truth, truth.retrained):
        unknown = [f.name for f in fields(value) if f.name not in KNOWN[type(value)]] if value is not None else []
        if unknown and getattr(value, unknown[0]) is not None:
            raise StoreError(f"a truth file has no place for {unknown[0]!r}; give it one in attribench/results/truth_folder.py")
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {"query_ids": list(truth.query_ids), "train_ids": list(truth.train_ids)}
    if truth.relevant is not None:
        arrays["relevant"] = truth.relevant.astype(np.uint8)
    for name, table in truth.tables.items():
        arrays[TABLE + name] = np.asarray(table, dtype=np.float64)
    if truth.retrained is not None:
        known = truth.retrained
        arrays |= {
            "masks": known.masks.astype(np.uint8),
            "seeds": np.array(known.seeds, dtype=np.int64),
            "losses": known.losses,
            "full": known.full,
        }
        optional = {name: getattr(known, name) for name in OPTIONAL if getattr(known, name) is not None}
        arrays |= {name: array.astype(np.uint8) if array.dtype == bool else array for name, array in optional.items()}
        about["own_seed"] = known.own_seed
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, about


def truth_from(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Truth:
    """The inverse of `arrays_of`."""
    retrained = None
    if "losses" in arrays:
        retrained = Retrained(
            masks=arrays["masks"].astype(bool),
            seeds=tuple(arrays["seeds"].tolist()),
            losses=arrays["losses"],
            full=arrays["full"],
            own_seed=about["own_seed"],
            squared_errors=arrays.get("squared_errors"),
            similarities=arrays.get("similarities"),
            drawn=arrays["drawn"].astype(bool) if "drawn" in arrays else None,
        )
    return Truth(
        query_ids=tuple(about["query_ids"]),
        train_ids=tuple(about["train_ids"]),
        relevant=arrays["relevant"].astype(bool) if "relevant" in arrays else None,
        tables={name.removeprefix(TABLE): array for name, array in arrays.items() if name.startswith(TABLE)},
        retrained=retrained,
    )


def _done(step: Any, outcomes: Outcomes) -> bool:
    return step in outcomes and outcomes[step].ok


def _retraining(prepared: Prepared, plan: StudyPlan, measure: Any) -> dict[str, Any]:
    study = prepared.studies[plan.id]
    return {
        "timesteps": measure.timesteps,
        "noise_draws": measure.draws,
        "weights": study.trainings[0].keys["weights"],
        "pictures": study.pictures.keys["pictures"],
    }
