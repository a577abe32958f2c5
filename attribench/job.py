"""The main job: from a command line or a `run.toml` to a run folder.

gather the configuration ─► find plugins, open the data ─► plan the studies ─► steps ─► execute ─► evaluate
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribench import plugins
from attribench.data import Dataset
from attribench.diffusion.fingerprint import fingerprint, require_layout
from attribench.diffusion.geometry import picture_side
from attribench.editions import open_dataset
from attribench.engine.progress import Listener
from attribench.engine.run import Outcome, execute
from attribench.engine.steps import Step
from attribench.engine.store import ArtifactStore
from attribench.errors import AttribenchError, MethodError, Unavailable, UnknownName, UsageError
from attribench.interface import Access, AttributionMethod, Edition, Role, Split
from attribench.measurement import Metric
from attribench.protocols.protocol import Protocol
from attribench.run_config import RunConfig
from attribench.study.blame import blame
from attribench.study.estimates import estimates
from attribench.study.losses import TakenLosses
from attribench.study.plan import StudyPlan
from attribench.study.restriction import restrict
from attribench.study.retraining import Retrainings
from attribench.study.runs import MethodRun, StudySteps, check
from attribench.study.training import Customization

if TYPE_CHECKING:
    from attribench.results.record import Row
    from attribench.results.tuning import Tuning

WHOLE_PICTURES = "it attributes whole pictures, and this run asks for boxes of them; leave --region(s) out to run it"


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
    model: str
    """Fingerprint of the base model."""
    device: str
    plans: list[StudyPlan]
    studies: dict[str, StudySteps]
    """By study id."""
    truths: dict[str, dict[Role, TakenLosses]]
    """What is retrained for the truth of a study's queries, by study id and role. Grows where that depends on scores."""
    methods: list[MethodSteps]
    added: tuple[Metric, ...]
    """Metrics that were asked for beside the protocol's own."""
    store: ArtifactStore
    folder: Path
    found: dict[str, bool] = field(default_factory=dict)
    """By the key of each model that is retrained for a truth: whether it was there before the run."""

    def metrics(self, variant: str) -> list[Metric]:
        """All that is measured for the queries of a variant: the protocol's own metrics, then those asked for beside them."""
        own = self.protocol.metrics(variant)
        names = {metric.name for metric in own}
        return [*own, *(metric for metric in self.added if metric.name not in names)]

    @property
    def targets(self) -> list[Step]:
        """The steps whose results the run needs, as far as they are known."""
        generating = [study for study in self.studies.values() if study.plan.given is None]
        made = [step for study in generating for step in (*study.trainings, study.pictures)]
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
        self.truths[plan.id] |= (taken := TakenLosses.of_all(self.studies[plan.id], needed, self.store.has))
        for of_role in taken.values():
            self.found = of_role.found_before(self.store.has) | self.found

    @property
    def retrainings(self) -> dict[str, int]:
        """How many models the truth asked for, counting each for every query and method that asked; how many they are;
        and how many of these were in the store before the run."""
        asked = sum(of_role.request.n_asked for truths in self.truths.values() for of_role in truths.values())
        keys = {ref.key for truths in self.truths.values() for of_role in truths.values() for ref in of_role.models.values()}
        return {"asked": asked, "distinct": len(keys), "found": sum(self.found[key] for key in keys)}


@dataclass
class Result:
    """A finished run."""

    prepared: Prepared
    folder: Path
    seconds: float
    rows: list[Row]
    failure: AttribenchError | None
    """What makes the exit code non-zero: a method or step that failed, or a control that is off."""
    unserved: dict[str, str] = field(default_factory=dict)
    """Of the metrics that were asked for beside the protocol's own, those without numbers, and why."""


