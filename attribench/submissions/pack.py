"""From a finished run folder to one file: scores, truth, record, and what was run. Nothing of it is code."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic_core import to_jsonable_python

from attribench import __version__, plugins
from attribench.attribution.scores import read_scores
from attribench.errors import AttribenchError, UsageError
from attribench.interface import Access
from attribench.measurement import Truth
from attribench.measurement.arrays import arrays_of
from attribench.report import record
from attribench.run.config import RunConfig
from attribench.run.experiment import Planned, experiment_of, plan
from attribench.run.measured import variants_of
from attribench.run.truths import file_name
from attribench.submissions.container import PER_QUERY, RECORD, STATEMENT, Refused, pack
from attribench.submissions.numbers import ScoresOf, differences, metrics_of, recomputed, values
from attribench.submissions.parsing import parquet_bytes, safetensors_bytes
from attribench.submissions.statement import FORMAT, Method, Statement, Study, score_member, truth_member
from attribench.submissions.truths import digest_of, read_truth


def submission_of(
    folder: Path,
    *,
    methods: Sequence[str] = (),
    submitter: str = "",
    links: Mapping[str, str] | None = None,
    data_root: Path | None = None,
    model: str | None = None,
) -> bytes:
    """The bytes of a run's submission; the same for the same run folder.

    `methods`: these alone, with the controls whose value is known. Every number is recomputed on the way. Raises
    UsageError where the folder is not that of a whole run, or its record is not what its scores say.
    """
    config = RunConfig.gather(folder / "run.toml", data_root=data_root, model=model)
    for path in config.plugins:
        plugins.add_file(path)
    planned = plan(experiment_of(config), config.data_root)
    manifest = _manifest(folder)
    measured = {(name, metric.name) for name in variants_of(planned.plans) for metric in planned.protocol.metrics(name)}
    rows = [row for row in record.read(folder) if row.status == "ok" and row.competes]
    rows = [row for row in rows if (row.variant, row.metric) in measured]  # no metrics that were added by --metric
    if not rows:
        raise UsageError(f"{folder} holds no method with numbers; there is nothing to submit")
    if methods:
        chosen = _chosen(rows, methods)
        rows = [row for row in rows if row.method in chosen]
    packed = _methods(planned, rows, folder)
    truths = {of.id: _truth(folder, planned, of) for of in planned.plans}
    scores = {
        (method.name, of.id, seed): _scores(folder, method.name, of, seed)
        for method in packed for of in planned.plans for seed in method.seeds
    }  # fmt: skip
    own, per_query = _rows(planned, packed, scores, truths, rows, ranked=not methods)
    statement = Statement(
        format=FORMAT,
        attribench=__version__,
        finished=manifest["finished"],
        seconds=manifest["seconds"],
        submitter=submitter,
        links=dict(links or {}),
        experiment=planned.experiment,
        studies={name: Study(plan=digest, truth=digest_of(truths[name])) for name, digest in planned.digests.items()},
        methods=packed,
        machine=manifest["machine"] | {"python": platform.python_version()},
        packages=manifest["packages"] | {name: _version(name) for name in ("scipy", "pandas", "pyarrow")},
    )
    return pack(members_of(statement, own, per_query, scores, truths))


def added_metrics(folder: Path, *, data_root: Path | None = None, model: str | None = None) -> list[str]:
    """The metrics of a run that are not its protocol's own: their rows are no part of a submission."""
    config = RunConfig.gather(folder / "run.toml", data_root=data_root, model=model)
    planned = plan(experiment_of(config), config.data_root)
    return sorted({row.metric for row in record.read(folder)} - {metric.name for metric in metrics_of(planned)})


