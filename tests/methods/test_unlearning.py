"""Attribution by unlearning on real small models: against its own first order, dense algebra and planted duplicates."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from attribench.datasets.customconcept101 import CustomConcept101
from attribench.methods import unlearning
from attribench.methods.trak import Trak
from attribench.methods.unlearning import Unlearning, sweep
from attribench.methods.unlearning.newton import Ascent, changed
from PIL import Image
from PIL.Image import Transpose
from scipy import stats

import attribench
from attribench import plugins
from attribench.data import Queries
from attribench.data.region import Region
from attribench.diffusion.model import DiffusionModel
from attribench.errors import MethodError, Unavailable, UsageError
from attribench.files.state import State
from attribench.gradients.curvature import Identity
from attribench.gradients.diffusion import GradientReader
from attribench.run.places import tiny_model

SMALL = {"fisher_draws": 2, "query_timesteps": 6, "timesteps": 4}
PROMPTS = ("photo of a <new1> cat", "picture of a <new2> dog", "a red teddy bear")


@pytest.fixture
def double_model(small_model: DiffusionModel) -> DiffusionModel:
    """The small model in float64, so that small steps are not rounded away."""
    small_model.unet.double()
    small_model.text_encoder.double()
    return small_model


@pytest.fixture
def study_of(toy, double_model):
    def build(n: int = 6, ids=None, flips: bool = False, model=double_model):
        names = ids or [f"{i}.png" for i in range(n)]
        images = [toy.train_image(name, prompt=PROMPTS[int(name[0]) % 3]) for name in names]
        return toy.MemoryStudy(images, {name: toy.noise_picture(int(name[0])) for name in names}, flips=flips, model=model)

    return build


@pytest.fixture
def queries_of(toy):
    """Picture i again, as a query with the prompt of training image i; all with a box, or none."""

    def build(numbers, region: str | None = None) -> Queries:
        cases = [toy.case(f"query-{i}", prompt=PROMPTS[i % 3]) for i in numbers]
        regions = {} if region is None else {case.id: Region.parse(region) for case in cases}
        return Queries(cases, lambda name: toy.noise_picture(int(name.split("-")[1])), regions)

    return build


@pytest.fixture(scope="module")
def tiny() -> DiffusionModel:
    return DiffusionModel.load(tiny_model())


@pytest.fixture
def trained(toy, tiny):
    """The tiny model on a picture of each of five objects, and some of these pictures again as queries."""

    def build(queries, flips: bool = False, mirrored: bool = False):
        dataset = CustomConcept101(Path(attribench.__file__).parent / "assets" / "editions" / "customconcept101", "mini")
        chosen = {dataset.images(concept.name)[0].id: concept for concept in dataset.concepts[:5]}
        names = list(chosen)
        prompts = [f"photo of a {concept.class_word}" for concept in chosen.values()]
        images = [toy.train_image(name, prompt=prompt) for name, prompt in zip(names, prompts, strict=True)]
        study = toy.MemoryStudy(images, {name: dataset.load(name) for name in names}, flips=flips, model=tiny)

        def load(name: str):
            picture = dataset.load(names[int(name)])
            return picture.transpose(Transpose.FLIP_LEFT_RIGHT) if mirrored else picture

        return study, Queries([toy.case(str(i), prompt=prompts[i]) for i in queries], load)

    return build


@pytest.fixture
def halves(toy, tiny):
    """The tiny model on pictures of two objects each, and a query made of the left of the first and the right of the second."""
    dataset = CustomConcept101(Path(attribench.__file__).parent / "assets" / "editions" / "customconcept101", "mini")
    objects = [dataset.load(dataset.images(concept.name)[0].id).resize((32, 64)) for concept in dataset.concepts[:12]]
    prompt = "two things"

    def beside(left: int, right: int):
        picture = Image.new("RGB", (64, 64))
        picture.paste(objects[left], (0, 0))
        picture.paste(objects[right], (32, 0))
        return picture

    pictures = {f"{i}.png": beside(*pair) for i, pair in enumerate([(0, 2), (3, 1), (4, 5), (6, 7), (8, 9), (10, 11)])}
    study = toy.MemoryStudy([toy.train_image(name, prompt=prompt) for name in pictures], pictures, model=tiny)

    def query_of(region: str) -> Queries:
        return Queries([toy.case(region, prompt=prompt)], lambda name: beside(0, 1), {region: Region.parse(region)})

    return study, query_of


def method(**fields) -> Unlearning:
    return Unlearning(**SMALL | fields).resolve("mini")


def values(of: Unlearning, study, queries, folder: Path) -> np.ndarray:
    state = State(folder / f"state-{len(list(folder.parent.glob('**/*')))}")
    of.fit(study, state)
    return of.score(study, state, queries).values


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return min(stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------------------- what it computes


def test_small_absolute_steps_are_the_influence_function(study_of, queries_of, tmp_path):
    """Scores approach (α/N) g_iᵀ F⁻¹ g_q, with gradients from torch.func and F their mean square over the bank's draws."""
    study, queries = study_of(3), queries_of([7])
    of = method(step_unit="absolute", step_size=1e-8, damping=1e-3)
    oracle = GradientReader(study.model, of.group, "loss", vmap=True)

    def gradient(sample) -> torch.Tensor:
        factors, _ = oracle.factors([sample])
        return torch.cat([factor.matrix()[0].flatten() for factor in factors.values()])

    (fisher,) = of.features()
    draws = torch.stack([gradient(sample) for sample in fisher._samples(study, study.model, range(3))])
    squares = draws.square().mean(dim=0)
    start = 0
    for out, columns in oracle.shapes.values():
        end = start + out * columns
        squares[start:end] += 1e-3 * squares[start:end].mean()
        start = end
    reader = GradientReader(study.model, of.group, "loss")
    seen = gradient(next(Ascent(reader, Identity(), 1, 1.0, 1.0, of.query_timesteps).samples(queries, 0)))
    state = State(tmp_path / "state")
    of.fit(study, state)
    of_train = torch.stack([gradient(of._sweep(study, state).samples(row)[0]) for row in range(3)])
    expected = 1e-8 / 3 * of_train @ (seen / squares)
    for kind in ("losses", "first-order"):
        ours = dataclasses.replace(of, sweep=kind).score(study, state, queries).values[0]
        np.testing.assert_allclose(ours, expected, rtol=1e-3)


