"""One small study, real throughout: two drawn concepts, a random-weight model, seven pictures in four chunks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from attribench.diffusion.fingerprint import fingerprint
from attribench.diffusion.monitor import ValueMonitor
from attribench.editions import open_dataset
from attribench.engine.run import execute
from attribench.engine.store import ArtifactStore
from attribench.protocols.between_concepts import BetweenConcepts
from attribench.study.plan import StudyPlan
from attribench.study.runs import MethodRun, StudySteps
from attribench.study.steps import generate_step, train_step

SMALL = {
    "n_concepts": 2, "n_studies": 1, "images_per_concept": 2, "templates": 2, "fit_pictures": 1,
    "query_pictures.un-mixed": 1, "query_pictures.mixed": 1, "customization.epochs": 2,
    "customization.batch_size": 2, "sampling.steps": 2, "sampling.batch_size": 2,
}  # fmt: skip


@pytest.fixture(scope="session")
def bindings(paper_folder: Path, small_model_folder: Path) -> dict:
    """Where the steps find data and model."""
    return {"model": str(small_model_folder), "dataset": open_dataset("customconcept101", "paper", paper_folder)}


@pytest.fixture(scope="session")
def plan(bindings: dict) -> StudyPlan:
    """The study."""
    protocol = BetweenConcepts.with_preset("mini", SMALL)
    (plan,) = protocol.plans(
        bindings["dataset"], model=fingerprint(bindings["model"]), split="test", seed=0, limit=None
    )
    return plan


@pytest.fixture(scope="session")
def monitors(plan: StudyPlan) -> tuple[ValueMonitor, ValueMonitor]:
    """Two observers of its training."""
    first = ValueMonitor(prompts=tuple(sorted({case.prompt for case in plan.cases})))
    return first, replace(first, norm="l2")


@pytest.fixture(scope="session")
def trained_store(plan, bindings, monitors, tmp_path_factory) -> ArtifactStore:
    """The study trained, watched by the first monitor, and its pictures. To look at; `store` is a copy to work in."""
    store = ArtifactStore(tmp_path_factory.mktemp("study") / "store")
    trained = train_step(plan, monitors[:1], bindings)
    pictures = generate_step(plan, trained, bindings)
    outcomes = execute([trained, pictures], store, workers=0)
    assert [outcome.reason for outcome in outcomes.values() if not outcome.ok] == []
    return store


@pytest.fixture
def store(trained_store: ArtifactStore, tmp_path: Path) -> ArtifactStore:
    """A copy of the trained store."""
    shutil.copytree(trained_store.root, tmp_path / "store")
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def study_of(plan, bindings, monitors):
    """What some methods build on: the study, or another plan, trained and observed, and its pictures."""

    def of(*methods, plan: StudyPlan = plan) -> StudySteps:
        return StudySteps.of(plan, methods, bindings, observers=monitors[:1])

    return of


@pytest.fixture
def run_of(study_of):
    """The steps of a method on the study, or on another plan."""

    def of(method, plan: StudyPlan | None = None, seed: int = 0, beside: tuple = ()) -> MethodRun:
        study = study_of(method, *beside) if plan is None else study_of(method, *beside, plan=plan)
        return MethodRun.of(study, method, seed)

    return of
