"""From what a submission says it ran to the studies themselves, planned again here: nothing of them is taken from the file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from attribench import plugins
from attribench.data import Dataset
from attribench.diffusion.fingerprint import fingerprint
from attribench.editions import open_dataset
from attribench.errors import UsageError
from attribench.job import tiny_model
from attribench.protocols.protocol import Protocol
from attribench.run_config import RunConfig
from attribench.study.plan import StudyPlan
from attribench.submissions.statement import Experiment


@dataclass(frozen=True)
class Planned:
    """The studies of an experiment."""

    experiment: Experiment
    dataset: Dataset
    protocol: Protocol
    plans: tuple[StudyPlan, ...]

    @property
    def digests(self) -> dict[str, str]:
        """What each study's plan is, by its id."""
        return {plan.id: _digest(plan) for plan in self.plans}


def experiment_of(config: RunConfig) -> Experiment:
    """What a run's configuration says apart from methods and machine. Raises UsageError for what no board can hold."""
    if config.region or config.regions:
        raise UsageError("this run attributes boxes of pictures, for which there is no board; submit a run of whole pictures")
    dataset = open_dataset(config.dataset, config.edition, config.data_root)
    protocol = plugins.find("protocol", config.protocol or dataset.default_protocol).name
    overrides = {}
    for owner, values in config.params.items():
        if plugins.canonical(owner) == plugins.canonical(protocol):
            overrides |= values
    published = plugins.find("protocol", protocol).load().paper_model
    model = config.model or (str(tiny_model()) if dataset.edition == "mini" else published)
    return Experiment(
        dataset=dataset.name, edition=dataset.edition, protocol=protocol, preset=config.preset or dataset.edition,
        overrides=overrides, split=config.split, seed=config.seed, limit=config.limit, model=fingerprint(model),
    )  # fmt: skip


def plan(experiment: Experiment, data_root: Path | None = None) -> Planned:
    """The studies, planned again. Raises an AttribenchError where the data set, the protocol or the preset is not there."""
    return _plan(experiment.model_dump_json(), data_root)


@lru_cache(maxsize=32)
def _plan(experiment_text: str, data_root: Path | None) -> Planned:
    experiment = Experiment.model_validate_json(experiment_text)
    dataset = open_dataset(experiment.dataset, experiment.edition, data_root)
    overrides: dict[str, Any] = dict(experiment.overrides)
    protocol = plugins.find("protocol", experiment.protocol).load().with_preset(experiment.preset, overrides)
    if not isinstance(dataset, protocol.data):
        raise UsageError(f"the protocol {protocol.name} takes {protocol.data.kind}, and {dataset.name} holds {dataset.kind}")
    plans = protocol.plans(
        dataset, model=experiment.model, split=experiment.split, seed=experiment.seed, limit=experiment.limit
    )
    return Planned(experiment, dataset, protocol, tuple(plans))


def _digest(plan: StudyPlan) -> str:
    return hashlib.sha256(json.dumps(to_jsonable_python(_said(plan)), sort_keys=True).encode()).hexdigest()


def _said(value: Any) -> Any:
    """A plan as plain values. A field that has its default is left out, so that a new field changes no old digest."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {field.name: _said(content) for field, content in fields if content != field.default}
    if isinstance(value, (list, tuple)):
        return [_said(item) for item in value]
    if isinstance(value, dict):
        return {key: _said(item) for key, item in value.items()}
    return value