def prepare(config: RunConfig) -> Prepared:
    """Everything short of running: plugins found, data opened, studies planned, steps made."""
    for path in config.plugins:
        plugins.add_file(path)
    dataset = open_dataset(config.dataset, config.edition, config.data_root)
    if not (config.protocol or dataset.default_protocol):
        raise UsageError(f"{dataset.name} holds {dataset.kind} and has no experiment of its own; take a data set that uses it")
    protocol_class = plugins.find("protocol", config.protocol or dataset.default_protocol).load()
    if not isinstance(dataset, protocol_class.data):
        raise UsageError(
            f"the protocol {protocol_class.name} takes {protocol_class.data.kind}, and {dataset.name} holds {dataset.kind}; "
            f"leave --protocol out for its own, {dataset.default_protocol}"
        )
    preset = config.preset or dataset.edition
    asked = config.methods or protocol_class.methods_of(preset)
    chosen, metrics, protocol_overrides = _configured(config, asked, protocol_class.name)
    protocol = protocol_class.with_preset(preset, protocol_overrides)

    model = config.model or (str(tiny_model()) if dataset.edition == "mini" else protocol.paper_model)
    require_layout(model)  # before hours of what needs no model
    known = fingerprint(model)
    plans = protocol.plans(dataset, model=known, split=config.split, seed=config.seed, limit=config.limit)
    if config.region or config.regions:
        given = any(plan.given is not None for plan in plans)  # of any size: boxes are held against each when it is read
        side = None if given else picture_side(model, plans[0].training.latent_side)
        plans = restrict(plans, config.region, config.regions, side)
    bindings = {"model": model, "dataset": dataset}
    boxes = any(plan.regions for plan in plans)
    methods = [_resolved(plugin, method, dataset.edition, boxes=boxes) for plugin, method in chosen]
    for entry in methods:
        check(entry.method)
        entry.skipped = entry.skipped or protocol.skip(entry.method) or _skip_plans(entry.method, plans)
    plans = _with_base(plans, methods, protocol, dataset, config.split)
    if all(plan.given is not None for plan in plans):
        _skip_where_given(methods)
    for entry in methods:
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
        config=config, dataset=dataset, protocol=protocol, model=known, device=device, plans=plans, studies=studies,
        methods=methods, added=metrics, truths={plan.id: {} for plan in plans},
        store=ArtifactStore(config.store or default_store()), folder=config.out or _new_folder(dataset),
    )  # fmt: skip
    _require_own_names(prepared)
    for plan in plans:
        prepared.ask(plan, protocol.retrainings(plan))
    return prepared


def _require_own_names(prepared: Prepared) -> None:
    """Raise UsageError where two metrics measure under one name, so that their numbers could not be told apart."""
    for variant in dict.fromkeys(case.variant for plan in prepared.plans for case in plan.roles("query")):
        taken = {metric.name: metric for metric in prepared.protocol.metrics(variant)}
        for metric in prepared.added:
            if metric != taken.setdefault(metric.name, metric):
                raise UsageError(
                    f"--metric: two different metrics are called {metric.name!r}; give the one that was added another name"
                )


def run(prepared: Prepared, listener: Listener) -> Result:
    """Execute the steps, then those that depend on the scores; evaluate what came out, write the run folder."""
    from attribench.results import run_folder
    from attribench.results.evaluation import Evaluated, check_at_chance, evaluate
    from attribench.results.truth_folder import write_truths
    from attribench.results.tuning import tune

    started = time.perf_counter()
    run_folder.clear(prepared.folder, prepared.protocol.pictures)
    run_folder.write_configuration(prepared)
    outcomes = _execute(prepared, prepared.targets, listener)
    failure: AttribenchError | None = None
    tunings: dict[str, Tuning] = {}
    found = Evaluated()
    try:
        if further := _further(prepared, outcomes):
            outcomes = _execute(prepared, further, listener) | outcomes
        failure = _first_failure(prepared, outcomes)
        tunings = tune(prepared, outcomes)
        found = evaluate(prepared, outcomes, tunings)
        check_at_chance(prepared)
    except AttribenchError as error:
        failure = failure or error
    seconds = time.perf_counter() - started
    run_folder.write_scores_of(prepared, outcomes, tunings)
    write_truths(prepared, outcomes)
    run_folder.write_manifest(prepared, outcomes, tunings, found.unserved, seconds)
    run_folder.write_page(prepared, found, seconds, failure)
    return Result(prepared, prepared.folder, seconds, found.rows, failure, found.unserved)


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
            tables = score_tables(prepared, plan, lambda step: outcomes[step].ok)
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


