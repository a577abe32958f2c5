"""The losses of a run's retrained models in open files, to look at and to compute with: truth/<study>-<role>.safetensors.

    masks       [M, N] uint8        which images each subset holds
    seeds       [R] int64           of the trainings
    losses      [Q, M, R] float64   of each query under each model
    full        [Q] float64         under the model that is attributed

The metadata name the queries, the training images, the seed of the attributed model and the key of its weights and
pictures, which are made of all that they depend on; all JSON. What a machine needs to score further methods without
retraining is another file: see `truth_file`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from attribench.results.values import Outcomes, is_trained
from attribench.results.whole_file import whole_file

if TYPE_CHECKING:
    from attribench.job import Prepared


def write_retrained(prepared: Prepared, outcomes: Outcomes) -> None:
    """One file for each study and role whose losses are all there. Raises StoreError if one cannot be written."""
    from safetensors.numpy import save_file

    trained = [plan for plan in prepared.plans if is_trained(prepared, plan, outcomes)]
    for plan in trained:
        study = prepared.studies[plan.id]
        for role, taken in prepared.truths[plan.id].items():
            if not all(step in outcomes and outcomes[step].ok for step in taken.steps):
                continue
            known = taken.retrained(prepared.store.path)
            arrays = {
                "masks": known.masks.astype(np.uint8),
                "seeds": np.array(known.seeds, dtype=np.int64),
                "losses": known.losses,
                "full": known.full,
            }
            about = {
                "query_ids": [case.id for case in plan.roles(role)],
                "train_ids": [image.id for image in plan.training.images],
                "own_seed": known.own_seed,
                "timesteps": taken.request.measure.timesteps,
                "noise_draws": taken.request.measure.draws,
                "weights": study.trainings[0].keys["weights"],
                "pictures": study.pictures.keys["pictures"],
            }
            with whole_file(prepared.folder / "truth" / f"{plan.id}-{role}.safetensors") as path:
                save_file(
                    {name: np.ascontiguousarray(array) for name, array in arrays.items()},
                    path,
                    metadata={name: json.dumps(value) for name, value in about.items()},
                )