@pytest.mark.parametrize("curvature", ["diagonal", "ekfac", "identity"])
def test_first_order_agrees_with_the_sweep_and_its_error_falls_with_the_square_of_the_step(
    curvature, study_of, queries_of, tmp_path
):
    study, queries = study_of(6), queries_of([7])
    errors = []
    for size in (2e-3, 1e-3):
        of = method(curvature=curvature, step_size=size, damping=0.01)
        swept = values(of, study, queries, tmp_path / str(size))
        linear = values(dataclasses.replace(of, sweep="first-order"), study, queries, tmp_path / f"linear-{size}")
        assert spearman(swept, linear) >= 0.95
        errors.append(np.abs(swept.astype(float) - linear).max())
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_a_relative_step_raises_the_querys_loss_by_that_part_of_it(study_of, queries_of):
    study, queries = study_of(3), queries_of([2])
    for curvature in ("diagonal", "ekfac", "identity"):
        of = method(curvature=curvature, damping=0.1)
        reader = GradientReader(study.model, of.group, "loss")
        ascent = Ascent(reader, of._curvature(study, reader), 1, 1e-4, None, of.query_timesteps)
        before = reader.factors([next(ascent.samples(queries, 0))])[1].mean()
        with changed(reader.layers, ascent.change(queries, 0)):
            after = reader.factors([next(ascent.samples(queries, 0))])[1].mean()
        assert (after / before - 1).item() == pytest.approx(1e-4, rel=0.1)


def test_a_planted_duplicate_of_the_query_ranks_first(trained, tmp_path):
    """With noise of its own for the query and each training image: what they share is the picture."""
    study, queries = trained(queries=[1, 4])
    for fields in ({}, {"sweep": "first-order"}, {"curvature": "ekfac"}):
        of = Unlearning(fisher_draws=5, query_timesteps=20, **fields).resolve("mini")
        scores = values(of, study, queries, tmp_path / str(fields))
        assert scores.argmax(axis=1).tolist() == [1, 4], fields


def test_a_mirrored_duplicate_is_found_where_training_used_flips(trained, tmp_path):
    study, queries = trained(queries=[3], flips=True, mirrored=True)
    of, state = Unlearning(fisher_draws=5, query_timesteps=20).resolve("mini"), State(tmp_path / "state")
    of.fit(study, state)
    assert state["base"].shape == (10,)
    scores = of.score(study, state, queries).values
    assert scores.shape == (1, 5) and scores.argmax() == 3


