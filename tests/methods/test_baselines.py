"""What every method owes (order, batches, flips), and what each baseline and control is for."""

import numpy as np
import pytest
from attribench.methods.clip import ClipImage, ClipText
from attribench.methods.controls import Constant, Random, ShuffledQueries, TrainingLoss
from attribench.methods.pixel import Pixel
from attribench.methods.prompt_match import PromptMatch
from PIL.Image import Transpose

from attribench.data import Queries, TrainImage
from attribench.files.state import State

PICTURES = [Pixel(), ClipImage()]
EVERY = [*PICTURES, ClipText(), Random(), Constant(), ShuffledQueries()]


def named(method) -> str:
    return method.name


def scores(method, study, queries, folder) -> np.ndarray:
    method, state = method.resolve(study.edition), State(folder)
    method.fit(study, state)
    return method.score(study, state, queries).values


def some(queries, rows, toy) -> Queries:
    """A selection of queries, in that order."""
    cases = [toy.case(queries.ids[row], plain=queries.plain_prompts[row]) for row in rows]
    return Queries(cases, queries._load)


@pytest.mark.parametrize("method", PICTURES, ids=named)
def test_a_duplicate_of_the_query_scores_highest(duplicates, small_clip, tmp_path, method):
    study, queries = duplicates
    values = scores(method, study, queries, tmp_path)
    own = np.arange(7)
    assert (values[:7].argmax(axis=1) == own).all()
    np.testing.assert_allclose(values[own, own], 1, atol=1e-5)
    assert values[7].max() < 0.999  # that query has no duplicate


def test_pixel_is_the_cosine_of_flattened_pixels(duplicates, toy, tmp_path):
    study, queries = duplicates
    a, b = (np.asarray(toy.noise_picture(seed), dtype=float).ravel() / 127.5 - 1 for seed in (99, 2))
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    np.testing.assert_allclose(scores(Pixel(size=32), study, queries, tmp_path)[7, 2], expected, atol=1e-5)


@pytest.mark.parametrize("method", PICTURES, ids=named)
def test_with_flips_the_better_of_both_versions_counts(duplicates, small_clip, toy, tmp_path, method):
    study, queries = duplicates
    cases = [toy.case(name) for name in queries.ids]
    mirrored = Queries(cases, lambda name: queries._load(name).transpose(Transpose.FLIP_LEFT_RIGHT))
    straight = scores(method, study, mirrored, tmp_path / "straight")
    pictures = dict(zip(study.train.ids, study.train, strict=True))
    flipping = toy.MemoryStudy([toy.train_image(name) for name in study.train.ids], pictures, flips=True)
    flipped = scores(method, flipping, mirrored, tmp_path / "flipped")
    own = np.arange(7)
    np.testing.assert_allclose(flipped[own, own], 1, atol=1e-5)
    assert (straight[own, own] < 0.9999).all()
    assert (flipped >= straight - 1e-6).all()


@pytest.mark.parametrize("method", EVERY, ids=named)
def test_permuting_the_training_images_permutes_the_scores(duplicates, small_clip, toy, tmp_path, method):
    study, queries = duplicates
    order = np.random.default_rng(1).permutation(8)
    images = [
        TrainImage(id=study.train.ids[i], prompt=study.train.prompts[i], caption=study.train.captions[i], concept="")
        for i in order
    ]
    pictures = dict(zip(study.train.ids, study.train, strict=True))
    permuted = toy.MemoryStudy(images, pictures)
    np.testing.assert_allclose(
        scores(method, permuted, queries, tmp_path / "permuted"),
        scores(method, study, queries, tmp_path / "straight")[:, order],
        atol=1e-6,
    )


@pytest.mark.parametrize("method", EVERY, ids=named)
def test_the_order_of_queries_does_not_matter(duplicates, small_clip, toy, tmp_path, method):
    study, queries = duplicates
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    np.testing.assert_allclose(
        scores(method, study, some(queries, order, toy), tmp_path / "a"),
        scores(method, study, queries, tmp_path / "b")[order],
        atol=1e-6,
    )