def members_of(
    statement: Statement, rows: list[record.Row], per_query: pd.DataFrame, scores: ScoresOf, truths: Mapping[str, Truth]
) -> dict[str, bytes]:
    """The files of a submission, by name."""
    members = {
        STATEMENT: json.dumps(statement.model_dump(mode="json"), indent=1, sort_keys=True).encode(),
        RECORD: parquet_bytes(record.record_table(rows)),
        PER_QUERY: parquet_bytes(record.per_query_table(per_query)),
    }
    for (method, study, seed), array in scores.items():
        ids = {"query_ids": truths[study].query_ids, "train_ids": truths[study].train_ids}
        members[score_member(method, study, seed)] = safetensors_bytes({"scores": array}, ids)
    for study, truth in truths.items():
        members[truth_member(study)] = safetensors_bytes(*arrays_of(truth))
    return members


def _rows(
    planned: Planned,
    methods: tuple[Method, ...],
    scores: ScoresOf,
    truths: Mapping[str, Truth],
    rows: list[record.Row],
    *,
    ranked: bool,
) -> tuple[list[record.Row], pd.DataFrame]:
    """The record anew: numbers from the scores, and what cannot be recomputed (costs, device) from the run.

    `ranked`: whether the ranks have to be those of the run too, as they are among the same methods.
    """
    found = values(planned, methods, scores, truths)
    fresh = recomputed(planned, found, rows)
    compared = (rows, fresh)
    if not ranked:
        compared = ([row.model_copy(update={"rank": None}) for row in of] for of in compared)
    if wrong := differences(*compared):
        raise UsageError(f"the record is not what the scores say: {wrong[0]}; run its run.toml again")
    return fresh, found.per_query


def _chosen(rows: Sequence[record.Row], methods: Sequence[str]) -> set[str]:
    """The methods asked for and the controls at chance. Raises UsageError for one that was not run."""
    there = {row.method for row in rows}
    wanted = {plugins.find("method", name).name for name in methods}
    if absent := sorted(wanted - there):
        raise UsageError(f"the run has no numbers of {', '.join(absent)}; it has those of {', '.join(sorted(there))}")
    return wanted | {name for name in there if plugins.find("method", name).load().at_chance}


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        return {name: manifest[name] for name in ("finished", "seconds", "machine", "packages")}
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder} has no manifest of this version ({error}); run its run.toml again") from error


def _methods(planned: Planned, rows: list[record.Row], folder: Path) -> tuple[Method, ...]:
    found = {}
    for row in rows:
        cls = plugins.find("method", row.method).load()
        found[row.method] = Method(
            name=row.method,
            tuned=row.tuning is not None,
            params=to_jsonable_python(row.params),
            control=row.control,
            needs=[flag.name.lower() for flag in Access if flag in cls.needs],
            version=cls.version,
            plugin=row.plugin,
            summary=plugins.find("method", row.method).summary[:300],
            seeds=_seeds(folder, row.method, planned.plans[0].id),
        )
    return tuple(found.values())


def _seeds(folder: Path, method: str, study: str) -> list[int]:
    """The seeds that a method has scores of, from the names of its files."""
    start = f"{study}-seed"
    found = [path.stem.removeprefix(start) for path in (folder / "scores" / method).glob(f"{start}*.safetensors")]
    if not found:
        raise UsageError(f"{folder} holds no scores of {method}; run its run.toml again")
    return sorted(int(seed) for seed in found)


def _scores(folder: Path, method: str, of: Any, seed: int) -> np.ndarray:
    path = folder / score_member(method, of.id, seed)
    try:
        scores = read_scores(path)
    except Exception as error:  # safetensors raises errors of its own
        raise UsageError(f"{path} cannot be read ({error}); run its run.toml again") from error
    ids = tuple(case.id for case in of.roles("query")), tuple(image.id for image in of.rows)
    if (scores.query_ids, scores.train_ids) != ids:
        raise UsageError(f"{path} is of other queries or images than run.toml asks for; run it again")
    return scores.values


def _truth(folder: Path, planned: Planned, of: Any) -> Truth:
    path = folder / file_name(of.id)
    try:
        return read_truth(path.read_bytes(), planned, of)
    except (OSError, Refused) as error:
        raise UsageError(f"{path}: {error}; run its run.toml again with this version") from error


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError as error:
        raise AttribenchError(f"{name} is not installed as a package; install attribench again") from error