# ------------------------------------------------------------------------------- faults not repeated


def test_the_querys_latent_is_scaled_as_training_latents_are(study_of, queries_of, tmp_path):
    study, queries = study_of(3), queries_of([2])
    of, state = method(), State(tmp_path / "state")
    of.fit(study, state)
    ascent = Ascent(GradientReader(study.model, of.group, "loss"), Identity(), 1, 1.0, 1.0, 8)
    np.testing.assert_array_equal(next(ascent.samples(queries, 0)).latents[0], state["latents"][2])
    vae = study.model.vae
    assert vae.config.scaling_factor != 1
    mean = vae.encode(study.model.pixels([queries[0]])).latent_dist.mean[0]
    np.testing.assert_allclose(state["latents"][2], mean.detach() * vae.config.scaling_factor, rtol=1e-6)


def test_scores_depend_neither_on_the_batch_nor_on_order(study_of, queries_of, tmp_path, monkeypatch):
    """Noise belongs to the picture, so that only rounding is left."""
    of, study, queries = method(), study_of(4), queries_of([7, 8])
    together = values(of, study, queries, tmp_path / "together")
    order = [3, 0, 1, 2]
    permuted = values(of, study_of(ids=[f"{i}.png" for i in order]), queries_of([8, 7]), tmp_path / "permuted")
    np.testing.assert_allclose(permuted, together[::-1][:, order], rtol=1e-6, atol=1e-12)
    monkeypatch.setattr(sweep, "ROWS", 3)  # fewer than the timesteps of an image
    monkeypatch.setattr(Unlearning, "_sweep", lambda self, study, state: sweep.Sweep(
        study, state["latents"], self.timesteps, self.group, at_once=3))  # fmt: skip
    monkeypatch.setattr(unlearning, "CHANGES", 1)  # one query at a time
    for kind in ("losses", "first-order"):
        single = values(dataclasses.replace(of, sweep=kind), study, queries, tmp_path / kind)
        expected = together
        if kind == "first-order":
            monkeypatch.undo()
            expected = values(dataclasses.replace(of, sweep=kind), study, queries, tmp_path / "straight")
        np.testing.assert_allclose(single, expected, rtol=1e-6, atol=1e-12)


def test_with_several_captions_a_score_is_the_mean_over_each_of_them(toy, study_of, queries_of, double_model, tmp_path):
    """Each caption's rise is that of the sweep with it alone, under the same change of weights; and so is its first order."""
    study, queries, of = study_of(3), queries_of([7]), method()
    reader = GradientReader(double_model, of.group, "loss")
    change = of._ascent(study, reader).change(queries, 0)

    def rises(prompts: tuple[str, ...], at_once: int = sweep.ROWS) -> dict[str, np.ndarray]:
        pictures = dict(zip(study.train.ids, study.train, strict=True))
        images = [dataclasses.replace(toy.train_image(name, prompt=prompts[0]), further_prompts=prompts[1:]) for name in pictures]
        study_with = toy.MemoryStudy(images, pictures, model=double_model)
        state = State(tmp_path / "-".join((*prompts, str(at_once))))
        of.fit(study_with, state)
        swept = sweep.Sweep(study_with, state["latents"], of.timesteps, of.group, at_once)
        parts = {"losses": swept.losses([change]), "first-order": swept.first_order([change])}
        found = {kind: torch.cat([part for _, part in blocks], dim=1)[0].numpy() for kind, blocks in parts.items()}
        return found | {"losses": found["losses"] - state["base"]}

    alone = [rises((prompt,)) for prompt in PROMPTS]
    for at_once in (sweep.ROWS, 5):  # a pass may end between two captions of an image
        together = rises(PROMPTS, at_once)
        for kind, found in together.items():
            np.testing.assert_allclose(found, np.mean([one[kind] for one in alone], axis=0), rtol=1e-5, atol=1e-14)


