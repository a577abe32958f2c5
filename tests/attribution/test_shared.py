"""Features of the base model: one artifact for all studies, made of the base model and of pictures that no study is about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from attribench.attribution.method_run import MethodRun
from attribench.attribution.shared import SharedStudy
from attribench.engine.run import execute
from attribench.errors import AccessError
from attribench.files.state import State
from attribench.gradients.diffusion import GradientReader
from attribench.gradients.fisher import Fisher
from attribench.interface import Access, AttributionMethod, Scores
from attribench.protocols.between_concepts import BetweenConcepts
from attribench.study.study_steps import StudySteps


@dataclass(frozen=True, kw_only=True)
class ByFisher(AttributionMethod):
    """Scores that need a Fisher matrix of the base model."""

    name: ClassVar[str] = "by-fisher"
    needs: ClassVar[Access] = Access.GRADIENTS

    fisher: Fisher = Fisher(kind="diagonal", group="cross-attention-kv", draws=1, of="base")

    def features(self):
        return (self.fisher,)

    def score(self, study, state, queries):
        squares = self.fisher.curvature(study.features(self.fisher), GradientReader(study.model, self.fisher.group, "loss"), 0.0)
        total = sum(float(part.sum()) for part in squares.squares.values())
        return Scores.of(queries, study.train, np.full((len(queries), len(study.train)), total))


@pytest.fixture
def with_base(plan, bindings):
    """The study of the other tests, and another one on the same base."""
    base = BetweenConcepts.with_preset("mini", {}).base_images(bindings["dataset"], plan.split)
    first = replace(plan, base=base)
    return first, replace(first, id="another", training=replace(first.training, seed=5))


def test_two_studies_share_one_reading_of_the_base_model(with_base, bindings, store):
    runs = [MethodRun.of(StudySteps.of(plan, [ByFisher()], bindings), ByFisher(), 0) for plan in with_base]
    assert runs[0].features == runs[1].features and runs[0].score != runs[1].score
    assert runs[0].query_features == ()
    outcomes = execute([step for run in runs for step in run.steps], store, workers=0)
    assert [outcome.reason for outcome in outcomes.values() if not outcome.ok] == []
    assert sum(step.name.startswith("read") for step in outcomes) == 1
    assert runs[0].features[0].keys == MethodRun.of(
        StudySteps.of(with_base[1], [ByFisher()], bindings), ByFisher(), 0
    ).features[0].keys  # fmt: skip


def test_what_is_read_is_the_base_model_over_the_pictures_of_other_concepts(with_base, bindings, tmp_path):
    plan = with_base[0]
    assert plan.base.images and not {image.concept for image in plan.base.images} & set(plan.concepts)
    study = SharedStudy(plan.base, bindings["dataset"], plan.edition, "cpu", "a Fisher", base_model=bindings["model"])
    assert not study.model.modifiers
    assert study.train.prompts == tuple(image.caption for image in plan.base.images)
    state = State(tmp_path)
    ByFisher().fisher.of_training(study, state)
    assert np.isfinite(state["squares"]).all() and state["squares"].max() > 0
    with pytest.raises(AccessError, match="of the base model without generations"):
        _ = study.generations


def test_a_base_model_and_a_study_are_told_apart(with_base, bindings):
    of_study = ByFisher(fisher=replace(ByFisher().fisher, of="study"))
    steps = StudySteps.of(with_base[0], [of_study], bindings)
    assert MethodRun.of(steps, of_study, 0).features != MethodRun.of(steps, ByFisher(), 0).features
