"""The contract of a protocol: a paper's experiment. It knows no method.

preset (TOML) ──► plans(dataset) ──► StudyPlan … ──► truth(plan, observed) ──► metrics(variant)
"""

from __future__ import annotations

import tomllib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import resources
from typing import Any, ClassVar

import numpy as np
import pydantic

from attribench.errors import UsageError
from attribench.interface import Dataset, Metric, Role, Split, TrainingObserver, Truth
from attribench.study.plan import StudyPlan


class Preset(pydantic.BaseModel):
    """Counts and hyper-parameters of a protocol; unknown keys are refused."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Protocol(ABC):
    """An experiment over a data set and a base model."""

    name: ClassVar[str]
    preset_type: ClassVar[type[Preset]]

    def __init__(self, preset: Preset) -> None:
        self.preset = preset

    @classmethod
    def with_preset(cls, name: str, overrides: Mapping[str, Any]) -> Protocol:
        """The protocol under the preset `<protocol>.<name>.toml`, some keys overridden.

        An override may be a string; keys of tables are dotted ("customization.epochs").
        """
        file = resources.files("attribench.protocols") / f"{cls.name}.{name}.toml"
        if not file.is_file():
            raise UsageError(f"the protocol {cls.name} has no preset {name!r}; there are: mini, paper")
        values = tomllib.loads(file.read_text())
        for key, value in overrides.items():
            table, parts = values, key.split(".")
            for part in parts[:-1]:
                table = table.setdefault(part, {})
                if not isinstance(table, dict):
                    raise UsageError(f"--param {cls.name}.{key}: {part!r} is a single value; leave out what follows it")
            table[parts[-1]] = value
        try:
            return cls(cls.preset_type.model_validate(values))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"--param {cls.name}.{where}={first['input']!r}: {first['msg']}") from error

    @abstractmethod
    def plans(self, dataset: Dataset, *, model: str, split: Split, seed: int, limit: int | None) -> list[StudyPlan]:
        """The studies: which models are trained on what, and what they generate. `model`: its fingerprint."""

    @abstractmethod
    def truth_observers(self, plan: StudyPlan) -> tuple[TrainingObserver, ...]:
        """What must be seen of the training to know the truth."""

    @abstractmethod
    def truth(
        self, plan: StudyPlan, observed: Mapping[TrainingObserver, Mapping[str, np.ndarray]], role: Role = "query"
    ) -> Truth:
        """The truth of the plan's queries, in the order of `plan.roles(role)`; by role "fit", of its dev queries."""

    @abstractmethod
    def metrics(self, variant: str) -> list[Metric]:
        """What is measured for the queries of a variant; the first one is what the table is sorted by."""

    def tuning_metric(self, variant: str) -> Metric:
        """By what the candidates of a method are told apart on the dev queries of a variant."""
        return self.metrics(variant)[0]
