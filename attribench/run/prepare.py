"""From a configuration to a run that is ready to start: find plugins, open the data, plan the studies, make the steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from attribench import plugins
from attribench.attribution.method_run import MethodRun, check
from attribench.data import Dataset, Edition, Split
from attribench.diffusion.fingerprint import fingerprint, picture_side, require_layout
from attribench.editions import open_dataset
from attribench.engine.store import ArtifactStore
from attribench.errors import AttribenchError, MethodError, Unavailable, UnknownName, UsageError
from attribench.interface import Access, AttributionMethod
from attribench.measurement import Metric
from attribench.protocols.protocol import Protocol
from attribench.run.config import RunConfig
from attribench.run.measured import variants_of
from attribench.run.places import default_store, new_folder, tiny_model
from attribench.run.prepared import MethodSteps, Prepared
from attribench.run.regions import restrict
from attribench.study.blame import blame
from attribench.study.estimates import estimates
from attribench.study.plan import StudyPlan
from attribench.study.study_steps import StudySteps
from attribench.study.training import Customization

WHOLE_PICTURES = "it attributes whole pictures, and this run asks for boxes of them; leave --region(s) out to run it"


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
        store=ArtifactStore(config.store or default_store()), folder=config.out or new_folder(dataset),
    )  # fmt: skip
    _require_own_names(prepared)
    for plan in plans:
        prepared.ask(plan, protocol.retrainings(plan))
    return prepared


def _require_own_names(prepared: Prepared) -> None:
    """Raise UsageError where two metrics measure under one name, so that their numbers could not be told apart."""
    for variant in variants_of(prepared.plans):
        taken = {metric.name: metric for metric in prepared.protocol.metrics(variant)}
        for metric in prepared.added:
            if metric != taken.setdefault(metric.name, metric):
                raise UsageError(
                    f"--metric: two different metrics are called {metric.name!r}; give the one that was added another name"
                )


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
    """Every control that can be loaded and runs beside the methods, always."""
    found = []
    for plugin in plugins.all_plugins("method").values():
        with suppress(MethodError):  # a stranger's broken plugin; `attribench plugins` shows it
            if (cls := plugin.load()).control and not cls.on_request:
                found.append(plugin)
    return found


def _resolved(plugin: plugins.Plugin, method: AttributionMethod, edition: Edition, *, boxes: bool) -> MethodSteps:
    """`boxes`: whether some queries are to be attributed by a box of their picture."""
    try:
        resolved = method.resolve(edition)
        refuses = boxes and not resolved.takes_regions
        return MethodSteps(plugin, resolved, WHOLE_PICTURES if refuses else resolved.skip(edition))
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
    reading = [entry for entry in methods if entry.skipped is None and _reads(entry.method, models)]
    if all(entry.method.control for entry in reading):
        for entry in reading:
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
