"""From what a submission says it ran to the studies themselves, planned again here: nothing of them is taken from the file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import to_jsonable_python

from attribench import plugins
from attribench.data import Dataset, Edition, Split
from attribench.diffusion.fingerprint import fingerprint
from attribench.editions import open_dataset
from attribench.errors import UsageError
from attribench.files.fields import Scalar, Strict, Text, Word
from attribench.protocols.protocol import Protocol
from attribench.run.config import RunConfig
from attribench.run.places import tiny_model
from attribench.study.plan import StudyPlan


@dataclass(frozen=True)
class Planned:
    """The studies of an experiment."""

    experiment: Experiment
    dataset: Dataset
    protocol: Protocol
    plans: tuple[StudyPlan, ...]

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of each study's plan, by its id."""
        texts = {plan.id: json.dumps(to_jsonable_python(_said(plan)), sort_keys=True) for plan in self.plans}
        return {study: hashlib.sha256(text.encode()).hexdigest() for study, text in texts.items()}


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
    plans = protocol.plans(dataset, model=experiment.model, split=experiment.split, seed=experiment.seed, limit=experiment.limit)
    return Planned(experiment, dataset, protocol, tuple(plans))


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


class Experiment(Strict):
    """What has to be repeated to get the same studies: all of a run's configuration that is not a method's."""

    dataset: Word
    edition: Edition
    protocol: Word
    preset: Word
    overrides: Annotated[dict[Text, Scalar | tuple[Scalar, ...]], Field(max_length=64)] = {}
    """Of the preset; a verifier follows them only where a board has the same."""
    split: Split = "test"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    limit: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    model: Text
    """Fingerprint of the base model."""
