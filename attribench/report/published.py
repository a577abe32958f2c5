"""Numbers as their papers print them, kept as data with their source and never mixed with measured ones.

`published.csv` holds, of the protocol leave-k-out, ΔL × 10³ on MSCOCO by the unlearning paper (Wang et al. 2024, as its later
version prints it; standard errors are 0.11 to 0.35) and what it says of deviation and of random removal; n_concepts is 0 there.
Of between-concepts it holds the tables 1-2 of MONTRAGE's supplement (Brokman et al. 2024), whose "Spearman's rank
correlation" is agreement with MONTRAGE's own table. The un-mixed rows of D-TRAK contradict themselves: recall@5 = .49
with precision@5 = .15 means .75 hits among 1.5 relevant images, where every concept has at least three, and a
precision of .15 is below the .2 of chance with five concepts. They are kept as printed, and flagged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import pandas as pd

from attribench.report.words import NOTHING


def published(dataset: str, protocol: str, variant: str | None = None, n_concepts: int | None = None) -> pd.DataFrame:
    """Published rows: dataset, protocol, variant, n_concepts, method, plugin, metric, value, flag, source.

    `method` is the name as printed, `plugin` that of the method which does here what the paper describes. `variant` and
    `n_concepts` narrow the choice when given. `flag` is empty, or says what is wrong with the row. Where nothing was
    published the frame is empty.
    """
    with resources.files("attribench.report").joinpath("published.csv").open(encoding="utf-8") as stream:
        rows = pd.read_csv(stream, keep_default_na=False, dtype={"value": float, "n_concepts": int})
    chosen = (rows["dataset"] == dataset) & (rows["protocol"] == protocol)
    if variant is not None:
        chosen &= rows["variant"] == variant
    if n_concepts is not None:
        chosen &= rows["n_concepts"] == n_concepts
    return rows[chosen].reset_index(drop=True)


def by_variant(numbers: pd.DataFrame, cell: Callable[[Any], str]) -> Iterator[tuple[str, list[str], list[tuple[str, list[str]]]]]:
    """Tables of published rows: each variant with its metrics, and each method with a cell for every metric."""
    for variant, of_variant in numbers.groupby("variant", sort=False):
        metrics = list(dict.fromkeys(of_variant["metric"]))
        lines = []
        for method, of_method in of_variant.groupby("method", sort=False):
            cells = {number.metric: cell(number) for number in of_method.itertuples()}
            lines.append((method, [cells.get(metric, NOTHING) for metric in metrics]))
        yield variant, metrics, lines
