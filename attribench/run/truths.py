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

from attribench.data import Role
from attribench.files.whole import whole_file
from attribench.measurement.arrays import arrays_of
from attribench.run.outcomes import Outcomes, is_trained, truth_of
from attribench.run.prepared import Prepared

FOLDER = "truth"


def file_name(study: str, role: Role = "query") -> str:
    """The file of a study, below the run folder."""
    return f"{FOLDER}/{study}-{role}.safetensors"


def write_truths(prepared: Prepared, outcomes: Outcomes) -> None:
    """One file for each study and role whose truth is known. Raises StoreError if one cannot be written."""
    from safetensors.numpy import save_file

    for plan in (plan for plan in prepared.plans if is_trained(prepared, plan, outcomes)):
        study = prepared.studies[plan.id]
        for role in ("query", "fit"):
            taken = prepared.truths[plan.id].get(role)
            if taken is None and role == "fit":
                continue
            if taken is not None and not all(step in outcomes and outcomes[step].ok for step in taken.steps):
                continue
            arrays, about = arrays_of(truth_of(prepared, plan, role))
            if taken is not None:
                about |= {
                    "timesteps": taken.request.measure.timesteps,
                    "noise_draws": taken.request.measure.draws,
                    "weights": study.trainings[0].keys["weights"],
                    "pictures": study.pictures.keys["pictures"],
                }
            with whole_file(prepared.folder / file_name(plan.id, role)) as path:
                save_file(arrays, path, metadata={name: json.dumps(value) for name, value in about.items()})
