"""The studies of leave-k-out: which images, which prompts, and which models are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attribench.attribution.scores import ScoreTable
from attribench.editions import open_dataset
from attribench.errors import UsageError
from attribench.interface import Scores
from attribench.protocols.captions import overlap
from attribench.protocols.leave_k_out import LeaveKOut
from attribench.study.plan import StudyPlan

SMALL = {"n_studies": 2, "n_images": 8, "queries": 2, "k": [2, 3], "curve": [0, 2, 3, 5], "draws": 2, "n_seeds": 2,
         "encoder": "clip-tiny"}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(coco_folder: Path):
    """Twelve pictures of four subjects."""
    return open_dataset("mscoco", "paper", coco_folder)


@pytest.fixture
def protocol() -> LeaveKOut:
    return LeaveKOut.with_preset("mini", SMALL)


def plans(protocol: LeaveKOut, dataset, *, seed: int = 0, limit: int | None = None) -> list[StudyPlan]:
    return protocol.plans(dataset, model="fingerprint", split="test", seed=seed, limit=limit)


def table(plan: StudyPlan, values: np.ndarray) -> ScoreTable:
    ids = tuple(case.id for case in plan.roles("query")), tuple(image.id for image in plan.training.images)
    return ScoreTable(method="m", seed=0, candidate=None, role="query", scores=Scores(values, *ids))


# --------------------------------------------------------------------------------------------- plans


def test_each_study_has_prompts_and_a_model_of_its_own_on_the_same_images(protocol, dataset):
    studies = plans(protocol, dataset)
    assert studies[0].training.images == studies[1].training.images
    assert studies[0].training.seedless == studies[1].training.seedless  # so that they share the random curve
    assert len(studies) == 2 and len({plan.training.seed for plan in studies}) == 2
    prompts = [case.id for plan in studies for case in plan.cases]
    assert len(prompts) == len(set(prompts)) == 4
    test = {prompt.id: prompt for prompt in dataset.prompts if prompt.split == "test"}
    for plan in studies:
        assert len(plan.training.images) == 8
        assert all(test[case.id].text == case.prompt == case.plain_prompt for case in plan.cases)
        order = [image.id for image in dataset.images]
        assert [order.index(image.id) for image in plan.training.images] == sorted(
            order.index(image.id) for image in plan.training.images
        )


def test_a_small_study_holds_the_pictures_whose_captions_say_what_its_prompts_ask(dataset):
    protocol = LeaveKOut.with_preset("mini", SMALL | {"queries": 1})
    for plan in plans(protocol, dataset):
        (case,) = plan.cases
        (word,) = {"cat", "dog", "bear", "chair"} & set(case.prompt.split())
        assert sum(word in image.prompt for image in plan.training.images) >= 2  # a quarter of eight


def test_words_in_common_count_by_their_rarity_and_by_how_many_captions_have_them():
    captions = [["a red cat"], ["A cat, sleeping"], ["a dog", "the DOG runs"]]
    found = overlap(["the cat", "a dog", "bird"], captions)
    np.testing.assert_allclose(found[0], [np.log(3 / 2), np.log(3 / 2), np.log(3) / 2])  # "the" is in half of the third's
    np.testing.assert_allclose(found[1], [0, 0, np.log(3)])  # "a" is in all
    assert not found[2].any()


def test_all_images_are_taken_where_no_number_is_given(dataset):
    whole = SMALL | {"n_images": None, "training.flips": True}
    studies = plans(LeaveKOut.with_preset("mini", whole), dataset)
    assert all(len(plan.training.images) == 12 for plan in studies)


def test_every_caption_is_trained_with_and_the_first_stands_for_them(protocol, dataset):
    captions = {image.id: image.captions for image in dataset.images}
    for image in plans(protocol, dataset)[0].training.images:
        assert image.prompts == captions[image.id] and image.prompt == image.caption == captions[image.id][0]


def test_the_seed_changes_the_studies_and_nothing_else_does(protocol, dataset):
    assert plans(protocol, dataset) == plans(protocol, dataset)
    assert [plan.cases for plan in plans(protocol, dataset)] != [plan.cases for plan in plans(protocol, dataset, seed=1)]
    limited = plans(protocol, dataset, limit=1)
    assert [plan.cases for plan in limited] == [plan.cases[:1] for plan in plans(protocol, dataset)]
    assert [plan.training for plan in limited] == [plan.training for plan in plans(protocol, dataset)]


def test_the_papers_preset_has_the_papers_counts():
    preset = LeaveKOut.with_preset("paper", {}).preset
    assert preset.n_studies * preset.queries == 110
    assert preset.k == (500, 1000, 4000) and preset.n_seeds >= 3 and preset.draws == 10
    assert preset.curve[:6] == (0, 500, 1000, 2000, 3000, 4000) and preset.curve[6:] == tuple(range(5000, 118_287, 2000))
    assert preset.training.steps(118_287) == 200 * 925 and preset.timesteps == 200


# ---------------------------------------------------------------------------------------- retraining


def test_random_removal_is_a_curve_with_a_draw_and_a_seed_for_each_model(protocol, dataset):
    plan = plans(protocol, dataset)[0]
    (request,) = protocol.retrainings(plan)
    assert sorted(len(look.part.left_out) for look in request.looks) == [0, 0, 2, 2, 3, 3, 5, 5]
    assert {look.queries for look in request.looks} == {(0, 1)}
    assert len(set(request.parts)) == 8 and len(request.seeds) == 2
    assert plan.training.seed not in request.seeds


def test_each_query_is_looked_at_without_its_own_highest_scored_images(protocol, dataset):
    plan = plans(protocol, dataset)[0]
    values = np.array([[8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8]])
    (request,) = protocol.further_retrainings(plan, [table(plan, values)])
    own = [look for look in request.looks if look not in protocol.retrainings(plan)[0].looks]
    assert {(look.part.left_out, look.queries) for look in own} == {
        ((0, 1), (0,)), ((0, 1, 2), (0,)), ((6, 7), (1,)), ((5, 6, 7), (1,))
    }  # fmt: skip
    assert len(own) == 2 * 2 * 2  # two seeds each
    assert len(own) <= protocol.further_at_most(plan, 1)


def test_methods_that_remove_the_same_images_share_their_models(protocol, dataset):
    plan = plans(protocol, dataset)[0]
    values = np.random.default_rng(0).random((2, 8))
    one, both = (protocol.further_retrainings(plan, [table(plan, values)] * n)[0] for n in (1, 2))
    assert both.parts == one.parts
    assert both.n_asked - one.n_asked == 2 * 2 * 2


def test_scores_that_tell_no_image_from_another_are_not_retrained_for(protocol, dataset):
    plan = plans(protocol, dataset)[0]
    (request,) = protocol.further_retrainings(plan, [table(plan, np.zeros((2, 8)))])
    assert request == protocol.retrainings(plan)[0]


def test_hyper_parameters_are_not_tuned_here_and_a_line_says_so(protocol, dataset):
    assert not protocol.tunes
    assert any("nothing is tuned" in notice for notice in protocol.notices(dataset, "test"))


@pytest.mark.parametrize(
    "overrides", [{"k": []}, {"k": [0]}, {"curve": [0]}, {"draws": 0}, {"training.epochs": 0}, {"n_seed": 1}]
)
def test_a_preset_that_cannot_be_is_refused(overrides):
    with pytest.raises(UsageError, match="leave-k-out"):
        LeaveKOut.with_preset("mini", overrides)
