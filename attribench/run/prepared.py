"""A run that is ready to start, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attribench import plugins
from attribench.attribution.method_run import MethodRun
from attribench.data import Dataset, Role
from attribench.engine.steps import Step
from attribench.engine.store import ArtifactStore
from attribench.interface import AttributionMethod
from attribench.measurement import Metric
from attribench.protocols.protocol import Protocol
from attribench.run.config import RunConfig
from attribench.study.plan import StudyPlan
from attribench.study.retrainings import Retrainings
from attribench.study.study_steps import StudySteps
from attribench.truth.losses import TakenLosses


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
