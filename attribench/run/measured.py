"""Scores of a study held against its truth, as rows with a value per query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attribench.data import Role
from attribench.measurement import Metric, Truth
from attribench.study.plan import StudyPlan


@dataclass(frozen=True)
class Measured:
    """One metric on the queries of one variant, in one study and with one seed of the method."""

    plan: StudyPlan
    seed: int
    variant: str
    metric: Metric
    values: np.ndarray
    """[n_query] float64."""
    scores: np.ndarray
    """[n_query, n_train]"""
    truth: Truth
    """Of the same queries."""


def measured_on(
    plan: StudyPlan,
    seed: int,
    scores: np.ndarray,
    truth: Truth,
    metrics: Callable[[str], Sequence[Metric]],
    role: Role = "query",
) -> Iterator[Measured]:
    """The same of one study and one seed: scores [n_query, n_train] and the truth of all queries of the role."""
    for variant, numbers in by_variant(plan, role).items():
        of_variant, own = truth.of_queries(numbers), scores[numbers]
        for metric in metrics(variant):
            yield Measured(plan, seed, variant, metric, metric.values(own, of_variant), own, of_variant)


def query_rows(method: str, tuning: str, found: Measured) -> Iterator[dict]:
    """The rows of per_query.parquet that one metric gives."""
    truth, metric, regions = found.truth, found.metric, dict(found.plan.regions)
    known = (truth.query_ids, found.values, metric.chance(truth), metric.ceiling(truth))
    for query_id, value, chance, ceiling in zip(*known, strict=True):
        yield {
            "method": method,
            "tuning": tuning,
            "variant": found.variant,
            "metric": metric.name,
            "study": found.plan.id,
            "query_id": query_id,
            "region": str(regions.get(query_id, "")),
            "method_seed": found.seed,
            "value": value,
            "chance": chance,
            "ceiling": ceiling,
        }


def variants_of(plans: Sequence[StudyPlan]) -> list[str]:
    """The variants that any study has queries of, in order."""
    return list(dict.fromkeys(case.variant for plan in plans for case in plan.roles("query")))


def by_variant(plan: StudyPlan, role: Role = "query") -> dict[str, list[int]]:
    """Numbers of the queries of each variant."""
    numbers: dict[str, list[int]] = {}
    for number, case in enumerate(plan.roles(role)):
        numbers.setdefault(case.variant, []).append(number)
    return numbers
