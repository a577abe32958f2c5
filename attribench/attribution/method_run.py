"""What a run does on one study: the trainings and pictures that all methods build on, then each method's own steps."""

from __future__ import annotations

from dataclasses import dataclass

from attribench.attribution.reading import features_name, reader_name
from attribench.attribution.shared import shared_step
from attribench.attribution.steps import fit_step, of_generations, of_queries, read_step, score_step
from attribench.data import Role
from attribench.engine.steps import Step
from attribench.errors import AccessError, MethodError
from attribench.interface import Access, AttributionMethod, Features
from attribench.study.blame import blame
from attribench.study.plan import StudyPlan
from attribench.study.study_steps import StudySteps


@dataclass(frozen=True)
class MethodRun:
    """One method on one study with one seed."""

    plan: StudyPlan
    seed: int
    fit: Step
    score: Step
    dev: Step | None
    """The scores of the dev queries, where there are candidates to choose from."""
    features: tuple[Step, ...]
    """Of the training images, and of those that all studies share."""
    query_features: tuple[Step, ...]
    learned_features: tuple[Step, ...]
    """Of the generations that it learns from."""
    trainings: tuple[Step, ...]
    """The further ones that its ensemble, or that of its features, needs."""

    @classmethod
    def of(cls, study: StudySteps, method: AttributionMethod, seed: int, *, tunes: bool = True) -> MethodRun:
        """`tunes`: whether the protocol lets candidates be told apart by the dev queries."""
        fitted = fit_step(study, method, seed)
        features = tuple(dict.fromkeys(method.features()))
        shared = [step for of in features if (step := shared_step(study, of)) is not None]
        n_seeds = max(reader.ensemble().seeds for reader in (method, *features))
        return cls(
            plan=study.plan,
            seed=seed,
            fit=fitted,
            score=score_step(study, method, fitted),
            dev=score_step(study, method, fitted, "fit") if tunes and method.candidates() else None,
            features=(*(read_step(study, of) for of in features), *shared),
            query_features=tuple(read_step(study, of, "query") for of in of_queries(features)),
            learned_features=tuple(dict.fromkeys(read_step(study, of, "fit") for of in of_generations(method))),
            trainings=study.trainings[1:n_seeds],
        )

    @property
    def steps(self) -> tuple[Step, ...]:
        """What has to succeed for the method to have a row, in the order in which it is run."""
        return (self.fit, self.score) if self.dev is None else (self.fit, self.score, self.dev)

    def scores_of(self, role: Role) -> Step:
        """The step that scores the queries of a role; dev queries only where there are candidates."""
        return self.score if role == "query" else self.dev


def check(method: AttributionMethod) -> None:
    """Raise MethodError, naming the method, unless what it declares beside fit and score can be."""
    with blame(f"the method {method.name!r}"):
        for features in method.features():
            if not isinstance(features, Features):
                raise MethodError(f"features() must return Features, not {features!r}; mend the plugin")
            features_name(features)
        for reader in (method, *method.features()):
            ensemble = reader.ensemble()
            if ensemble.n_models > 1 and Access.CHECKPOINTS not in reader.needs:
                raise AccessError(
                    f"{reader_name(reader)} asks for an ensemble of {ensemble.n_models} models but declares no "
                    "Access.CHECKPOINTS; add it to the class's `needs`"
                )
        candidates = method.candidates()
        if any(type(candidate) is not type(method) for candidate in candidates):
            raise MethodError("candidates() must return instances of the method's own class; mend the plugin")
        if candidates and not 0 <= method.default_candidate() < len(candidates):
            default, n = method.default_candidate(), len(candidates)
            raise MethodError(f"default_candidate() is {default}, but there are {n} candidates; mend the plugin")