def test_single_precision_moves_scores_by_no_more_than_a_millionth_of_the_loss(small_model, study_of, queries_of, tmp_path):
    of, study, queries = method(), study_of(3, model=small_model), queries_of([7])
    small_model.unet.float(), small_model.text_encoder.float()
    straight = values(of, study, queries, tmp_path / "straight")
    for at_once in (1, 7):
        state = State(tmp_path / str(at_once))
        of.fit(study, state)
        other = sweep.Sweep(study, state["latents"], of.timesteps, of.group, at_once=at_once)
        base = torch.cat([part for _, part in other.losses([{}])], dim=1)[0].numpy()
        np.testing.assert_allclose(base, state["base"], rtol=1e-6)
    assert np.abs(straight).max() > 1e-5


def test_a_fisher_entry_of_zero_is_an_error_and_no_infinite_score(study_of, queries_of, tmp_path):
    study, queries = study_of(3), queries_of([7])
    of, state = method(), State(tmp_path / "state")
    of.fit(study, state)
    (fisher,) = of.features()
    kept = study.features(fisher)
    squares = np.array(kept["squares"])
    squares[-1] = 0.0
    kept["squares"] = squares
    with pytest.raises(MethodError, match="1 of .* entries of the Fisher .* give damping"):
        of.score(study, state, queries)
    assert np.isfinite(dataclasses.replace(of, damping=0.1).score(study, state, queries).values).all()


def test_a_diverging_step_names_the_query_and_what_to_do(study_of, queries_of, tmp_path):
    study, queries = study_of(2), queries_of([7])
    for steps, size in ((3, 1e300), (1, 1e200)):
        with pytest.raises(MethodError, match=r"unlearning 'query-7' diverged.*smaller step_size"):
            values(method(step_unit="absolute", step_size=size, steps=steps), study, queries, tmp_path / str(steps))


# ------------------------------------------------------------------------------- the model, the state


@pytest.mark.parametrize("group", ["cross-attention-kv", "full"])
def test_the_model_is_the_same_bit_for_bit_after_each_query(group, study_of, queries_of, tmp_path):
    study, queries = study_of(2), queries_of([7])
    parameters = dict(study.model.unet.named_parameters())
    before = {name: (parameter.data_ptr(), parameter.detach().clone()) for name, parameter in parameters.items()}
    of = method(group=group, steps=2, damping=0.1)
    seen = values(of, study, queries, tmp_path / "scored")
    with pytest.raises(RuntimeError), changed(GradientReader(study.model, group, "loss").layers, {}):
        raise RuntimeError
    for name, parameter in study.model.unet.named_parameters():
        address, value = before[name]
        assert parameter is parameters[name] and parameter.data_ptr() == address and torch.equal(parameter, value)
        assert parameter.grad is None and not parameter.requires_grad
    np.testing.assert_array_equal(values(of, study, queries, tmp_path / "again"), seen)


def test_changes_reach_every_parameter_of_a_layer(small_model):
    reader = GradientReader(small_model, "full", "loss")
    change = {name: torch.full(shape, 0.5) for name, shape in reader.shapes.items()}
    before = {name: parameter.detach().clone() for name, parameter in small_model.unet.named_parameters()}
    with changed(reader.layers, change):
        for name, parameter in small_model.unet.named_parameters():
            torch.testing.assert_close(parameter.detach(), before[name] + 0.5)


def test_base_losses_are_taken_once_and_go_on_after_a_kill(study_of, queries_of, tmp_path, monkeypatch):
    of, study, state = method(), study_of(5), State(tmp_path / "state")
    monkeypatch.setattr(Unlearning, "_sweep", lambda self, study, state: sweep.Sweep(
        study, state["latents"], self.timesteps, self.group, at_once=8))  # fmt: skip
    passes, loss = [], DiffusionModel.loss

    class Killed(Exception):
        pass

    def dying(self, *args):
        passes.append(1)
        if len(passes) == 2:
            raise Killed
        return loss(self, *args)

    monkeypatch.setattr(DiffusionModel, "loss", dying)
    with pytest.raises(Killed):
        of.fit(study, state)
    of.fit(study, state)
    assert len(passes) == 4  # two images a pass: one kept, one lost in the making, two more
    whole = State(tmp_path / "whole")
    of.fit(study, whole)
    np.testing.assert_array_equal(state["base"], whole["base"])
    passes[:] = [1] * 10
    of.score(study, state, queries_of([6, 7]))
    assert len(passes) - 10 == 2 * 3  # two queries, and no base losses again


# ------------------------------------------------------------------------------- regions, fields


