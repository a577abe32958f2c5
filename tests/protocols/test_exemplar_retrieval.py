"""Exemplar retrieval: what a study is, what methods are told, and a whole run on a small world."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from attribench.attribution.granted import GrantedStudy, Materials
from attribench.attribution.scores import read_scores
from attribench.editions import open_dataset
from attribench.encoders import load_encoder
from attribench.engine.listener import Listener
from attribench.errors import AccessError, DatasetError, UsageError
from attribench.files.state import State
from attribench.interface import Access
from attribench.protocols.exemplar_retrieval import ExemplarRetrieval
from attribench.protocols.exemplar_studies import without_modifier
from attribench.run.config import RunConfig
from attribench.run.execute import Result, execute
from attribench.run.prepare import prepare


def plans(world: Path, limit=None, split="test", seed=0, **overrides):
    protocol = ExemplarRetrieval.with_preset("mini", overrides)
    dataset = open_dataset("gendata", "paper", world)
    return protocol, protocol.plans(dataset, model="fingerprint", split=split, seed=seed, limit=limit)


# ------------------------------------------------------------------------------------------- plans


def test_a_study_is_a_model_and_its_pool_the_distractors_and_its_own_exemplars(exemplar_world):
    protocol, made = plans(exemplar_world)
    assert len(made) == 4  # the one style, and three of the four objects
    for plan in made:
        exemplars = {image.id for image in plan.training.images}
        assert {image.concept for image in plan.training.images} == set(plan.concepts)
        pool = [image.id for image in plan.rows]
        assert len(set(pool)) == len(pool) == 12 + len(exemplars)
        assert {pool[row] for row in plan.trained_rows} == exemplars
        truth = protocol.truth(plan, {})
        assert truth.train_ids == tuple(pool)
        assert (truth.relevant.sum(axis=1) == len(exemplars)).all()
        assert {pool[row] for row in np.flatnonzero(truth.relevant[0])} == exemplars


def test_a_place_in_the_pool_does_not_tell_exemplars_from_distractors(exemplar_world):
    """Else methods with ties would look right wherever a stable sort shows them."""
    _, made = plans(exemplar_world, models_per_case=10)
    style = next(plan for plan in made if plan.concepts == ("artchive/art",))
    places = np.array(style.trained_rows)
    assert abs(places.mean() - (len(style.rows) - 1) / 2) < 4 and places.min() < 6 and places.max() > 17
    other = next(plan for plan in made if plan is not style)
    shared = [image.id for image in other.rows if image.id.startswith("laion_subset")]
    assert shared == [image.id for image in style.rows if image.id in set(shared)]  # the same order in every study


def test_queries_are_given_pictures_told_with_and_without_the_modifier(exemplar_world):
    _, (plan, *_) = plans(exemplar_world, told=["with V*", "without V*"])
    queries, pictures = plan.roles("query"), dict(plan.given.pictures)
    assert {case.variant for case in queries} == {f"{f}, {told}" for f in ("gpt", "media") for told in ("with V*", "without V*")}
    assert set(pictures) == {case.id for case in queries} and len(queries) == 16
    for case in queries:
        with_modifier = case.variant.endswith("with V*") and "without" not in case.variant
        assert ("<new1>" in case.prompt) == with_modifier and case.modifiers == (("<new1>",) if with_modifier else ())
        assert "<new1>" not in case.plain_prompt and case.plain_prompt.startswith("a picture of ")
    same = {case.variant: sorted(pictures[c.id] for c in queries if c.variant == case.variant) for case in queries}
    assert same["gpt, with V*"] == same["gpt, without V*"]
    assert plan.generated_cases == plan.roles("fit")
    assert not {case.prompt for case in queries} & set(plan.prompts)


def test_what_methods_learn_from_is_generated_by_prompts_of_the_kind(exemplar_world):
    _, made = plans(exemplar_world)
    for plan in made:
        prompts = {case.prompt for case in plan.roles("fit")}
        style = plan.concepts == ("artchive/art",)
        assert all(("in the style of <new1> art" in prompt) == style for prompt in prompts)


def test_a_preset_takes_fewer_models_pictures_and_distractors(exemplar_world):
    _, made = plans(exemplar_world, models_per_case=1, pictures=2, distractors=5)
    assert len(made) == 2 and {len(plan.rows) - len(plan.training.images) for plan in made} == {5}
    assert {len(plan.roles("query")) for plan in made} == {2 * 2 * 2}
    (first, second), (_, others) = (plan.rows for plan in made), plans(exemplar_world, models_per_case=1, distractors=5, seed=1)
    shared = {image.id for image in first} & {image.id for image in second}
    assert len(shared) == 5  # the same distractors for every model
    assert {image.id for image in others[0].rows} != {image.id for image in first}
    _, limited = plans(exemplar_world, limit=1)
    assert {len(plan.roles("query")) for plan in limited} == {4}


def test_a_case_or_split_that_is_not_there_is_told(exemplar_world):
    with pytest.raises(DatasetError, match="no test models of the case 'bamfg'; it has artchive, observed_imagenet"):
        plans(exemplar_world, cases=["bamfg"])
    with pytest.raises(DatasetError, match="no val models"):
        plans(exemplar_world, split="dev")


def test_prompts_that_are_not_known_are_told(exemplar_world, tmp_path):
    copy = shutil.copytree(exemplar_world, tmp_path / "copy")
    (copy / "path_to_prompts.json").unlink()
    protocol, (plan, *_) = plans(copy)
    (notice,) = protocol.notices(open_dataset("gendata", "paper", copy), "test")
    assert notice.startswith("the prompts of 40 of 40 pictures are not known")
    assert {case.prompt for case in plan.roles("query") if case.modifiers} == {plan.training.images[0].prompt}


def test_the_paper_preset_has_the_counts_of_the_unlearning_paper():
    preset = ExemplarRetrieval.with_preset("paper", {}).preset
    assert (preset.models_per_case, preset.pictures, preset.distractors, preset.ks) == (5, 10, 100_000, (5, 10, 100))


def test_a_prompt_without_its_modifier_reads_on():
    assert without_modifier("a drawing of <new1> bird") == "a drawing of bird"
    assert without_modifier("<new1> bird") == "bird"


# -------------------------------------------------------------------------------------------- runs

SMALL = {"models_per_case": 2, "pictures": 2, "method_seeds": "[4]", "customization.epochs": 2, "sampling.steps": 2,
         "object_templates": '["An image of {concept}.", "photo of {concept}"]', "ks": "[1, 5]",
         "style_templates": '["An image of {concept}.", "photo of {concept}"]'}  # fmt: skip


def retrieval_run(world: Path, model: Path, folder: Path, methods: list[str], *params: str, name: str = "run") -> Result:
    config = RunConfig.gather(
        None, dataset="gendata", data_root=world, model=str(model), preset="mini", workers=1, methods=methods,
        store=folder / "store", out=folder / name,
        params=[f"exemplar-retrieval.{key}={value}" for key, value in SMALL.items()]
        + ["shuffled-queries.encoder=clip-tiny", *params],
    )  # fmt: skip
    return execute(prepare(config), Listener())


@pytest.fixture(scope="module")
def by_pictures(exemplar_world, small_model_folder, tmp_path_factory) -> Result:
    folder = tmp_path_factory.mktemp("by-pictures")
    return retrieval_run(exemplar_world, small_model_folder, folder, ["pixel", "journey-trak"], name="run")


def test_methods_that_look_at_pictures_alone_train_nothing(by_pictures):
    assert by_pictures.failure is None
    done = {str(step).split(" ")[0] for step in json_steps(by_pictures)}
    assert "train" not in done and "generate" not in done
    status = {row.method: row.status for row in by_pictures.rows}
    assert status["pixel"] == "ok" and status["training-loss"] == "unavailable"
    reasons = {row.method: row.reason for row in by_pictures.rows}
    assert "none are trained for a control" in reasons["training-loss"]
    assert "how they were sampled is not known" in reasons["journey-trak"]


def json_steps(result: Result) -> list[str]:
    return [entry["step"] for entry in json.loads((result.folder / "manifest.json").read_text())["steps"]]


def test_a_picture_like_its_exemplar_is_found_and_random_scores_are_at_chance(by_pictures):
    values = {(row.method, row.metric): row for row in by_pictures.rows if row.variant == "gpt, with V*" and row.status == "ok"}
    assert values["pixel", "average_precision"].value > 2 * values["random", "average_precision"].value
    constant = values["constant", "recall@5"]
    assert constant.value == pytest.approx(constant.chance)


def test_the_best_possible_recall_is_told_where_exemplars_are_more_than_k(by_pictures):
    """Two models have one exemplar, and one has twelve: recall@5 cannot exceed (1 + 1 + 5/12) / 3."""
    rows = [row for row in by_pictures.rows if row.metric == "recall@5" and row.status == "ok"]
    assert {round(row.ceiling, 6) for row in rows} == {round((2 + 5 / 12) / 3, 6)}


def test_the_prompt_told_changes_nothing_for_methods_that_do_not_read_it(by_pictures):
    values = {row.variant: row.value for row in by_pictures.rows if row.method == "pixel" and row.metric == "average_precision"}
    assert values["gpt, with V*"] == values["gpt, without V*"]


def test_every_study_shows_what_was_found(by_pictures):
    assert (by_pictures.folder / "top-five.png").stat().st_size > 10_000
    assert len(list((by_pictures.folder / "scores" / "pixel").iterdir())) == 3


@pytest.fixture(scope="module")
def by_models(exemplar_world, small_model_folder, tmp_path_factory) -> Result:
    """One model of each list, with methods that read it or watch its training."""
    return retrieval_run(
        exemplar_world, small_model_folder, tmp_path_factory.mktemp("by-models"), ["d-trak", "montrage"], "d-trak.timesteps=2",
        "d-trak.projection_dim=64", "montrage.encoder=clip-tiny", "montrage.steps=20", "exemplar-retrieval.models_per_case=1",
    )  # fmt: skip


def test_methods_that_read_the_model_or_its_training_run_too(by_models):
    assert by_models.failure is None
    status = {row.method: row.status for row in by_models.rows}
    assert {status[name] for name in ("d-trak", "montrage", "training-loss")} == {"ok"}
    assert {"train", "generate"} <= {step.split(" ")[0] for step in json_steps(by_models)}
    (plan, _), folder = by_models.prepared.plans, by_models.folder / "scores" / "montrage"
    scores = read_scores(next(folder.glob(f"{plan.id}-*")))
    assert scores.train_ids == tuple(image.id for image in plan.rows) and np.isfinite(scores.values).all()


def test_distractors_are_encoded_once_for_all_models_and_every_pool_is_whole(by_models):
    read = [step for step in json_steps(by_models) if step.startswith("read clip-tiny features") and "queries" not in step]
    assert len(read) == 3 and sum(step == "read clip-tiny features of distractors for all studies" for step in read) == 1
    prepared, encoder = by_models.prepared, load_encoder("clip-tiny", "cpu")
    entry = next(entry for entry in prepared.methods if entry.plugin.name == "montrage")
    (features,) = entry.method.features()
    for run in entry.runs:
        own, shared = (prepared.store.path(step.keys["state"]) for step in run.features)
        materials = Materials(
            plan=run.plan, dataset=prepared.dataset, base_model="none", features={features: own},
            shared_features={features: shared},
        )  # fmt: skip
        joined = GrantedStudy(materials, Access.FEATURES, "a method", 0, "cpu").features(features)["features"]
        whole = encoder.encode_images([prepared.dataset.load(image.id) for image in run.plan.rows])
        np.testing.assert_allclose(joined[0], whole, atol=1e-5)


def test_only_exemplars_have_moved_rows_in_the_attribution_table(by_models):
    entry = next(entry for entry in by_models.prepared.methods if entry.plugin.name == "montrage")
    for run in entry.runs:
        table = np.asarray(State(by_models.prepared.store.path(run.fit.keys["state"]))["table"])
        assert np.flatnonzero(table.sum(axis=1) > 0).tolist() == sorted(run.plan.trained_rows)


def test_what_was_trained_on_is_granted_to_those_who_watch_training_alone(exemplar_world):
    _, (plan, *_) = plans(exemplar_world)
    dataset = open_dataset("gendata", "paper", exemplar_world)
    materials = Materials(plan=plan, dataset=dataset, base_model="none")
    with pytest.raises(AccessError, match="which images the model was trained on"):
        GrantedStudy(materials, Access.FEATURES, "a method", 0, "cpu").trained_rows  # noqa: B018
    assert GrantedStudy(materials, Access.TRAINING, "a method", 0, "cpu").trained_rows == plan.trained_rows


def test_distractors_alone_have_no_experiment(exemplar_world, tmp_path):
    config = RunConfig.gather(None, dataset="laion", data_root=exemplar_world, methods=["pixel"], store=tmp_path)
    with pytest.raises(UsageError, match="laion holds a pool of distractors and has no experiment of its own"):
        prepare(config)