def _configured(
    config: RunConfig, asked: Sequence[str], protocol: str
) -> tuple[list[tuple[plugins.Plugin, AttributionMethod]], tuple[Metric, ...], dict]:
    """The methods asked for and all controls, and the metrics asked for, with their parameters; the protocol's parameters."""
    if not asked:
        raise UsageError("say which method: --method montrage (`attribench list` shows all)")
    own = [plugins.find("method", name) for name in asked]
    chosen = list({plugin.name: plugin for plugin in [*own, *_controls()]}.values())
    metrics = list(dict.fromkeys(plugins.find("metric", name) for name in config.metrics))
    overrides: dict[str, Any] = {}
    given: dict[plugins.Plugin, dict[str, Any]] = {plugin: {} for plugin in [*chosen, *metrics]}
    for owner, values in config.params.items():
        if plugins.canonical(owner) == plugins.canonical(protocol):
            overrides |= values
        else:
            given[_owner(owner, given)] |= values
    configured = {plugin: plugins.configure(plugin.load(), values, plugin.name) for plugin, values in given.items()}
    return [(p, configured[p]) for p in chosen], tuple(configured[p] for p in metrics), overrides


def _owner(name: str, chosen: Iterable[plugins.Plugin]) -> plugins.Plugin:
    """The method or metric of this run that `--param NAME.…` is about."""
    for plugin in chosen:
        if plugins.canonical(plugin.name) == plugins.canonical(name):
            return plugin
    try:
        plugin = plugins.find("method", name)
    except UnknownName as unknown:
        try:
            plugin = plugins.find("metric", name)
        except UnknownName:
            raise unknown from None
    raise UsageError(
        f"--param {name}.…: the {plugin.kind} {plugin.name} is not part of this run; add --{plugin.kind} {plugin.name}"
    )


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


def _resolved(plugin: plugins.Plugin, method: AttributionMethod, edition: Edition, *, boxes: bool) -> MethodSteps:
    """`boxes`: whether some queries are to be attributed by a box of their picture."""
    try:
        resolved = method.resolve(edition)
        if boxes and not resolved.takes_regions:
            return MethodSteps(plugin, resolved, WHOLE_PICTURES)
        return MethodSteps(plugin, resolved, resolved.skip(edition))
    except AttribenchError:
        raise
    except Exception as error:
        raise MethodError(f"the method {plugin.name!r} ({plugin.origin}) raised {type(error).__name__}: {error}") from error


def _skip_plans(method: AttributionMethod, plans: Sequence[StudyPlan]) -> str | None:
    """Why a method does not do with the queries of the plans, or with models that come about as theirs do; or None."""
    fewest = min(len(plan.roles("query")) for plan in plans)
    if fewest < method.fewest_queries:
        return f"a study has {fewest} query, and it says nothing of fewer than {method.fewest_queries}"
    with blame(f"the method {method.name!r}"):
        reasons = [method.skip_models(customized=isinstance(plan.training, Customization)) for plan in plans]
    return next(filter(None, reasons), None)


def _with_base(
    plans: list[StudyPlan], methods: Sequence[MethodSteps], protocol: Protocol, dataset: Dataset, split: Split
) -> list[StudyPlan]:
    """The plans with the pictures that features of the base model are read of, where a method has such features.

    A method is skipped if the protocol has none.
    """
    asking = [entry for entry in methods if entry.skipped is None and any(f.of_base() for f in entry.method.features())]
    if not asking:
        return plans
    try:
        base = protocol.base_images(dataset, split)
    except Unavailable as error:
        for entry in asking:
            entry.skipped = str(error)
        return plans
    return [dataclasses.replace(plan, base=base) for plan in plans]


def _skip_where_given(methods: Sequence[MethodSteps]) -> None:
    """Leave out what cannot be done with given pictures, and controls for which alone models would have to be trained."""
    for entry in methods:
        if entry.skipped is None and _reads(entry.method, Access.TRAJECTORY):
            entry.skipped = "the pictures of this data set are given, and how they were sampled is not known"
    models = Access.GRADIENTS | Access.CHECKPOINTS | Access.TRAINING
    if any(entry.skipped is None and not entry.method.control and _reads(entry.method, models) for entry in methods):
        return
    for entry in methods:
        if entry.skipped is None and _reads(entry.method, models):
            entry.skipped = "no method of this run reads the trained models, so none are trained for a control"


def _reads(method: AttributionMethod, access: Access) -> bool:
    """Whether the method, or any features that it names, declares any of this access."""
    return any(bool(reader.needs & access) for reader in (method, *method.features()))


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
