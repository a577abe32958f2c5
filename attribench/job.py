"""The main job: from a command line or a `run.toml` to a run folder.

gather the configuration ─► find plugins, open the data ─► plan the studies ─► steps ─► execute ─► evaluate
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from attribench import __version__, plugins
from attribench.data import Dataset
from attribench.diffusion.fingerprint import fingerprint
from attribench.editions import open_dataset
from attribench.engine.progress import Listener
from attribench.engine.run import Outcome, execute
from attribench.engine.steps import Step
from attribench.engine.store import ArtifactStore
from attribench.errors import AttribenchError, MethodError, Unavailable, UsageError
from attribench.interface import AttributionMethod, Edition, Role
from attribench.protocols.protocol import Protocol
from attribench.results.whole_file import whole_file
from attribench.run_config import RunConfig
from attribench.study.estimates import estimates
from attribench.study.losses import TakenLosses
from attribench.study.plan import StudyPlan
from attribench.study.retraining import Retrainings
from attribench.study.runs import MethodRun, StudySteps, check
from attribench.study.scores import SCORES, read_scores, write_scores

if TYPE_CHECKING:
    from attribench.results.record import Row
    from attribench.results.tuning import Tuning

RESULTS = ("record.parquet", "per_query.parquet", "manifest.json", "run.toml", "top-five.png", "intervals.png")
FOLDERS = ("scores", "truth")
PAPER_MODEL = "CompVis/stable-diffusion-v1-4"
RECORDED_PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch", "numpy", "scipy", "dask")


@dataclass
class MethodSteps:
    """One method in a run: its steps per study and seed, or why it is not run."""

    plugin: plugins.Plugin
    method: AttributionMethod
    skipped: str | None = None
    tuned: bool = False
    """Whether one of its candidates is chosen by the dev queries."""
    runs: list[MethodRun] = field(default_factory=list)

    def candidates(self, role: Role) -> Sequence[int | None]:
        """The numbers of the candidates whose scores for a role are looked at; None for a method that has none."""
        if self.tuned:
            return range(len(self.method.candidates()))
        if role == "fit":
            return ()
        return (self.method.default_candidate() if self.method.candidates() else None,)


@dataclass
class Prepared:
    """A run that is ready to start."""

    config: RunConfig
    dataset: Dataset
    protocol: Protocol
    device: str
    plans: list[StudyPlan]
    studies: dict[str, StudySteps]
    """By study id."""
    truths: dict[str, dict[Role, TakenLosses]]
    """What is retrained for the truth of a study's queries, by study id and role. Grows where that depends on scores."""
    methods: list[MethodSteps]
    store: ArtifactStore
    folder: Path

    @property
    def targets(self) -> list[Step]:
        """The steps whose results the run needs, as far as they are known."""
        made = [step for study in self.studies.values() for step in (*study.trainings, study.pictures)]
        scored = [step for entry in self.methods for run in entry.runs for step in run.steps]
        return [*made, *scored, *(step for plan in self.plans for step in self.truth_steps(plan))]

    @property
    def tunes(self) -> bool:
        """Whether any method is tuned, so that the truth of dev queries is needed."""
        return any(entry.tuned for entry in self.methods)

    @property
    def further_at_most(self) -> int:
        """How many models at most may have to be retrained once the scores are there."""
        total = 0
        for plan in self.plans:
            runs = [(entry, run) for entry in self.methods for run in entry.runs if run.plan.id == plan.id]
            n_tables = sum(len(entry.candidates(role)) for entry, _ in runs for role in ("query", "fit"))
            total += self.protocol.further_at_most(plan, n_tables)
        return total

    def truth_steps(self, plan: StudyPlan) -> list[Step]:
        """The steps that the truth of a study takes beside its training."""
        return [step for taken in self.truths[plan.id].values() for step in taken.steps]

    def ask(self, plan: StudyPlan, requests: Sequence[Retrainings]) -> None:
        """Have models retrained for the truth of a study."""
        needed = [request for request in requests if request.role == "query" or self.tunes]
        self.truths[plan.id] |= TakenLosses.of_all(self.studies[plan.id], needed, self.store.has)


