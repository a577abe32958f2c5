"""From the values of every query to the numbers of the record: means, intervals and ranks per variant and metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd

from attribench.statistics.intervals import compare, estimate, ranks
from attribench.statistics.two_way import TwoWay, compare_redrawn, estimate_redrawn


def over_seeds(per_query: pd.DataFrame) -> pd.DataFrame:
    """One row per method, tuning, variant, metric, study and query: value, chance and ceiling averaged over seeds."""
    keys = ["method", "tuning", "variant", "metric", "study", "query_id"]
    return per_query.groupby(keys, as_index=False, sort=False)[["value", "chance", "ceiling"]].mean()


def summary(
    per_query: pd.DataFrame,
    *,
    lower_is_better: Iterable[str] = (),
    two_way: Mapping[tuple[str, str], TwoWay] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """What the record shows: one row per method × tuning × variant × metric, in the order in which they first come.

    From values per query (method, tuning, variant, metric, study, query_id, method_seed, value, chance, ceiling), first
    averaged over the method's seeds. Gives method, tuning, variant, metric, value, low, high, chance, ceiling, rank,
    n_queries, n_studies. `lower_is_better` names the metrics of which less is more. `two_way` resamples those that rest on
    drawn subsets, by (variant, metric), with methods named (method, tuning).

    `tuning` is "" for a method with nothing to tune. Of one that was tuned only the tuned row is compared with the
    other methods: its default and oracle rows have no rank.
    """
    rows = []
    lower_is_better = frozenset(lower_is_better)
    for (variant, metric), group in over_seeds(per_query).groupby(["variant", "metric"], sort=False):
        methods = list(dict.fromkeys(zip(group["method"], group["tuning"], strict=True)))
        table = group.pivot(index=["study", "query_id"], columns=["method", "tuning"], values="value")
        study = table.index.get_level_values("study").to_numpy()
        competing = [method for method in methods if method[1] in ("", "tuned") and table[method].notna().any()]
        defined = {method: table[method].to_numpy() for method in competing}
        resampling = (two_way or {}).get((variant, metric))
        means = resampling.means() if resampling else {}
        if resampling:
            values = {method: float(np.nanmean(own)) for method, own in defined.items()}
            differences = compare_redrawn(values, means, resampling.n_studies)
        else:
            differences = compare(defined, study, seed=seed)
        rank = ranks(competing, differences, higher_is_better=metric not in lower_is_better)
        for name, tuning in methods:
            found = estimate(table[name, tuning].to_numpy(), study, seed=seed)
            if resampling:
                found = estimate_redrawn(found.value, means[name, tuning], found.n_queries, found.n_studies)
            own = (group["method"] == name) & (group["tuning"] == tuning)
            known = group.loc[own & group["value"].notna(), ["chance", "ceiling"]].mean()
            row = {"method": name, "tuning": tuning, "variant": variant, "metric": metric, "rank": rank.get((name, tuning))}
            rows.append(row | asdict(found) | known.to_dict())
    return pd.DataFrame(rows).astype({"rank": "Int64"})
