"""Putting the boxes of a run into its plans: each checked against the queries that there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from attribench.data.region import Region
from attribench.errors import UsageError
from attribench.files.text import shown
from attribench.run.regions import QueryRegion
from attribench.study.plan import StudyPlan


def restrict(
    plans: Sequence[StudyPlan], everywhere: str | None, named: Sequence[QueryRegion], side: int | None
) -> list[StudyPlan]:
    """The plans with a box for every query, or for those that are named.

    `side`: pixels of a side of the generated pictures, if known beforehand. Raises UsageError for a box outside them,
    for a study or query that there is not, and for a query with two boxes.
    """
    found: dict[str, dict[str, Region]] = {plan.id: {} for plan in plans}
    if everywhere is not None:
        region = _inside(everywhere, side)
        found = {plan.id: {case.id: region for case in plan.cases} for plan in plans}
    ids = {plan.id: {case.id for case in plan.cases} for plan in plans}
    for entry in named:
        region = _inside(entry.region, side, f" of {shown(entry.query)!r}")
        if entry.study is not None and entry.study not in found:
            raise UsageError(f"--regions: no study is called {shown(entry.study)!r}{_near(entry.study, found)}")
        studies = [study for study in ([entry.study] if entry.study else found) if entry.query in ids[study]]
        if not studies:
            known = ids[entry.study] if entry.study else set().union(*ids.values())
            raise UsageError(
                f"--regions: {entry.study or 'no study'} has {'no' if entry.study else 'a'} query {shown(entry.query)!r}"
                f"{_near(entry.query, known)}; per_query.parquet of a run lists their ids"
            )
        for study in studies:
            if entry.query in found[study]:
                raise UsageError(f"--regions: the query {shown(entry.query)!r} of {study} has two regions; leave one")
            found[study][entry.query] = region
    return [replace(plan, regions=tuple(sorted(found[plan.id].items()))) for plan in plans]


def _inside(text: str, side: int | None, of: str = "") -> Region:
    region = Region.parse(text)
    if side is not None:
        try:
            region.require_within((side, side))
        except UsageError as error:
            raise UsageError(f"{error}{of and ', the query'}{of}") from error
    return region


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
