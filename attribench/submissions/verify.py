"""Is a submission what it says? Structure first, which takes milliseconds; then ids; then every number again.

Nothing is trained and nothing of the file is run. What cannot be recomputed is the submitter's word, and is marked so:
times, memory and device; and the numbers that rest on a truth that nobody but the submitter has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from attribench import __version__, plugins
from attribench.errors import AttribenchError
from attribench.files.text import shown
from attribench.measurement import Truth
from attribench.report import record
from attribench.run.experiment import Experiment, Planned, plan
from attribench.statistics.controls import check_controls
from attribench.submissions.container import PER_QUERY, RECORD, STATEMENT, Refused, read
from attribench.submissions.numbers import Values, differences, query_differences, recomputed, resting_on, values
from attribench.submissions.parsing import table_of, tensors_of
from attribench.submissions.statement import Method, Statement, read_statement, score_member, truth_member
from attribench.submissions.truths import digest_of, known_part, read_truth

SHOWN_REASONS = 20
COSTLIEST = 1e15
"""More than any time, memory or size that a method can have had."""

Standing = Literal["verified", "self-reported"]


@dataclass
class Verdict:
    """What became of a submission. If it was refused, `reasons` say why and there is nothing else to show."""

    reasons: list[str]
    statement: Statement | None = None
    planned: Planned | None = None
    rows: list[record.Row] = field(default_factory=list)
    """With recomputed numbers; costs and device as the submitter states them."""
    values: Values | None = None
    scores: dict[tuple[str, str, int], np.ndarray] = field(default_factory=dict)
    truths: dict[str, Truth] = field(default_factory=dict)
    verified: set[tuple[str, str]] = field(default_factory=set)
    """The (variant, metric)s that rest on nothing but scores, labels, and truths that are kept here."""

    @property
    def accepted(self) -> bool:
        return not self.reasons

    def standing(self, row: record.Row) -> Standing:
        """Of one of its numbers."""
        return "verified" if (row.variant, row.metric) in self.verified else "self-reported"


def verify(
    path: Path,
    *,
    known: Sequence[Experiment] = (),
    kept: Mapping[str, Truth] | None = None,
    data_root: Path | None = None,
) -> Verdict:
    """Check a file. A stranger's file raises nothing.

    `known`: experiments that may be followed though they change a preset (those of boards). `kept`: truths by study id
    that are trusted beside labels. Of what is refused nothing is shown.
    """
    try:
        verdict = _verify(read(path), known, kept or {}, data_root)
    except (Refused, AttribenchError) as error:
        verdict = Verdict([str(error)])
    except Exception as error:  # whatever a parser or a metric makes of a stranger's bytes
        verdict = Verdict([f"it cannot be read ({type(error).__name__})"])
    verdict.reasons = [shown(" ".join(reason.split()))[:500] for reason in verdict.reasons]
    return verdict


def _verify(members: dict[str, bytes], known: Sequence[Experiment], kept: Mapping[str, Truth], data_root: Path | None) -> Verdict:
    statement = _statement(members)
    planned = _planned(statement, known, data_root)
    rows, per_query = _claims(members, statement)
    truths = {of.id: read_truth(members[truth_member(of.id)], planned, of) for of in planned.plans}
    for study, truth in truths.items():
        if digest_of(truth) != statement.studies[study].truth:
            raise Refused(f"the truth of {study} is not the one whose digest submission.json names")
    scores = _scores(members, statement, planned)
    _require_controls(statement.methods, planned)
    found = values(planned, statement.methods, scores, truths)
    if wrong := query_differences(per_query, found.per_query):
        return Verdict(_some(wrong))
    fresh = recomputed(planned, found, rows)
    if wrong := differences(rows, fresh):
        return Verdict(_some(wrong))
    record.check(fresh)
    installed = plugins.all_plugins("method")
    controls = [method.name for method in statement.methods if method.control and method.name in installed]
    check_controls(found.per_query, [name for name in controls if installed[name].load().at_chance])
    parts = {of.id: known_part(truths[of.id], planned, of, kept.get(of.id)) for of in planned.plans}
    verified = resting_on(planned, statement.methods, scores, parts, found)
    return Verdict([], statement, planned, fresh, found, scores, truths, verified)


# --------------------------------------------------------------------------------------- what it says


def _statement(members: Mapping[str, bytes]) -> Statement:
    if STATEMENT not in members:
        raise Refused(f"it has no {STATEMENT}")
    statement = read_statement(members[STATEMENT])
    numbers_of = [tuple(map(int, version.split("."))) for version in (statement.attribench, __version__)]
    if numbers_of[0] > numbers_of[1]:
        raise Refused(f"it was made by attribench {statement.attribench}, this is {__version__}; update, then verify again")
    expected = statement.members | {STATEMENT, RECORD, PER_QUERY}
    if differing := sorted(expected ^ set(members)):
        lacks = "lacks" if differing[0] in expected else "holds more than it names:"
        raise Refused(f"it {lacks} {differing[0]}, and {len(differing) - 1} more members differ from what submission.json names")
    return statement


def _planned(statement: Statement, known: Sequence[Experiment], data_root: Path | None) -> Planned:
    """The studies, planned again. Overrides are followed only where a board has them: they could ask for any amount."""
    said = statement.experiment
    changed = bool(said.overrides) or said.limit is not None
    if changed and said not in known:
        raise Refused("it changes the preset's numbers or limits the queries as no board does; run the preset as it is")
    for kind, name in (("dataset", said.dataset), ("protocol", said.protocol)):
        if name not in plugins.all_plugins(kind):
            raise Refused(f"the {kind} {name!r} is not installed here")
    planned = plan(said, data_root if said.edition == "paper" else None)
    digests = planned.digests
    if set(digests) != set(statement.studies):
        raise Refused(f"it has {len(statement.studies)} studies, the preset asks for {len(digests)} by other names")
    for name, digest in digests.items():
        if statement.studies[name].plan != digest:
            raise Refused(f"{name} is another study than data set, protocol and preset give here (attribench {__version__})")
    return planned


def _claims(members: Mapping[str, bytes], statement: Statement) -> tuple[list[record.Row], pd.DataFrame]:
    """The numbers that the file states, checked against the statement, to be compared."""
    rows = record.rows_of(table_of(members[RECORD], record.schema(), RECORD), RECORD)
    methods = {method.name: method for method in statement.methods}
    said = statement.experiment
    for row in rows:
        method = methods.get(row.method)
        if method is None or row.status != "ok":
            raise Refused(f"record.parquet has a row of {row.method!a} that submission.json does not account for")
        owners = dict.fromkeys(("params", "control", "plugin"), method)
        owners |= dict.fromkeys(("dataset", "edition", "protocol", "split", "seed"), said)
        differ = any(getattr(row, name) != getattr(owner, name) for name, owner in owners.items())
        if differ or (row.tuning == "tuned") != method.tuned:
            raise Refused(f"the row {row.metric!a} of {row.method} contradicts submission.json (method, plugin or experiment)")
        if row.region is not None or any((getattr(row, cost) or 0) > COSTLIEST for cost in record.COSTS):
            raise Refused(f"the row {row.metric!a} of {row.method} has a box or a cost that cannot be")
        if len(row.device) > 40 or not row.device.isprintable():
            raise Refused(f"the row {row.metric!a} of {row.method} names no device")
    stated = {}
    for row in rows:
        costs = row.model_dump(include={*record.COSTS, "n_concepts", "n_models", "device"})
        if stated.setdefault(row.method, costs) != costs:
            raise Refused("record.parquet states several costs of one method")
    if set(stated) != set(methods):
        raise Refused("submission.json names methods that record.parquet has no row of")
    return rows, table_of(members[PER_QUERY], record.PER_QUERY_SCHEMA, PER_QUERY).to_pandas()


def _scores(members: Mapping[str, bytes], statement: Statement, planned: Planned) -> dict[tuple[str, str, int], np.ndarray]:
    found = {}
    for of in planned.plans:
        queries, images = [case.id for case in of.roles("query")], [image.id for image in of.rows]
        for method in statement.methods:
            for seed in method.seeds:
                name = score_member(method.name, of.id, seed)
                arrays, about = tensors_of(members[name], name)
                if about.get("query_ids") != queries or about.get("train_ids") != images:
                    raise Refused(f"{name} has other ids, or in another order, than the plan of {of.id}")
                scores, shape = arrays.get("scores", np.zeros(0)), (len(queries), len(images))
                if len(arrays) != 1 or scores.dtype != np.float32 or scores.shape != shape:
                    raise Refused(f"{name} does not hold float32 scores {list(shape)} and nothing else")
                found[method.name, of.id, seed] = scores
    return found


def _require_controls(methods: Sequence[Method], planned: Planned) -> None:
    """The controls of attribench whose value is known must be there, with the seeds of the preset, if the protocol has them."""
    own = {method.name: method for method in methods}
    installed = plugins.all_plugins("method")
    for name, plugin in installed.items():
        if not plugin.built_in or not plugin.load().at_chance or planned.protocol.skip(plugin.load()()) is not None:
            continue
        if name not in own or not own[name].control:
            raise Refused(f"it lacks the control {name!r}, without which no number can be trusted; run the controls too")
        if plugin.load().stochastic and own[name].seeds != tuple(sorted(planned.protocol.preset.method_seeds)):
            raise Refused(f"the control {name!r} has other seeds than the preset")
    for method in methods:
        plugin = installed.get(method.name)
        if plugin is not None and plugin.origin == method.plugin and plugin.load().control != method.control:
            raise Refused(f"{method.name!r} is said to be a {'control' if method.control else 'method'}, and is not")


def _some(lines: list[str]) -> list[str]:
    more = [f"… and {len(lines) - SHOWN_REASONS} more"] if len(lines) > SHOWN_REASONS else []
    return lines[:SHOWN_REASONS] + more