@dataclass
class Result:
    """A finished run."""

    prepared: Prepared
    folder: Path
    seconds: float
    rows: list[Row]
    failure: AttribenchError | None
    """What makes the exit code non-zero: a method or step that failed, or a control that is off."""


def prepare(config: RunConfig) -> Prepared:
    """Everything short of running: plugins found, data opened, studies planned, steps made."""
    for path in config.plugins:
        plugins.add_file(path)
    dataset = open_dataset(config.dataset, config.edition, config.data_root)
    protocol_class = plugins.find("protocol", config.protocol or dataset.default_protocol).load()
    if not isinstance(dataset, protocol_class.data):
        raise UsageError(
            f"the protocol {protocol_class.name} takes {protocol_class.data.kind}, and {dataset.name} holds {dataset.kind}; "
            f"leave --protocol out for its own, {dataset.default_protocol}"
        )
    chosen, protocol_overrides = _configured(config, protocol_class.name)
    protocol = protocol_class.with_preset(config.preset or dataset.edition, protocol_overrides)

    model = config.model or (str(tiny_model()) if dataset.edition == "mini" else PAPER_MODEL)
    plans = protocol.plans(dataset, model=fingerprint(model), split=config.split, seed=config.seed, limit=config.limit)
    bindings = {"model": model, "dataset": dataset}
    methods = [_resolved(plugin, method, dataset.edition) for plugin, method in chosen]
    for entry in methods:
        check(entry.method)
        entry.tuned = entry.skipped is None and protocol.tunes and bool(entry.method.candidates())
    active = [entry for entry in methods if entry.skipped is None]
    studies = {}
    device = _device(config.device)
    for plan in plans:
        study = studies[plan.id] = StudySteps.of(
            plan,
            [entry.method for entry in active],
            bindings,
            observers=protocol.truth_observers(plan),
            estimates=estimates(plan, model, device),
        )
        for entry in active:
            for seed in protocol.preset.method_seeds if entry.method.stochastic else (0,):
                entry.runs.append(MethodRun.of(study, entry.method, seed, tunes=protocol.tunes))
    prepared = Prepared(
        config=config, dataset=dataset, protocol=protocol, device=device, plans=plans, studies=studies, methods=methods,
        truths={plan.id: {} for plan in plans}, store=ArtifactStore(config.store or default_store()),
        folder=config.out or _new_folder(dataset),
    )  # fmt: skip
    for plan in plans:
        prepared.ask(plan, protocol.retrainings(plan))
    return prepared


def run(prepared: Prepared, listener: Listener) -> Result:
    """Execute the steps, then those that depend on the scores; evaluate what came out, write the run folder."""
    from attribench.results.evaluation import check_at_chance, evaluate
    from attribench.results.retrained_file import write_retrained
    from attribench.results.tuning import tune

    started = time.perf_counter()
    _clear(prepared.folder, (*RESULTS, *prepared.protocol.pictures))
    with whole_file(prepared.folder / "run.toml") as path:
        path.write_text(prepared.config.to_toml())
    outcomes = _execute(prepared, prepared.targets, listener)
    failure: AttribenchError | None = None
    rows: list[Row] = []
    tunings: dict[str, Tuning] = {}
    try:
        if further := _further(prepared, outcomes):
            outcomes = _execute(prepared, further, listener) | outcomes
        failure = _first_failure(prepared, outcomes)
        tunings = tune(prepared, outcomes)
        rows = evaluate(prepared, outcomes, tunings)
        check_at_chance(prepared)
    except AttribenchError as error:
        failure = failure or error
    seconds = time.perf_counter() - started
    _write_scores(prepared, outcomes, tunings)
    write_retrained(prepared, outcomes)
    _write_manifest(prepared, outcomes, tunings, seconds)
    return Result(prepared, prepared.folder, seconds, rows, failure)


def _execute(prepared: Prepared, targets: Sequence[Step], listener: Listener) -> dict[Step, Outcome]:
    config = prepared.config
    return execute(
        targets, prepared.store, workers=config.workers, scheduler=config.scheduler, device=prepared.device, listener=listener
    )


