"""What a method cost, from what its steps noted: shared features are counted in full for each method that reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from attribench.attribution.reading import COST
from attribench.engine.steps import Step
from attribench.run.prepared import MethodSteps, Prepared


def costs(prepared: Prepared, entry: MethodSteps) -> dict[str, Any]:
    """Means over studies and seeds: seconds to fit, seconds a query, bytes a training image, seconds of further
    trainings; and the peak memory of all."""
    fit, query, stored, trained, peaks = [], [], [], [], []
    for run in entry.runs:
        fitting = _noted(prepared, [run.fit, *run.features], "state")
        learning = _noted(prepared, run.learned_features, "state")  # nothing to be kept for scores
        scoring = [*_noted(prepared, [run.score], "scores"), *_noted(prepared, run.query_features, "state")]
        fit.append(sum(cost["seconds"] for cost in [*fitting, *learning]))
        query.append(sum(cost["seconds"] for cost in scoring) / len(run.plan.roles("query")))
        stored.append(sum(cost["bytes"] for cost in fitting) / len(run.plan.rows))
        trained.append(sum(prepared.store.manifest(s.keys["weights"])["cost"]["seconds"] for s in run.trainings))
        peaks += [cost["peak_bytes"] for cost in [*fitting, *learning, *scoring]]
    return {
        "fit_seconds": float(np.mean(fit)),
        "query_seconds": float(np.mean(query)),
        "peak_bytes": int(max(peaks)),
        "bytes_per_train_image": float(np.mean(stored)),
        "extra_training_seconds": float(np.mean(trained)),
    }


def n_models(entry: MethodSteps) -> int:
    """How many models the method, or the features that it names, read of each study."""
    return max(reader.ensemble().n_models for reader in (entry.method, *entry.method.features()))


def made_on(prepared: Prepared, entry: MethodSteps) -> str:
    """The device that the scores were made on, maybe by an earlier run."""
    keys = [run.score.keys["scores"] for run in entry.runs]
    made = {prepared.store.manifest(key)["device"] for key in keys if prepared.store.has(key)}
    return " and ".join(sorted(made)) or prepared.device


def _noted(prepared: Prepared, steps: Sequence[Step], output: str) -> list[dict[str, float]]:
    return [json.loads((prepared.store.path(step.keys[output]) / COST).read_text()) for step in steps]
