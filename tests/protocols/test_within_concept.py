"""The studies of within-concept: one model a concept, monitored prompts, and the halves that scores ask for."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from attribench.attribution.scores import ScoreTable
from attribench.data import ConceptDataset, Queries
from attribench.editions import open_dataset
from attribench.engine.listener import Listener
from attribench.errors import DatasetError, UsageError
from attribench.interface import Scores
from attribench.protocols.within_concept import PICTURE, WithinConcept
from attribench.report import record
from attribench.run.config import RunConfig
from attribench.run.execute import Result, execute
from attribench.run.prepare import prepare
from attribench.run.truth_artifacts import looks_from_json, looks_to_json
from attribench.study.plan import StudyPlan

PRESETS = ["mini", "paper", "multi-concept", "multi-concept-paper"]


def plans(
    dataset: ConceptDataset, preset: str = "mini", *, seed: int = 0, limit: int | None = None, **overrides
) -> list[StudyPlan]:
    protocol = WithinConcept.with_preset(preset, overrides)
    return protocol.plans(dataset, model="fingerprint", split="test", seed=seed, limit=limit)


@pytest.fixture(scope="module", params=["artchive", "customconcept101"])
def mini(request) -> ConceptDataset:
    return open_dataset(request.param)


@pytest.fixture(scope="module")
def users_folder(paper_folder: Path) -> ConceptDataset:
    """Seven concepts with three pictures each, six of them in the test split."""
    return open_dataset("customconcept101", "paper", paper_folder)


@pytest.fixture(scope="module")
def grown_folder(paper_folder: Path, tmp_path_factory) -> Path:
    """The same with six pictures of five concepts, five of one, and three of one."""
    root = tmp_path_factory.mktemp("grown") / "customconcept101"
    shutil.copytree(paper_folder, root)
    random = np.random.default_rng(0)
    for place, folder in enumerate(sorted((root / "benchmark_dataset").iterdir())):
        for i in range(3, 3 if place == 1 else 5 if place == 2 else 6):
            Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
    return root


# --------------------------------------------------------------------------------------------- plans


def test_each_model_is_taught_one_concept_and_each_concept_is_taught_once(mini):
    studies = plans(mini)
    assert len(studies) == 8
    assert {len(plan.concepts) for plan in studies} == {1}
    assert len({plan.concepts for plan in studies}) == len({plan.id for plan in studies}) == 8
    for plan in studies:
        assert {image.concept for image in plan.training.images} == set(plan.concepts)
        assert len(plan.training.images) == 8
        assert [image.id for image in plan.training.images] == sorted(image.id for image in plan.training.images)


def test_queries_are_pictures_of_the_monitored_prompts(mini):
    for plan in plans(mini):
        (concept,) = (c for c in mini.concepts if c.name == plan.concepts[0])
        phrase = concept.phrase.format(modifier="<new1>")
        expected = {template.format(concept=phrase): 2 for template in mini.monitoring_templates[:5]}
        assert Counter(case.prompt for case in plan.roles("query")) == expected
        assert {case.prompt for case in plan.roles("fit")} == set(expected)


def test_queries_are_reported_on_and_yet_monitored(mini):
    cases = plans(mini)[0].roles("query")
    assert all(Queries(cases, None).monitored)


def test_no_picture_to_learn_from_is_a_query(mini):
    plan = plans(mini)[0]
    assert len({case.id for case in plan.cases}) == len(plan.cases)
    assert not {(c.prompt, c.seed) for c in plan.roles("fit")} & {(c.prompt, c.seed) for c in plan.roles("query")}


def test_the_paper_has_ten_prompts_of_five_pictures_and_a_hundred_timesteps(mini):
    plan = plans(mini, "paper")[0]
    assert sorted(Counter(case.prompt for case in plan.roles("query")).values()) == [5] * 10
    (request,) = WithinConcept.with_preset("paper", {}).further_retrainings(plan, [table(plan, np.random.default_rng(0))])
    assert request.measure.timesteps == 100


def test_a_truth_file_says_which_halves_were_asked_for(mini):
    """The looks that scores asked for come back from it, and make the same request."""
    every, protocol = plans(mini)[:2], WithinConcept.with_preset("mini", {})
    random = np.random.default_rng(0)
    asked = {plan.id: protocol.further_retrainings(plan, [table(plan, random)])[0] for plan in every}
    further = {(name, "query"): list(dict.fromkeys(request.looks)) for name, request in asked.items()}
    again = looks_from_json(looks_to_json(further), SimpleNamespace(plans=every))
    assert again == further
    for plan in every:
        request = protocol.request(plan, "query", again[plan.id, "query"])
        assert (request.parts, request.measure) == (asked[plan.id].parts, asked[plan.id].measure)
        assert protocol.request(plan, "fit") is None


def test_every_concept_with_enough_images_is_taken_unless_a_number_is_given(mini):
    n_test = sum(concept.split == "test" for concept in mini.concepts)
    assert len(plans(mini, "paper")) == n_test
    assert plans(mini, max_studies=3) == plans(mini, max_studies=8)[:3]


def test_several_concepts_share_a_model_in_the_multi_concept_presets(mini):
    for preset in PRESETS[2:]:
        for plan in plans(mini, preset):
            assert len(plan.concepts) == 5
            assert {case.concepts[0] for case in plan.roles("query")} == set(plan.concepts)
            assert all(case.modifiers == (case.modifiers[0],) and case.modifiers[0] in case.prompt for case in plan.cases)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(preset):
    assert WithinConcept.with_preset(preset, {}).preset.etas == (0.9, 0.8, 0.7, 0.6)


def test_the_seed_changes_which_concepts_are_taken_and_nothing_else_does(mini):
    assert plans(mini) == plans(mini)
    assert [p.concepts for p in plans(mini)] != [p.concepts for p in plans(mini, seed=1)]


def test_a_limit_keeps_queries_of_different_prompts(mini):
    for plan in plans(mini, limit=3):
        assert len({case.prompt for case in plan.roles("query")}) == len(plan.roles("query")) == 3
        assert len(plan.roles("fit")) == 5


# -------------------------------------------------------------------------------- concepts too small


def test_concepts_of_three_images_are_refused_unless_they_are_asked_for(users_folder):
    with pytest.raises(DatasetError, match="min_images"):
        plans(users_folder, "paper")
    assert len(plans(users_folder, "paper", min_images=3)) == 6


def test_a_concept_with_too_few_images_is_left_out_and_named(grown_folder):
    dataset = open_dataset("customconcept101", "paper", grown_folder)
    named = {name for plan in plans(dataset, "paper") for name in plan.concepts}
    few = [c.name for c in dataset.concepts if c.split == "test" and len(dataset.images(c.name)) == 3]
    notices = WithinConcept.with_preset("paper", {}).notices(dataset, "test")
    assert few and not named & set(few)
    assert all(name in notices[0] for name in few)


def test_nothing_is_told_when_nothing_is_left_out(mini):
    assert WithinConcept.with_preset("mini", {}).notices(mini, "test") == ()


@pytest.mark.parametrize("overrides", [{"min_images": 1}, {"etas": [0.4]}, {"timesteps": 0}, {"pictures": 0}, {"k": 5}])
def test_a_preset_that_cannot_be_is_refused(overrides):
    with pytest.raises(UsageError, match="within-concept"):
        WithinConcept.with_preset("mini", overrides)


# ---------------------------------------------------------------------------------------- retraining


def table(plan: StudyPlan, random: np.random.Generator, role="query") -> ScoreTable:
    cases, images = plan.roles(role), plan.training.images
    scores = Scores(random.random((len(cases), len(images))), tuple(c.id for c in cases), tuple(i.id for i in images))
    return ScoreTable(method="m", seed=0, candidate=None, role=role, scores=scores)


def test_halves_are_asked_for_once_whoever_asks(mini):
    plan, protocol = plans(mini)[0], WithinConcept.with_preset("mini", {})
    random = np.random.default_rng(0)
    tables = [table(plan, random) for _ in range(100)]
    (request,) = protocol.further_retrainings(plan, tables)
    assert len(request.subsets) == len(set(request.subsets)) <= 70 == protocol.further_at_most(plan, 100)
    assert {len(rows) for rows in request.subsets} == {4}
    assert protocol.further_retrainings(plan, tables[::-1]) == (request,)
    assert request.seeds == (plan.training.seed,)


def test_no_more_models_than_announced(mini):
    plan, protocol = plans(mini, "multi-concept")[0], WithinConcept.with_preset("multi-concept", {})
    tables = [table(plan, np.random.default_rng(i)) for i in range(3)]
    (request,) = protocol.further_retrainings(plan, tables)
    assert len(request.subsets) <= protocol.further_at_most(plan, 3)


def test_dev_queries_have_halves_of_their_own(mini):
    plan, protocol = plans(mini)[0], WithinConcept.with_preset("mini", {"tune": True})
    random = np.random.default_rng(1)
    query, fit = protocol.further_retrainings(plan, [table(plan, random), table(plan, random, "fit")])
    assert (query.role, fit.role) == ("query", "fit")
    assert protocol.tunes and not WithinConcept.with_preset("mini", {}).tunes


def test_no_scores_ask_for_no_retraining(mini):
    assert WithinConcept.with_preset("mini", {}).further_retrainings(plans(mini)[0], []) == ()


# ------------------------------------------------------------------------------------------- a run

SMALL = {"max_studies": 3, "images_per_concept": 5, "templates": 2, "pictures": 2, "timesteps": 3, "method_seeds": "[4, 16]",
         "customization.epochs": 2, "sampling.steps": 2}  # fmt: skip


@pytest.fixture(scope="module")
def finished(grown_folder: Path, small_model_folder: Path, tmp_path_factory) -> Result:
    """Three concepts of five images, a random-weight model, real retraining."""
    folder = tmp_path_factory.mktemp("run")
    params = [f"within-concept.{name}={value}" for name, value in SMALL.items()]
    config = RunConfig.gather(
        None, methods=["montrage", "pixel"], dataset="customconcept101", data_root=grown_folder, protocol="within-concept",
        preset="mini", model=str(small_model_folder), workers=0, store=folder / "store", out=folder / "run",
        params=[*params, "montrage.encoder=clip-tiny", "montrage.steps=20", "shuffled-queries.encoder=clip-tiny"],
    )  # fmt: skip
    return execute(prepare(config), Listener())


def test_a_run_reports_accuracy_shares_and_area(finished):
    assert finished.failure is None
    rows = record.read(finished.folder)
    assert [row.metric for row in rows if row.method == "montrage"] == [
        "accuracy", "area_above", "share_above@0.9", "share_above@0.8", "share_above@0.7", "share_above@0.6", "tied_cuts",
    ]  # fmt: skip
    for row in rows:
        assert row.status == "ok" and row.value is not None and row.variant == "monitored"
        assert row.n_queries == (12 if row.metric in ("accuracy", "tied_cuts") else 3)
        assert row.n_studies == 3


def test_a_constant_method_comes_out_at_chance_and_its_ties_are_counted(finished):
    constant = {row.metric: row.value for row in finished.rows if row.method == "constant"}
    assert constant["accuracy"] == 0.5
    assert constant["tied_cuts"] == 1
    assert constant["area_above"] == constant["share_above@0.6"] == 0
    assert {row.value for row in finished.rows if row.metric == "tied_cuts" and row.method == "random"} == {0}


def test_the_table_of_montrage_makes_one_prediction_a_prompt(finished):
    """So that the queries of a prompt are cut alike; were its encoder asked instead, they would differ."""
    from attribench.attribution.scores import read_scores

    for plan in finished.prepared.plans:
        values = read_scores(finished.folder / "scores" / "montrage" / f"{plan.id}-seed4.safetensors").values
        by_prompt = {case.prompt: row for case, row in zip(plan.roles("query"), values, strict=True)}
        for case, row in zip(plan.roles("query"), values, strict=True):
            np.testing.assert_array_equal(row, by_prompt[case.prompt])
        np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-5)  # τ, not a cosine


def test_accuracy_is_that_of_the_losses_on_disk(finished):
    """Each query's value, worked out from the stored losses by hand."""
    per_query = record.read_per_query(finished.folder)
    own = per_query[(per_query["method"] == "pixel") & (per_query["metric"] == "accuracy")].set_index(["study", "query_id"])
    from attribench.attribution.scores import read_scores

    for plan in finished.prepared.plans:
        known = finished.prepared.truths[plan.id]["query"].retrained(finished.prepared.store.path)
        scores = read_scores(finished.folder / "scores" / "pixel" / f"{plan.id}-seed0.safetensors")
        for q, query_id in enumerate(scores.query_ids):
            order = np.argsort(-scores.values[q])
            loss = [known.losses[q, known.subset(np.isin(np.arange(5), half)), 0] for half in (order[:2], order[3:])]
            assert own.loc[(plan.id, query_id), "value"] == (loss[0] < loss[1])


def test_the_picture_is_drawn(finished):
    with Image.open(finished.folder / PICTURE) as picture:
        assert picture.format == "PNG" and picture.width > 900


def test_a_multi_concept_run_draws_the_same_picture(grown_folder, small_model_folder, tmp_path):
    small = {"n_concepts": 2, "max_studies": 2, "images_per_concept": 3, "templates": 1, "timesteps": 2,
             "customization.epochs": 1, "sampling.steps": 2}  # fmt: skip
    config = RunConfig.gather(
        None, methods=["pixel"], dataset="customconcept101", data_root=grown_folder, protocol="within-concept",
        preset="multi-concept", model=str(small_model_folder), workers=0, store=tmp_path / "store", out=tmp_path / "run",
        params=[*(f"within-concept.{name}={value}" for name, value in small.items()), "shuffled-queries.encoder=clip-tiny"],
    )  # fmt: skip
    result = execute(prepare(config), Listener())
    assert result.failure is None
    assert {row.n_concepts for row in result.rows} == {2}
    assert (result.folder / PICTURE).is_file()