def _further(prepared: Prepared, outcomes: dict[Step, Outcome]) -> list[Step]:
    """The steps that the truth takes now that the scores are known."""
    from attribench.results.values import is_trained, score_tables

    before = set(prepared.targets)
    for plan in prepared.plans:
        if is_trained(prepared, plan, outcomes):
            tables = score_tables(prepared, plan, outcomes)
            prepared.ask(plan, prepared.protocol.further_retrainings(plan, tables))
    return [step for step in prepared.targets if step not in before]


# ----------------------------------------------------------------------------------------- parts


def tiny_model() -> Path:
    """The folder of the tiny model that ships with the package."""
    folder = Path(str(resources.files("attribench") / "assets" / "tiny"))
    if not (folder / "model_index.json").is_file():
        raise UsageError(f"the tiny model is missing at {folder}; install the package again, or give --model")
    return folder


def default_store() -> Path:
    """`$ATTRIBENCH_STORE`, or a folder in the user's cache."""
    if "ATTRIBENCH_STORE" in os.environ:
        return Path(os.environ["ATTRIBENCH_STORE"])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "attribench"


def _configured(config: RunConfig, protocol: str) -> tuple[list[tuple[plugins.Plugin, AttributionMethod]], dict]:
    """The methods asked for and all controls, with their parameters; and the protocol's parameters."""
    asked = [plugins.find("method", name) for name in config.methods]
    if not asked:
        raise UsageError("say which method: --method montrage (`attribench list` shows all)")
    chosen = list({plugin.name: plugin for plugin in [*asked, *_controls()]}.values())
    overrides: dict[str, Any] = {}
    by_name: dict[str, dict[str, Any]] = {}
    for owner, values in config.params.items():
        if plugins.canonical(owner) == plugins.canonical(protocol):
            overrides |= values
            continue
        plugin = plugins.find("method", owner)
        if plugin not in chosen:
            raise UsageError(
                f"--param {owner}.…: the method {plugin.name} is not part of this run; add --method {plugin.name}"
            )
        by_name.setdefault(plugin.name, {}).update(values)
    return [(p, plugins.configure(p.load(), by_name.get(p.name, {}))) for p in chosen], overrides


def _controls() -> list[plugins.Plugin]:
    """Every control that can be loaded: they run beside the methods, always."""
    found = []
    for plugin in plugins.all_plugins("method").values():
        try:
            if plugin.load().control:
                found.append(plugin)
        except MethodError:
            continue  # a stranger's broken plugin; `attribench plugins` shows it
    return found


def _resolved(plugin: plugins.Plugin, method: AttributionMethod, edition: Edition) -> MethodSteps:
    try:
        resolved = method.resolve(edition)
        return MethodSteps(plugin, resolved, resolved.skip(edition))
    except AttribenchError:
        raise
    except Exception as error:
        raise MethodError(f"the method {plugin.name!r} ({plugin.origin}) raised {type(error).__name__}: {error}") from error


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: use auto, cpu or cuda")
    return name


def _new_folder(dataset: Dataset) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{dataset.name}-{dataset.edition}-{stamp}"


def _first_failure(prepared: Prepared, outcomes: dict[Step, Outcome]) -> AttribenchError | None:
    for step in prepared.targets:
        outcome = outcomes[step]
        if not outcome.ok and not isinstance(outcome.error, Unavailable):
            return outcome.error
    return None


def _clear(folder: Path, results: Sequence[str]) -> None:
    """Take away what an earlier run left in the folder, and nothing else, so that old numbers are never taken for new."""
    try:
        for name in results:
            (folder / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: {error.strerror}; choose another folder") from error


def _write_scores(prepared: Prepared, outcomes: dict[Step, Outcome], tunings: dict[str, Tuning]) -> None:
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


def _write_manifest(
    prepared: Prepared, outcomes: dict[Step, Outcome], tunings: dict[str, Tuning], seconds: float
) -> None:
    """What was run, on what, how methods were tuned, and where the artifacts lie."""
    text = json.dumps(
        {
            "attribench": __version__,
            "seconds": round(seconds, 2),
            "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "device": prepared.device},
            "packages": {name: version(name) for name in RECORDED_PACKAGES},
            "plugins": {entry.plugin.name: entry.plugin.origin for entry in prepared.methods},
            "preset": prepared.protocol.preset.model_dump(mode="json"),
            "studies": {plan.id: list(plan.concepts) for plan in prepared.plans},
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
