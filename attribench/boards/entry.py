"""What verifying a submission gave, kept beside it: a page of a thousand submissions is built from these.

An entry is made by `attribench leaderboard add` and nowhere else; `attribench leaderboard build --again` makes every one of
them anew from the submissions and fails if one differs. It is bound to its submission by the digest of the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydantic
from safetensors import SafetensorError, safe_open

from attribench import __version__
from attribench.errors import SubmissionError, UsageError
from attribench.files.whole import whole_file
from attribench.report.record import Row
from attribench.run.measured import by_variant, variants_of
from attribench.statistics.agreement import rank_agreement
from attribench.statistics.summary import over_seeds
from attribench.submissions.parsing import safetensors_bytes
from attribench.submissions.statement import Method, Statement
from attribench.submissions.verify import Standing, Verdict

FORMAT = "attribench entry 2"
SHOWN_QUERIES = 3
"""Of each variant, with the training images that a method ranked first."""
TOP = 5


class ShownQuery(NamedTuple):
    """The first images of one method for one query."""

    study: str
    prompt: str
    variant: str
    images: tuple[tuple[str, bool | None], ...]
    """(image id, whether labels call it relevant; None without labels)."""


_SHOWN = pydantic.TypeAdapter(dict[str, tuple[ShownQuery, ...]])


@dataclass(frozen=True)
class Entry:
    """A submission as verified."""

    digest: str
    """sha256 of the submission's file."""
    statement: Statement
    rows: tuple[Row, ...]
    standing: Mapping[tuple[str, str], Standing]
    """By (variant, metric)."""
    studies: Mapping[str, tuple[str, ...]]
    """[n_query] the study of each query, by variant."""
    values: Mapping[tuple[str, str, str], np.ndarray]
    """[n_query] by (method, variant, metric), averaged over the method's seeds."""
    means: Mapping[tuple[str, str, str], np.ndarray]
    """[resamples] the same redrawn, for metrics that rest on drawn subsets."""
    shown: Mapping[str, tuple[ShownQuery, ...]]
    """By method."""
    alike: Mapping[str, float]
    """How far two seeds of a method rank alike (`rank_agreement`, the mean over studies), for methods with several seeds."""

    @cached_property
    def _rows(self) -> dict[tuple[str, str, str], Row]:
        return {(row.method, row.variant, row.metric): row for row in self.rows}

    def row(self, method: str, variant: str, metric: str) -> Row | None:
        """One of its rows, if it has it."""
        return self._rows.get((method, variant, metric))


def entry_of(verdict: Verdict, digest: str) -> Entry:
    """The entry of an accepted submission."""
    found, planned = verdict.values, verdict.planned
    order = {variant: [] for variant in variants_of(planned.plans)}
    for study, case in ((of.id, case) for of in planned.plans for case in of.roles("query")):
        order[case.variant].append((study, case.id))
    values = {
        key: group.set_index(["study", "query_id"])["value"].loc[order[key[1]]].to_numpy()
        for key, group in over_seeds(found.per_query).groupby(["method", "variant", "metric"], sort=False)
    }
    means = {
        (method, variant, metric): own
        for (variant, metric), drawn in found.two_way.items()
        for (method, _), own in drawn.means().items()
    }
    return Entry(
        digest=digest, statement=verdict.statement, rows=tuple(verdict.rows),
        standing={(row.variant, row.metric): verdict.standing(row) for row in verdict.rows},
        studies={variant: tuple(study for study, _ in queries) for variant, queries in order.items()},
        values=values, means=means, shown={m.name: _shown(verdict, m) for m in verdict.statement.methods},
        alike={m.name: _alike(verdict, m) for m in verdict.statement.methods if len(m.seeds) > 1},
    )  # fmt: skip


def _alike(verdict: Verdict, method: Method) -> float:
    first, *others = method.seeds
    found = [
        rank_agreement(verdict.scores[method.name, of.id, first], verdict.scores[method.name, of.id, seed])
        for of in verdict.planned.plans
        for seed in others
    ]
    return float(np.mean(found))


def _shown(verdict: Verdict, method: Method) -> tuple[ShownQuery, ...]:
    """Some queries of every variant, each of another study where there are several."""
    found, plans = [], verdict.planned.plans
    for variant in variants_of(plans):
        having = [of for of in plans if variant in by_variant(of)]
        for i in range(SHOWN_QUERIES):
            of = having[i % len(having)]
            numbers = by_variant(of)[variant]
            query = numbers[(i * 7) % len(numbers)]
            relevant = verdict.truths[of.id].relevant
            scores = verdict.scores[method.name, of.id, method.seeds[0]][query]
            first = np.argsort(-scores, kind="stable")[:TOP].tolist()
            ids = [of.rows[j].id for j in first]
            marks = [None if relevant is None else bool(relevant[query, j]) for j in first]
            case = of.roles("query")[query]
            found.append(ShownQuery(of.id, case.plain_prompt, variant, tuple(zip(ids, marks, strict=True))))
    return tuple(dict.fromkeys(found))


# ----------------------------------------------------------------------------------- on disk


def digest_of(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def entry_bytes(entry: Entry) -> bytes:
    """One safetensors file; the same entry gives the same bytes."""
    arrays = {
        f"{kind}/{number:05d}": np.asarray(array, dtype=np.float64)
        for kind, found in (("values", entry.values), ("means", entry.means))
        for number, array in enumerate(found.values())
    }
    about: dict[str, Any] = {
        "format": FORMAT,
        "attribench": __version__,
        "digest": entry.digest,
        "statement": entry.statement.model_dump(mode="json"),
        "rows": [row.model_dump(mode="json") for row in entry.rows],
        "standing": [[*key, standing] for key, standing in entry.standing.items()],
        "studies": entry.studies,
        "shown": entry.shown,
        "alike": entry.alike,
        "values": list(entry.values),
        "means": list(entry.means),
    }
    return safetensors_bytes(arrays, about)


def write_entry(path: Path, entry: Entry) -> None:
    """Keep it, whole or not at all."""
    with whole_file(path) as aside:
        aside.write_bytes(entry_bytes(entry))


def read_entry(path: Path, submission: Path) -> Entry:
    """The entry of a submission. Raises UsageError if it is not there or of another format, SubmissionError if it is not its."""
    try:
        with safe_open(path, framework="numpy") as file:
            about = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
            if about.get("format") != FORMAT:
                raise UsageError(f"{path} is of another version; make it again: attribench leaderboard build --again")
            arrays = {
                kind: {tuple(key): file.get_tensor(f"{kind}/{number:05d}") for number, key in enumerate(about[kind])}
                for kind in ("values", "means")
            }
    except FileNotFoundError:
        raise UsageError(f"{submission} was never verified here; add it with `attribench leaderboard add`") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); make it again: attribench leaderboard build --again") from error
    if about["digest"] != digest_of(submission):
        raise SubmissionError(f"{submission} is not the file that was verified; add it again with `attribench leaderboard add`")
    return Entry(
        digest=about["digest"],
        statement=Statement.model_validate(about["statement"]),
        rows=tuple(Row.model_validate(row) for row in about["rows"]),
        standing={(variant, metric): standing for variant, metric, standing in about["standing"]},
        studies={variant: tuple(names) for variant, names in about["studies"].items()},
        **arrays,
        shown=_SHOWN.validate_python(about["shown"]),
        alike=about["alike"],
    )
