"""The contract of a protocol: a paper's experiment. It knows no method.

preset (TOML) ──► plans(dataset) ──► StudyPlan … ──► truth(plan, observed, retrained) ──► metrics(variant)

A protocol whose truth is in models trained on parts of the images asks for them: with `retrainings` for those that
are known beforehand, and with `further_retrainings` for those that depend on what the methods say.
"""

from __future__ import annotations

import tomllib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import pydantic

from attribench import plugins
from attribench.attribution.scores import ScoreTable
from attribench.data import Dataset, Role, Split
from attribench.diffusion import noise
from attribench.diffusion.observing import TrainingObserver
from attribench.errors import Unavailable, UsageError
from attribench.interface import AttributionMethod
from attribench.measurement import Metric, Retrained, Truth
from attribench.study.plan import SharedImages, StudyPlan
from attribench.study.retrainings import Look, Part, Retrainings

if TYPE_CHECKING:
    import pandas as pd

    from attribench.report.figures.regenerated import Regenerated
    from attribench.report.record import Row


Item = TypeVar("Item")


class Preset(pydantic.BaseModel):
    """Counts and hyper-parameters of a protocol; unknown keys are refused.

    A preset's file may say two things more. `extends = "mini"`: it holds no more than what is changed of that preset, so that
    numbers stand in one place. `methods`: what is run where no method is asked for, of a preset that is there to compare
    certain ones; to the protocol, which knows no method, they are names.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Results:
    """What a run found: the record, and the values behind it (`attribench.report.record`)."""

    plans: Sequence[StudyPlan]
    """Those that could be trained."""
    truths: Mapping[str, Truth]
    """Of their held-out queries, by study id."""
    rows: Sequence[Row]
    per_query: pd.DataFrame


class Protocol(ABC):
    """An experiment over a data set and a base model."""

    name: ClassVar[str]
    data: ClassVar[type[Dataset]]
    """The kind of data set that it takes."""
    preset_type: ClassVar[type[Preset]]
    marks: ClassVar[str] = "shows a concept of the prompt"
    """What is true of the images that `relevant` names, or that labels name; pictures of results frame them."""
    paper_model: ClassVar[str] = "CompVis/stable-diffusion-v1-4"
    """The base model of the paper edition where none is given."""
    pictures: ClassVar[Mapping[str, str]] = {}
    """Files that `draw` writes to the run folder, and what each shows."""
    tunes: bool = True
    """Whether candidates of a method are told apart by its dev queries; otherwise the default one is all there is."""

    def __init__(self, preset: Preset) -> None:
        self.preset = preset

    @classmethod
    def with_preset(cls, name: str, overrides: Mapping[str, Any]) -> Protocol:
        """The protocol under the preset `<protocol>.<name>.toml`, some keys overridden.

        An override may be a string; keys of tables are dotted ("customization.epochs").
        """
        values = cls._written(name)
        values.pop("methods", None)
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

    @classmethod
    def methods_of(cls, preset: str) -> tuple[str, ...]:
        """What a preset that compares certain methods has run where none are asked for, by name; () for other presets."""
        return tuple(cls._written(preset).get("methods", ()))

    @classmethod
    def _written(cls, name: str) -> dict[str, Any]:
        """What the preset's file says, on top of what it extends. Raises UsageError if there is none."""
        folder = resources.files("attribench.protocols")
        file = folder / f"{cls.name}.{name}.toml"
        if not file.is_file():
            known = [entry.name.removeprefix(f"{cls.name}.").removesuffix(".toml") for entry in folder.iterdir()
                     if entry.name.startswith(f"{cls.name}.") and entry.name.endswith(".toml")]  # fmt: skip
            raise UsageError(f"the protocol {cls.name} has no preset {name!r}; there are: {', '.join(sorted(known))}")
        values = tomllib.loads(file.read_text())
        base = values.pop("extends", None)
        return values if base is None else cls._written(base) | values

    @abstractmethod
    def plans(self, dataset: Dataset, *, model: str, split: Split, seed: int, limit: int | None) -> list[StudyPlan]:
        """The studies: which models are trained on what, and what they generate. `model`: its fingerprint."""

    def base_images(self, dataset: Dataset, split: Split) -> SharedImages:
        """Pictures that no study of this split is about, the same for all. Asked for where features need them.

        Raises Unavailable where there are none, or where models are not made from a base model.
        """
        raise Unavailable(f"the protocol {self.name} names no pictures for features of a base model; read the study's own")

    def notices(self, dataset: Dataset, split: Split) -> tuple[str, ...]:
        """What a run is to tell about its studies, a line each."""
        return ()

    def skip(self, method: AttributionMethod) -> str | None:
        """Why a method is not run here, or None. Asked before anything is trained."""
        return None

    def truth_observers(self, plan: StudyPlan) -> tuple[TrainingObserver, ...]:
        """What must be seen of the training to know the truth."""
        return ()

    def retrainings(self, plan: StudyPlan) -> tuple[Retrainings, ...]:
        """Models and losses that the truth takes, whatever the methods say; at most one request for each role.

        That of role "fit" is met only if there is something to tune.
        """
        return ()

    def further_retrainings(self, plan: StudyPlan, tables: Sequence[ScoreTable]) -> tuple[Retrainings, ...]:
        """The same, where it depends on the scores; asked once all `tables` of the study that could be made are there.

        They are those of every method, control and seed for the held-out queries, and where something is tuned for
        the dev queries too: of a method with candidates, a table for each (only the default one if nothing is tuned).
        A request takes the place of the one that `retrainings` made for its role; what that has made is found again.
        """
        return ()

    def request(self, plan: StudyPlan, role: Role, looks: Sequence[Look] = ()) -> Retrainings | None:
        """The request for one role with these looks in it, which the scores of another run asked for; None if it is empty.

        A protocol that retrains for scores alone says here how it looks.
        """
        own = next((request for request in self.retrainings(plan) if request.role == role), None)
        if own is None and looks:
            raise UsageError(f"the protocol {self.name} retrains nothing for {role} pictures, and looks at none")
        return own and replace(own, looks=(*own.looks, *looks))

    def further_at_most(self, plan: StudyPlan, n_tables: int) -> int:
        """How many models `further_retrainings` can ask for, given so many tables; for a dry run."""
        return 0

    def relevant(self, plan: StudyPlan, role: Role = "query") -> np.ndarray | None:
        """[n_query, n_train] bool: what labels alone say of the truth, known before anything is trained; None if nothing.

        A verifier takes this part of a stranger's truth from here, and not from the stranger.
        """
        return None

    def concepts(self, plan: StudyPlan) -> np.ndarray | None:
        """[n_train] int: which concept each training image shows; None without labels. Like `relevant`, no stranger's word."""
        names = [image.concept for image in plan.rows]
        return np.unique(names, return_inverse=True)[1] if all(names) else None

    def tables(
        self, plan: StudyPlan, observed: Mapping[TrainingObserver, Mapping[str, np.ndarray]], role: Role
    ) -> Mapping[str, np.ndarray]:
        """[n_query, n_train] each: attributions that were seen in the training, by name; what `truth` has for tables."""
        return {}

    def drawn(self, plan: StudyPlan, masks: np.ndarray) -> np.ndarray | None:
        """[M] bool: which of the subsets [M, n_train] were drawn at random; None where that sets none apart."""
        return None

    def truth(
        self,
        plan: StudyPlan,
        observed: Mapping[TrainingObserver, Mapping[str, np.ndarray]],
        role: Role = "query",
        retrained: Retrained | None = None,
    ) -> Truth:
        """The truth of the plan's queries, in the order of `plan.roles(role)`; by role "fit", of its dev queries.

        `retrained`: what came of the request for that role, its queries in the same order and its subsets and seeds as
        they were asked for; None if there was none. `observed`: what the `truth_observers` kept. Made of `relevant`,
        `tables` and `drawn`, so that a protocol gives just what its metrics need.
        """
        if retrained is not None:
            retrained = replace(retrained, drawn=self.drawn(plan, retrained.masks))
        return Truth(
            query_ids=tuple(case.id for case in plan.roles(role)),
            train_ids=tuple(image.id for image in plan.rows),
            relevant=self.relevant(plan, role),
            concepts=self.concepts(plan),
            tables=self.tables(plan, observed, role),
            retrained=retrained,
        )

    @abstractmethod
    def metrics(self, variant: str) -> list[Metric]:
        """What is measured for the queries of a variant; the first one is what the table is sorted by."""

    def draw(self, folder: Path, results: Results) -> None:  # noqa: B027
        """Write the protocol's own `pictures`."""

    def shown_again(self, scores: np.ndarray) -> Mapping[str, Part]:
        """Of one query's scores [n_train], the retrained models whose regeneration is shown, by what to call each.

        Only for a protocol that has pictures generated again; those that it did not ask for are left out.
        """
        return {}

    def shown_at_random(self, plan: StudyPlan) -> Mapping[str, Part]:
        """The same where images were removed at random, if they were, by the same names."""
        return {}

    def draw_again(self, folder: Path, shown: Sequence[Regenerated]) -> None:  # noqa: B027
        """Write the picture of queries that were generated again, one of each study."""

    def tuning_metric(self, variant: str) -> Metric:
        """By what the candidates of a method are told apart on the dev queries of a variant."""
        return self.metrics(variant)[0]


def metric(name: str, **parameters: Any) -> Metric:
    """The metric that goes by a name."""
    return plugins.find("metric", name).load()(**parameters)


def some_of(items: Sequence[Item], wanted: int | None, *key: str | int) -> list[Item]:
    """So many of the items, drawn by a key, in their own order; all of them for None, or where there are no more."""
    if wanted is None or len(items) <= wanted:
        return list(items)
    return [items[i] for i in sorted(noise.draws(*key).permutation(len(items))[:wanted])]
