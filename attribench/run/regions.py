"""Boxes of generated pictures: what of a query is attributed, where it is not the whole; read, and put into the plans.

`--region x,y,w,h` gives one for every query. `--regions FILE` names queries: a CSV file with a header, in any order of columns,

    study,query,x,y,w,h
    customconcept101-test-5c-00,mixed/<new1> cat and <new2> barn together./0,0,0,32,64

where `study` may be left out, or empty, for every study that has a query of that id. `per_query.parquet` of a run lists both
ids. A query that the file does not name is attributed as a whole.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pydantic

from attribench.data.region import Region
from attribench.errors import UsageError
from attribench.files.text import shown
from attribench.study.plan import StudyPlan

BYTE_LIMIT = 16 * 2**20
_BOX = ("x", "y", "w", "h")


class QueryRegion(pydantic.BaseModel):
    """The box of one query, as a file names it and `run.toml` keeps it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    query: str
    region: str
    """"x,y,w,h"."""
    study: str | None = None
    """None: every study with a query of that id."""


def read_regions(path: Path) -> tuple[QueryRegion, ...]:
    """The rows of a CSV file of regions. Raises UsageError that names the line for the first one that is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(BYTE_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"--regions {shown(str(path))}: {error.strerror}; give a CSV file of regions") from error
    where = f"--regions {shown(path.name)}"
    if len(data) > BYTE_LIMIT:
        raise UsageError(f"{where}: more than {BYTE_LIMIT:,} bytes; split the run")
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = rows.fieldnames or []
        if not {"query", *_BOX} <= set(columns) <= {"study", "query", *_BOX} or len(set(columns)) < len(columns):
            named = shown(",".join(columns)) or "nothing"
            raise UsageError(f"{where} line 1: the columns must be query,x,y,w,h and maybe study, not {named}")
        found = [_query_region(row, f"{where} line {rows.line_num}") for row in rows]
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: it is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise UsageError(f"{where}: it is not CSV ({error}); quote values that hold a comma") from error
    if not found:
        raise UsageError(f"{where}: it names no query; add a row for each")
    return tuple(found)


def _query_region(row: dict, where: str) -> QueryRegion:
    if None in row or None in row.values():
        raise UsageError(f"{where}: it has more or fewer values than there are columns; quote values that hold a comma")
    try:
        region = Region.parse(",".join(row[name] for name in _BOX))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    return QueryRegion(query=row["query"], region=str(region), study=row.get("study") or None)


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