@pytest.mark.parametrize("method", [*PICTURES, ClipText(), Random(), Constant()], ids=named)
def test_a_query_scored_alone_scores_the_same(duplicates, small_clip, toy, tmp_path, method):
    study, queries = duplicates
    alone = [scores(method, study, some(queries, [row], toy), tmp_path / str(row))[0] for row in range(8)]
    np.testing.assert_allclose(scores(method, study, queries, tmp_path / "all"), alone, atol=1e-6)


def test_clip_text_compares_the_plain_prompt_with_the_caption(duplicates, small_clip, toy, tmp_path):
    study, _ = duplicates
    same = Queries([toy.case("q", prompt="<new1>", plain="a teddy bear")], None)
    values = scores(ClipText(), study, same, tmp_path)
    assert values.argmax() == study.train.captions.index("a teddy bear")
    np.testing.assert_allclose(values.max(), 1, atol=1e-5)


def test_random_depends_on_seed_study_and_query_alone(duplicates, tmp_path):
    study, queries = duplicates
    first = scores(Random(), study, queries, tmp_path)
    np.testing.assert_array_equal(first, scores(Random(), study, queries, tmp_path))
    assert len(np.unique(first)) == first.size
    for attribute, value in (("seed", 5), ("id", "another study")):
        setattr(study, attribute, value)
        assert not np.isclose(first, scores(Random(), study, queries, tmp_path)).any()


def test_random_is_uniform(toy):
    images = [toy.train_image(f"{i:04d}") for i in range(1000)]
    values = Random().score(toy.MemoryStudy(images, {}), None, Queries([toy.case("q")], None)).values
    assert abs(values.mean() - 0.5) < 0.05
    assert np.abs(np.quantile(values, [0.1, 0.9]) - [0.1, 0.9]).max() < 0.05


def test_shuffled_queries_gives_every_query_the_scores_of_another(duplicates, small_clip, tmp_path):
    study, queries = duplicates
    own = scores(ClipImage(), study, queries, tmp_path / "own")
    shuffled = scores(ShuffledQueries(), study, queries, tmp_path / "shuffled")
    giver = [int(np.abs(own - row).sum(axis=1).argmin()) for row in shuffled]
    np.testing.assert_array_equal(shuffled, own[giver])
    assert sorted(giver) == list(range(8))
    assert all(giver[row] != row for row in range(8))


def test_training_loss_is_the_same_for_every_query_and_high_for_the_badly_fitted(small_model, toy):
    import torch

    images = [toy.train_image(f"{i}.png", prompt="photo of a <new1> cat") for i in range(3)]
    study = toy.MemoryStudy(images, {f"{i}.png": toy.noise_picture(i) for i in range(3)}, model=small_model)
    queries = Queries([toy.case("a"), toy.case("b")], None)

    def run():
        state = {}
        TrainingLoss(timesteps=3).fit(study, state)
        return TrainingLoss().score(study, state, queries).values

    values = run()
    np.testing.assert_array_equal(values[0], values[1])
    small_model.predict = lambda latents, timesteps, context: torch.zeros_like(latents)
    np.testing.assert_allclose(run()[0], 1, atol=0.35)  # a model that says nothing has the noise's own variance
    small_model.predict = lambda latents, timesteps, context: torch.full_like(latents, 2.0)
    assert (run() > 3).all()  # E (ε − 2)² = 5: worse is higher


def test_controls_say_that_they_are_controls():
    assert all(method.control for method in (Random, Constant, ShuffledQueries, TrainingLoss))
    assert not any(method.control for method in (Pixel, ClipImage, ClipText))


def test_prompt_match_finds_the_concept_by_its_token_alone(toy):
    words = ("red", "blue", "green", "black")
    images = [toy.train_image(f"train/{i}.png", f"photo of a <new{1 + i // 2}> cat", f"a {words[i]} cat") for i in range(4)]
    cases = [toy.case("a", "art of <new2>", plain="art of cat", modifiers=("<new2>",)),
             toy.case("b", "a black cat", plain="a black cat", modifiers=())]  # fmt: skip
    pictures = {image.id: toy.noise_picture(i) for i, image in enumerate(images)}
    study = toy.MemoryStudy(images, pictures)
    values = PromptMatch().score(study, None, Queries(cases, lambda _: None)).values
    assert values[0].tolist()[2:] == [1.0, 1.0] and (values[0][:2] < 1).all()
    assert values[1].argmax() == 3 and (values[1] < 1).all()  # no modifier: words