def test_what_lies_outside_the_region_is_exactly_not_counted(study_of, queries_of, double_model):
    queries = queries_of([7], "8,0,8,16")
    reader = GradientReader(study_of(2).model, "cross-attention-kv", "loss")
    ascent = Ascent(reader, Identity(), 1, 1.0, 1.0, 4)
    sample = next(ascent.samples(queries, 0))
    cells = 32 // double_model.downscale
    assert sample.mask.shape == (1, cells, cells) and 0 < sample.mask.sum() < cells * cells

    def of_target(noise: torch.Tensor, noisy_as: torch.Tensor) -> torch.Tensor:
        """The gradient with another target but the same noisy latents."""
        add, given = reader.model.scheduler.add_noise, dataclasses.replace(sample, noise=noise)
        reader.model.scheduler.add_noise = lambda latents, _, steps: add(latents, noisy_as, steps)
        try:
            factors, errors = reader.factors([given])
        finally:
            del reader.model.scheduler.add_noise
        return torch.cat([factor.matrix().flatten() for factor in factors.values()] + [errors.flatten()])

    straight = of_target(sample.noise, sample.noise)
    outside = sample.noise + 100 * (1 - sample.mask)
    inside = sample.noise + 0.1 * sample.mask
    assert torch.equal(of_target(outside, sample.noise), straight)
    assert not torch.equal(of_target(inside, sample.noise), straight)
    oracle = GradientReader(reader.model, "cross-attention-kv", "loss", vmap=True).factors([sample])[0]
    for name, factor in reader.factors([sample])[0].items():
        torch.testing.assert_close(factor.matrix(), oracle[name].matrix(), rtol=1e-8, atol=1e-18)


def test_the_box_of_the_whole_picture_is_exactly_no_box_and_a_part_is_not(study_of, queries_of, tmp_path):
    study = study_of(3)
    plain, whole, part = (
        values(method(), study, queries_of([7], region), tmp_path / str(region)) for region in (None, "0,0,32,32", "0,0,8,8")
    )
    np.testing.assert_array_equal(whole, plain)
    assert np.abs(part - plain).max() > 1e-3 * np.abs(plain).max()
    with pytest.raises(UsageError, match="beyond the picture of 32 × 32"):
        values(method(), study, queries_of([7], "0,0,40,8"), tmp_path / "beyond")


