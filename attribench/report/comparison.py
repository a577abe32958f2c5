"""Runs beside each other: paired differences of their methods on the queries that they share.

Two runs of the same studies (the same data set edition, protocol, split and seed) attribute the same queries, so what
differs between them is compared query by query. The same method of two runs is a pair; where the runs share no method,
each method of one makes a pair with each of another. Of one run alone, each method makes a pair with each other. Intervals
are clustered by study and Holm's adjustment is over all pairs of one variant and metric (`attribench.statistics.intervals`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from attribench.errors import UsageError
from attribench.measurement import Metric
from attribench.report import record
from attribench.statistics.intervals import Difference, compare
from attribench.statistics.summary import over_seeds

SAME = ("dataset", "edition", "protocol", "split", "seed")
"""What runs must share for their queries to be the same."""


@dataclass(frozen=True, order=True)
class Contender:
    """One method of one run."""

    run: str
    method: str
    tuning: str

    def __str__(self) -> str:
        return f"{self.method}{f' ({self.tuning})' if self.tuning else ''} in {self.run}"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The differences in one variant and metric."""

    variant: str
    metric: str
    higher_is_better: bool
    n_queries: int
    n_studies: int
    differences: list[Difference]
    """`first` and `second` are Contenders."""


@dataclass(frozen=True)
class _Run:
    name: str
    folder: Path
    rows: list[record.Row]
    per_query: pd.DataFrame
    preset: object
    model: object
    """The base model's fingerprint; None of a run whose manifest does not tell."""

    @classmethod
    def read(cls, folder: Path, name: str) -> _Run:
        rows = record.read(folder)
        if not rows:
            raise UsageError(f"{folder}: its record holds no rows; give a run in which a method was run")
        values = over_seeds(record.read_per_query(folder))
        manifest = _manifest(folder)
        values = values[values["tuning"].isin(["", "tuned"])]
        return cls(name, folder, rows, values, manifest.get("preset"), manifest.get("model"))

    @property
    def regions(self) -> str:
        """Which boxes of the pictures its methods attributed."""
        return ", ".join(sorted({row.region for row in self.rows if row.region})) or "whole pictures"


def compare_runs(folders: Sequence[Path], methods: Sequence[str] = ()) -> tuple[list[Compared], list[str]]:
    """The paired differences between runs, and what a reader must know of them, a line each.

    `methods` narrows the choice. Raises UsageError for no run, runs of different queries, or where nothing can be paired;
    StoreError for a damaged record.
    """
    if not folders:
        raise UsageError("give a run folder or more: attribench compare RUN RUN")
    runs = [_Run.read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    for run in runs[1:]:
        for what in SAME:
            own, other = getattr(runs[0].rows[0], what), getattr(run.rows[0], what)
            if own != other:
                raise UsageError(f"{runs[0].folder} has {what} {own!r} and {run.folder} has {other!r}: they share no queries")
    pairs = _pairs(runs, methods)
    values = pd.concat([run.per_query.assign(run=run.name) for run in runs])
    found = [
        one
        for (variant, metric), group in values.groupby(["variant", "metric"], sort=False)
        if (one := _compared(variant, metric, group, pairs)) is not None
    ]
    if not found:
        raise UsageError("the runs share no query that both methods of a pair have a value for; compare runs of the same studies")
    notes = []
    if any(run.preset != runs[0].preset for run in runs):
        notes.append("The runs' presets differ, hence their models: a difference is one of method and model together.")
    if len({run.model for run in runs if run.model is not None}) > 1:
        notes.append("The runs' base models differ: a difference is one of method and model together.")
    if len(regions := dict.fromkeys(run.regions for run in runs)) > 1:
        parts = "; ".join(regions)
        notes.append(f"The runs attribute different parts of the pictures ({parts}): a difference is one of these too.")
    metrics = dict.fromkeys(one.metric for one in found)
    if redrawn := [metric for metric in metrics if record.metric_class(metric).n_subsets is not Metric.n_subsets]:
        notes.append(
            f"{', '.join(redrawn)}: these intervals are over studies, with the subsets as they were drawn; "
            "those of a run's own table draw the subsets again too and may be wider."
        )
    return found, notes


def _compared(variant: str, metric: str, group: pd.DataFrame, pairs: Sequence[tuple[Contender, Contender]]) -> Compared | None:
    """None where no pair shares a query."""
    table = group.pivot_table(index=["study", "query_id"], columns=["run", "method", "tuning"], values="value", dropna=False)
    columns = {Contender(*name): table[name] for name in table.columns}
    there = [pair for pair in pairs if all(one in columns for one in pair)]
    own = pd.DataFrame({one: columns[one] for pair in there for one in pair}).dropna()
    if own.empty:
        return None
    study = own.index.get_level_values("study").to_numpy()
    return Compared(
        variant=variant,
        metric=metric,
        higher_is_better=record.metric_class(metric).higher_is_better,
        n_queries=len(own),
        n_studies=len(set(study)),
        differences=compare({one: own[one].to_numpy() for one in own}, study, pairs=there),
    )


def _pairs(runs: Sequence[_Run], methods: Sequence[str]) -> list[tuple[Contender, Contender]]:
    """The same method in two runs; where they share none, or in a run alone, every method with every other."""
    of_run = {run.name: _contenders(run, methods) for run in runs}
    found = [] if len(runs) > 1 else list(combinations(of_run[runs[0].name], 2))
    for (_, first), (_, second) in combinations(of_run.items(), 2):
        alike = [(a, b) for a in first for b in second if a.method == b.method]
        found += alike or [(a, b) for a in first for b in second]
    if not found:
        wanted = f" {', '.join(methods)}" if methods else ""
        where = "no two of these runs have a method" if len(runs) > 1 else "the run has no two methods"
        raise UsageError(f"{where}{wanted} with values; `attribench show RUN` tells what there is")
    return found


def _contenders(run: _Run, methods: Sequence[str]) -> list[Contender]:
    """The methods of a run, without controls unless they are asked for."""
    controls = {row.method for row in run.rows if row.control}
    known = dict.fromkeys(zip(run.per_query["method"], run.per_query["tuning"], strict=True))
    return [
        Contender(run.name, method, tuning)
        for method, tuning in known
        if (method in methods if methods else method not in controls)
    ]


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, or where two are alike their paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _manifest(folder: Path) -> dict:
    """What the run says of itself; nothing without a manifest that can be read."""
    try:
        found = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
