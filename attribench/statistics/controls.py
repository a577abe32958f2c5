"""A control whose value is known shows whether the numbers of a run can be trusted at all.

A method that draws its scores at random has a known expected value, `Metric.chance`. If what it gets is further from
that than luck allows, ids are misaligned, the truth is wrong or the metric is, and no number of the run means
anything: ControlError.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from attribench.errors import ControlError
from attribench.statistics.summary import over_seeds

TOLERANCE = 4.0
"""In standard errors: a sound run fails once in 16,000 checks (a 95 % interval would fail one run in 20)."""

ENOUGH_EVENTS = 20


def standard_error(values: np.ndarray, chance: np.ndarray) -> float:
    """The standard error of the mean of a random control's values [n_query] under chance [n_query].

    A random control draws anew for every query, so its queries are independent and no clustering is needed. The
    variance is taken about chance, which needs no estimate of the mean (and with fewer than 17 queries can therefore
    never exceed the tolerance: so few prove nothing). Where hits are so rare that fewer than 20 values differ from
    the commonest one, the variance that is seen says little, and the largest that values in [0, 1] can have at that
    mean, c(1 - c), takes its place.
    """
    variance = float(np.mean((values - chance) ** 2))
    events = len(values) - np.unique(values, return_counts=True)[1].max()
    if events < ENOUGH_EVENTS:
        mean = float(chance.mean())
        variance = max(variance, mean * (1 - mean))
    return float(np.sqrt(variance / len(values)))


def check_controls(per_query: pd.DataFrame, controls: Iterable[str]) -> None:
    """Raise ControlError unless each named control is at chance, for every variant and metric.

    `controls` are the methods whose expected value is chance and that draw anew for each query (or, like a constant,
    get exactly chance). `per_query` is what `summary` takes; values are averaged over the method's seeds first.
    """
    wanted = over_seeds(per_query[per_query["method"].isin(list(controls)) & per_query["value"].notna()])
    for (method, variant, metric), group in wanted.groupby(["method", "variant", "metric"], sort=False):
        value, chance = group["value"].to_numpy(), group["chance"].to_numpy()
        off = abs(value.mean() - chance.mean())
        error = standard_error(value, chance)
        if off > TOLERANCE * error + 1e-9:
            raise ControlError(
                f"the control {method!r} has {metric} = {value.mean():.4f} ({variant}, {len(value)} queries), but its "
                f"known value is {chance.mean():.4f} ± {error:.4f}: no number of this run can be trusted; check that "
                "scores and truth list the same images in the same order, then the metric"
            )