def test_with_a_box_the_querys_loss_is_the_mean_over_the_cells_that_it_touches(study_of, queries_of):
    """Against the error taken by hand over the box's part of the prediction, and torch's own gradient of it."""
    queries, model = queries_of([7], "8,0,8,16"), study_of(2).model
    reader = GradientReader(model, "cross-attention-kv", "loss")
    sample = next(Ascent(reader, Identity(), 1, 1.0, 1.0, 4).samples(queries, 0))
    factors, errors = reader.factors([sample])
    (weight,) = reader.layers[name := next(iter(reader.layers))].parameters(recurse=False)
    context = model.encode_prompts([sample.prompt]).expand(4, -1, -1)
    with torch.enable_grad():
        weight.requires_grad_(True)
        steps = torch.tensor(sample.timesteps)
        noisy = model.scheduler.add_noise(sample.latents, sample.noise, steps)
        inside = (model.predict(noisy, steps, context) - sample.noise)[:, :, 0:4, 2:4].square().mean(dim=(1, 2, 3))
        (by_hand,) = torch.autograd.grad(inside.mean(), weight)
    weight.requires_grad_(False)
    torch.testing.assert_close(errors[0], inside.detach())
    torch.testing.assert_close(factors[name].matrix()[0], by_hand, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("of", [Unlearning(fisher_draws=5, query_timesteps=20), Trak(lambda_reg=0.1)])
def test_of_a_picture_with_two_objects_the_boxed_one_is_found(of, halves, tmp_path):
    """The query shows one training picture's object at its left and another's at its right, each where it stood."""
    study, query_of = halves
    for region, first in (("0,0,32,64", 0), ("32,0,32,64", 1)):
        scores = values(of.resolve("mini"), study, query_of(region), tmp_path / region)
        assert scores.argmax() == first


def test_every_step_size_of_tuned_is_a_candidate(study_of, queries_of, tmp_path):
    tuned, study, state = method(step_size="tuned"), study_of(3), State(tmp_path / "state")
    tuned.fit(study, state)
    candidates = tuned.candidates()
    assert [candidate.step_size for candidate in candidates] == list(unlearning.STEP_SIZES)
    assert candidates[tuned.default_candidate()].step_size == method().step_size
    scores = tuned.score_candidates(study, state, queries_of([7]))
    np.testing.assert_array_equal(scores[2].values, candidates[2].score(study, state, queries_of([7])).values)
    with pytest.raises(MethodError, match="score its candidates"):
        tuned.score(study, state, queries_of([7]))


def test_published_sizes_are_those_of_how_the_model_was_trained(study_of, small_model_folder):
    """N is that of LAION for a customized model, and the number of training images for one without modifiers."""
    customized, from_scratch = study_of(3), study_of(3, model=DiffusionModel.load(small_model_folder))
    of = Unlearning().resolve("paper")
    assert of._step(customized) == (100, 0.1, 4e8)
    assert dataclasses.replace(of, steps=1)._step(customized) == (1, 10.0, 4e8)
    with pytest.raises(Unavailable, match="name no step size .* attention weights of a model that is customized; give"):
        dataclasses.replace(of, group="attention")._step(customized)
    for fields, expected in [
        ({}, (1, 0.01, 3.0)),
        ({"curvature": "ekfac"}, (1, 0.01, 9.0)),
        ({"dataset_size": 7}, (1, 0.01, 7.0)),
        ({"curvature": "identity", "steps": 10}, (10, 0.0001, 1.0)),
        ({"group": "full"}, (1, 0.0005, 3.0)),
    ]:
        assert dataclasses.replace(of, **fields)._step(from_scratch) == expected


def test_the_ablations_differ_in_which_weights_they_move_and_in_what_holds_them(study_of, queries_of):
    """Of one query: the layers that move, in steps of one relative size; with F and without it, in other directions."""
    study, queries = study_of(3), queries_of([7])
    moved: dict[str, dict[str, torch.Tensor]] = {}
    for name in ("unlearning", "unlearning-cross-attention", "unlearning-attention", "unlearning-full", "unlearning-sgd"):
        of = dataclasses.replace(plugins.find("method", name).load()(), **SMALL, step_size=1e-3, damping=0.1).resolve("mini")
        reader = GradientReader(study.model, of.group, "loss")
        ascent = of._ascent(study, reader)
        gradient, loss = ascent._gradient(next(ascent.samples(queries, 0)), 0, {})
        moved[name] = ascent.change(queries, 0)
        rise = sum(float((gradient[layer] * part).sum()) for layer, part in moved[name].items())
        assert rise / loss == pytest.approx(1e-3, rel=1e-6), name
        assert all(bool(part.any()) for part in moved[name].values()), name
    layers = [set(moved[name]) for name in list(moved)[:4]]
    assert layers[0] < layers[1] < layers[2] < layers[3]
    assert {layer.rsplit(".", 1)[1] for layer in layers[0]} == {"to_k", "to_v"} and all("attn2" in layer for layer in layers[1])
    assert all("attn" in layer for layer in layers[2]) and any("conv" in layer for layer in layers[3])
    newton, plain = (torch.cat([part.flatten() for part in moved[name].values()]) for name in ("unlearning", "unlearning-sgd"))
    assert set(moved["unlearning-sgd"]) == layers[0]
    assert torch.cosine_similarity(newton, plain, dim=0) < 0.99


def test_variants_share_a_fisher_and_fields_are_checked():
    assert method(steps=5).features() == method(sweep="first-order", damping=0.3).features()
    assert method(fisher_of="base").features() != method().features()
    assert method(curvature="identity").features() == ()
    assert method(curvature="ekfac").features() != method().features()
    assert method(curvature="ekfac").damping == 0.1 and method().damping == 0.0
    paper = Unlearning().resolve("paper")
    assert paper.resolve("mini") == paper
    for fields, said in [
        ({"step_unit": "absolute"}, "needs step_size"),
        ({"sweep": "first-order", "step_size": "tuned"}, "changes no order"),
        ({"group": "kv"}, "group"),
        ({"steps": 0}, "steps"),
    ]:
        with pytest.raises(Exception, match=said):
            plugins.configure(Unlearning, fields)
    assert plugins.configure(Unlearning, {"step_unit": "absolute", "step_size": "0.01"}).step_size == 0.01
