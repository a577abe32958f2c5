"""What a run leaves in its folder beside the record: configuration, scores, manifest, report."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from pydantic_core import to_jsonable_python

from attribench import __version__
from attribench.attribution.scores import SCORES, read_scores, write_scores
from attribench.errors import UsageError
from attribench.files.whole import whole_file
from attribench.report.page import REPORT, write_report
from attribench.report.words import duration
from attribench.run.evaluate import Evaluated
from attribench.run.outcomes import Outcomes
from attribench.run.prepared import Prepared
from attribench.run.tuning import Tuning

RESULTS = ("record.parquet", "per_query.parquet", "manifest.json", "run.toml", "top-five.png", "intervals.png", REPORT)
FOLDERS = ("scores", "truth")
RECORDED_PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch", "numpy", "scipy", "dask")


def clear(folder: Path, pictures: Iterable[str]) -> None:
    """Take away what an earlier run left in the folder, and nothing else, so that old numbers are never taken for new.

    `pictures` are the files that the protocol draws. Raises UsageError for a folder that cannot be written.
    """
    try:
        for name in (*RESULTS, *pictures):
            (folder / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: {error.strerror}; choose another folder") from error


def write_configuration(prepared: Prepared) -> None:
    """run.toml, by which the run can be done again."""
    with whole_file(prepared.folder / "run.toml") as path:
        path.write_text(prepared.config.to_toml())


def write_scores_of(prepared: Prepared, outcomes: Outcomes, tunings: Mapping[str, Tuning]) -> None:
    """Copies of the scores, found by method, study and seed; of a tuned method, those of the chosen candidate alone."""
    for entry in prepared.methods:
        tuning = tunings.get(entry.plugin.name)
        for of in entry.runs:
            if not outcomes[of.score].ok or (entry.tuned and tuning is None):
                continue
            target = prepared.folder / "scores" / entry.plugin.name / f"{of.plan.id}-seed{of.seed}.safetensors"
            made = prepared.store.path(of.score.keys["scores"]) / SCORES
            with whole_file(target) as path:
                write_scores(path, read_scores(made, entry.candidates("query")[0] if tuning is None else tuning.tuned))


def write_manifest(
    prepared: Prepared, outcomes: Outcomes, tunings: Mapping[str, Tuning], unserved: Mapping[str, str], seconds: float
) -> None:
    """What was run, on what, how methods were tuned, why an added metric has no numbers, and where the artifacts lie."""
    text = json.dumps(
        {
            "attribench": __version__,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(seconds, 2),
            "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "device": prepared.device},
            "packages": _packages(),
            "plugins": {entry.plugin.name: entry.plugin.origin for entry in prepared.methods},
            "added metrics": {metric.name: unserved.get(metric.name) for metric in prepared.added},
            "model": prepared.model,
            "preset": prepared.protocol.preset.model_dump(mode="json"),
            "studies": {plan.id: list(plan.concepts) for plan in prepared.plans},
            "retrainings": prepared.retrainings,
            "tuning": to_jsonable_python({name: tuning.curve() for name, tuning in tunings.items()}),
            "steps": [
                {"step": str(step), "keys": dict(step.keys), "status": outcome.status, "seconds": outcome.seconds}
                for step, outcome in outcomes.items()
            ],
        },
        indent=2,
    )
    with whole_file(prepared.folder / "manifest.json") as path:
        path.write_text(text)


def write_page(prepared: Prepared, found: Evaluated, seconds: float, failure: Exception | None) -> None:
    """report.html: all of the run in one file."""
    write_report(
        prepared.folder,
        found.rows,
        dataset=prepared.dataset,
        queries=found.shown,
        plots={"intervals.png": "every number with its interval", **prepared.protocol.pictures},
        preset=prepared.protocol.preset.model_dump(mode="json"),
        environment={
            "took": duration(seconds),
            "device": prepared.device,
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            **_packages(),
        },
        failure=None if failure is None else str(failure),
    )


def _packages() -> dict[str, str]:
    return {name: version(name) for name in RECORDED_PACKAGES}
