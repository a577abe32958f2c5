"""Gradient methods on real small models: against the trak package, exact leave-one-out, and planted duplicates."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from attribench.methods.d_trak import DTrak
from attribench.methods.das import Das
from attribench.methods.datainf import DataInf, influence
from attribench.methods.grad_cos import GradCos
from attribench.methods.grad_dot import GradDot
from attribench.methods.journey_trak import JourneyTrak
from attribench.methods.relative_influence import RelativeInfluence
from attribench.methods.renormalized_influence import RenormalizedInfluence
from attribench.methods.tracin import TracIn
from attribench.methods.trak import Trak
from scipy import stats

from attribench import plugins
from attribench.data import Queries, Trajectory
from attribench.diffusion import noise
from attribench.diffusion.model import DiffusionModel
from attribench.errors import MethodError
from attribench.files.state import State
from attribench.gradients.diffusion import GradientReader, timesteps_of

KERNEL = [Trak, DTrak, JourneyTrak, RelativeInfluence, RenormalizedInfluence, Das]
SIMILARITY = [GradDot, GradCos, TracIn, DataInf]
SMALL = {"timesteps": 4, "projection_dim": 256}


@pytest.fixture
def study_of(toy, small_model: DiffusionModel):
    """A study of real models on noise pictures: image "7.png" is picture 7."""

    class Sampled(dict):
        """As if x̂_0 had been the finished picture at each step of every query's sampling."""

        def __missing__(self, query_id: str) -> Trajectory:
            picture = toy.noise_picture(int(query_id.split("-")[1]))
            latent, _ = small_model.latent_moments(small_model.pixels([picture]))
            return Trajectory(np.array([750, 500, 250, 0]), latent.expand(4, -1, -1, -1).numpy())

    def build(n: int = 8, models=None, ids=None, flips: bool = False, same_prompt: bool = True):
        names = ids or [f"{i}.png" for i in range(n)]
        numbers = {name: int(name.split(".")[0]) for name in names}
        images = [toy.train_image(name, prompt=PROMPTS[0 if same_prompt else i % 4]) for name, i in numbers.items()]
        pictures = {name: toy.noise_picture(i) for name, i in numbers.items()}
        return toy.MemoryStudy(images, pictures, flips=flips, models=models or [small_model], trajectories=Sampled())

    return build


PROMPTS = ("photo of a <new1> cat", "picture of a <new2> dog", "a red teddy bear", "a blue chair")


@pytest.fixture
def queries_of(toy):
    """Pictures of training images i again, as queries with the prompt of the training image."""

    def build(numbers, prompt="photo of a <new1> cat") -> Queries:
        cases = [toy.case(f"query-{i}", prompt=prompt) for i in numbers]
        return Queries(cases, lambda name: toy.noise_picture(int(name.split("-")[1])))

    return build


def values(method, study, queries, folder: Path) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    state = State(Path(tempfile.mkdtemp(dir=folder)))  # of its own: no fit goes on from another
    method.fit(study, state)
    return method.score(study, state, queries).values


def ready(cls, **fields):
    """A method with small counts and, for kernels, a λ."""
    wanted = SMALL | {"checkpoints": 1} | ({"lambda_reg": 0.1} if cls in KERNEL else {}) | fields
    return cls(**wanted).resolve("mini")


# ------------------------------------------------------------------------------- the trak package


def test_trak_equals_the_trak_package_over_two_checkpoints(small_model_folder, study_of, queries_of, tmp_path):
    """End to end: its gradients, its projection, its scaling by √p and by the mean |inverse|, its mean over models."""
    import trak
    from trak.modelout_functions import AbstractModelOutput

    models = []
    for seed in (1, 2):
        model = DiffusionModel.load(small_model_folder)
        model.add_modifiers({"<new1>": "cat", "<new2>": None})
        with torch.no_grad():
            for number, layer in enumerate(model.key_value_layers().values()):
                layer.weight += 0.05 * noise.normal(tuple(layer.weight.shape), "checkpoint", seed, number)
        models.append(model)
    study, queries = study_of(6, models, same_prompt=False), queries_of([9, 10, 11])
    method = ready(Trak, projection="trak", projection_dim=32, checkpoints=2, lambda_reg=0.3, lambda_unit="absolute")
    ours = values(method, study, queries, tmp_path)

    class DiffusionLoss(AbstractModelOutput):
        def __init__(self) -> None:
            pass

        @staticmethod
        def get_output(model, weights, buffers, noisy, steps, contexts, target):
            e = torch.func.functional_call(model, (weights, buffers), (noisy, steps, contexts, None, None, None, None, None), {
                "return_dict": False})[0]  # fmt: skip
            return (e - target).square().mean()

        def get_out_to_loss_grad(self, model, weights, buffers, batch):
            return torch.ones(len(batch[0]), 1)

    parameters = [f"{name}.weight" for name in models[0].key_value_layers()]

    def rows(model: DiffusionModel, samples):
        read = GradientReader(model, "cross-attention-kv", "loss")._rows(samples, slice(None))
        return [tensor.unflatten(0, (len(samples), -1)) for tensor in read]

    features = method.gradients()
    everything = [(True, i) for i in range(6)] + [(False, i) for i in range(3)]

    def samples(model, of_training):
        pictures = study.train if of_training else queries
        return [features._sample(study, model, pictures, i) for training, i in everything if training == of_training]

    unet = models[0].unet
    tracker = trak.TRAKer(
        unet, DiffusionLoss(), train_set_size=6, save_dir=str(tmp_path / "trak"), device="cpu", proj_dim=32,
        use_half_precision=False, grad_wrt=parameters, lambda_reg=0.3, logging_level=50,
    )  # fmt: skip
    states = [{name: p.detach().clone() for name, p in model.unet.state_dict().items()} for model in models]
    for m, model in enumerate(models):
        tracker.load_checkpoint(states[m], model_id=m)
        tracker.featurize(rows(model, samples(model, True)), num_samples=6)
    tracker.finalize_features()
    for m, model in enumerate(models):
        tracker.start_scoring_checkpoint("test", states[m], model_id=m, num_targets=3)
        tracker.score(rows(model, samples(model, False)), num_samples=3)
    theirs = np.asarray(tracker.finalize_scores("test")).T

    assert np.abs(ours - theirs).max() / np.abs(theirs).max() < 1e-5


def test_d_trak_equals_a_direct_transcription_of_its_formula(study_of, queries_of, tmp_path, small_model):
    study, queries = study_of(5, same_prompt=False), queries_of([7, 8])
    method = DTrak(projection="none", timesteps=4, lambda_reg=1e-3, lambda_unit="absolute")
    weights = [layer.weight.requires_grad_(True) for layer in small_model.key_value_layers().values()]
    abar = small_model.scheduler.alphas_cumprod

    def phi(picture, name, prompt) -> torch.Tensor:
        x = small_model.vae.encode(small_model.pixels([picture])).latent_dist.mean * small_model.vae.config.scaling_factor
        total = 0.0
        for t in timesteps_of("uniform", 4, 1000):
            epsilon = noise.normal(small_model.latent_shape, "gradients", name, prompt, False, t, 0)
            x_t = abar[t].sqrt() * x + (1 - abar[t]).sqrt() * epsilon
            e = small_model.unet(x_t, t, small_model.encode_prompts([prompt]).detach()).sample
            grads = torch.autograd.grad(e.square().sum() / e.numel(), weights)
            total = total + torch.cat([g.flatten() for g in grads]) / 4
        return total.double()

    train = torch.stack([phi(study.train[i], study.train.ids[i], study.train.prompts[i]) for i in range(5)])
    seen = torch.stack([phi(queries[i], queries.ids[i], queries.prompts[i]) for i in range(2)])
    for weight in weights:
        weight.requires_grad_(False)
    kernel = torch.linalg.inv(train @ train.T + 1e-3 * torch.eye(5, dtype=torch.float64))
    expected = (seen @ train.T @ kernel).numpy()
    ours = values(method, study, queries, tmp_path)
    assert np.abs(ours - expected).max() / np.abs(expected).max() < 1e-4


# ------------------------------------------------------------------------------- what all must do


@pytest.mark.parametrize("cls", KERNEL + SIMILARITY)
def test_a_planted_duplicate_of_the_query_ranks_first(cls, study_of, queries_of, tmp_path):
    study, queries = study_of(8), queries_of([2, 5])
    journey = {"query_steps": 4, "resamplings": 1} if cls is JourneyTrak else {}
    scores = values(ready(cls, shared_noise=True, **journey), study, queries, tmp_path)
    if cls in (GradDot, TracIn):  # inner products favour large gradients: compare with the image's own self-similarity
        own = values(GradCos(**SMALL, shared_noise=True), study, queries, tmp_path / "cosine")
        assert own.argmax(axis=1).tolist() == [2, 5]
        return
    assert scores.argmax(axis=1).tolist() == [2, 5]


@pytest.mark.parametrize("cls", KERNEL + SIMILARITY)
def test_scores_permute_with_the_training_images_and_the_queries(cls, study_of, queries_of, tmp_path):
    order = [3, 0, 4, 1, 2]
    straight = values(ready(cls), study_of(5, same_prompt=False), queries_of([7, 8, 9]), tmp_path)
    permuted = study_of(ids=[f"{i}.png" for i in order], same_prompt=False)
    turned = values(ready(cls), permuted, queries_of([9, 7, 8]), tmp_path)
    np.testing.assert_allclose(turned, straight[[2, 0, 1]][:, order], rtol=2e-3, atol=2e-4 * np.abs(straight).max())


@pytest.mark.parametrize("cls", [DTrak, GradDot, DataInf])
def test_passes_of_one_picture_and_of_sixteen_agree(cls, study_of, queries_of, tmp_path, monkeypatch):
    from attribench.gradients import diffusion

    original = diffusion.GradientReader.__init__

    def with_rows(rows):
        def init(self, *args, **kwargs):
            original(self, *args, **{**kwargs, "rows": rows})

        monkeypatch.setattr(diffusion.GradientReader, "__init__", init)

    found = []
    for rows in (4, 64):
        with_rows(rows)
        found.append(values(ready(cls), study_of(5), queries_of([7, 8]), tmp_path))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-5 * np.abs(found[1]).max())


def test_a_mirrored_duplicate_is_found_where_training_used_flips(study_of, queries_of, tmp_path, toy):
    from PIL.Image import Transpose

    queries = Queries(
        [toy.case("query-2", prompt="photo of a <new1> cat")],
        lambda name: toy.noise_picture(2).transpose(Transpose.FLIP_LEFT_RIGHT),
    )
    scores = values(ready(DTrak, shared_noise=True), study_of(8, flips=True), queries, tmp_path)
    assert scores.shape == (1, 8) and scores.argmax() == 2


@pytest.mark.parametrize("cls", KERNEL)
def test_every_candidate_scores_as_the_method_with_its_value(cls, study_of, queries_of, tmp_path):
    study, queries = study_of(5), queries_of([7])
    tuned = cls(**SMALL).resolve("mini")
    state = State(tmp_path / "tuned")
    tuned.fit(study, state)
    together = tuned.score_candidates(study, state, queries)
    candidates = tuned.candidates()
    assert len(together) == len(candidates) == 27
    assert candidates[tuned.default_candidate()].lambda_reg == 0.1
    for number in (3, 15, 26):
        alone = values(candidates[number], study, queries, tmp_path / str(number))
        np.testing.assert_allclose(together[number].values, alone, rtol=1e-5, atol=1e-7 * np.abs(alone).max())
        np.testing.assert_array_equal(candidates[number].score(study, state, queries).values, together[number].values)
    with pytest.raises(MethodError, match="score its candidates"):
        tuned.score(study, state, queries)


def test_the_ensemble_is_the_mean_of_its_models(study_of, queries_of, tmp_path, small_model_folder, small_model):
    other = DiffusionModel.load(small_model_folder)
    other.add_modifiers({"<new1>": "cat", "<new2>": None})
    with torch.no_grad():
        for layer in other.key_value_layers().values():
            layer.weight *= 1.1
    queries = queries_of([7, 8])
    both = values(ready(GradDot, checkpoints=2, projection="none"), study_of(4, [small_model, other]), queries, tmp_path)
    alone = [values(ready(GradDot, projection="none"), study_of(4, [m]), queries, tmp_path) for m in (small_model, other)]
    np.testing.assert_allclose(both, np.mean(alone, axis=0), rtol=1e-5)


@pytest.mark.parametrize("fields", [{"precision": "bfloat16"}, {"stored": "bfloat16"}, {"stored": "float16"}])
def test_half_precision_keeps_the_order_of_scores(fields, study_of, queries_of, tmp_path):
    study, queries = study_of(8), queries_of([10, 11, 12])
    exact = values(ready(DTrak), study, queries, tmp_path / "exact")
    rounded = values(ready(DTrak, **fields), study, queries, tmp_path / "rounded")
    for ours, reference in zip(rounded, exact, strict=True):
        assert stats.spearmanr(ours, reference).statistic > 0.9


def test_a_projection_dimension_above_the_rank_needs_a_lambda(study_of, queries_of, tmp_path):
    with pytest.raises(MethodError, match="singular; take λ > 0"):
        values(ready(Trak, lambda_reg=0.0), study_of(4), queries_of([7]), tmp_path)


def test_every_gradient_method_is_a_plugin_and_its_fields_are_checked():
    names = ["trak", "d-trak", "journey-trak", "grad-dot", "grad-cos", "tracin", "relative-influence",
             "renormalized-influence", "das", "datainf"]  # fmt: skip
    for name in names:
        cls = plugins.find("method", name).load()
        assert cls.name == name
        assert plugins.configure(cls, {"group": "attention", "timesteps": 3}).timesteps == 3
        with pytest.raises(Exception, match="group"):
            plugins.configure(cls, {"group": "crossattention"})
    assert dataclasses.replace(Trak(), lambda_reg=500.0).candidates() == ()


# ------------------------------------------------------------------------------- DataInf


def test_datainf_is_the_mean_of_inverses_layer_by_layer():
    generator = torch.Generator().manual_seed(0)
    train = torch.randn(6, 7, generator=generator, dtype=torch.float64)
    queries = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    layers = np.array([(0, 3, 3), (3, 7, 4)])
    expected = torch.zeros(2, 6, dtype=torch.float64)
    for first, last, size in layers:
        g, v = train[:, first:last], queries[:, first:last]
        value = 0.1 * g.square().sum(dim=1).mean() / size
        inverse = sum(
            torch.linalg.inv(torch.outer(row, row) + value * torch.eye(len(row), dtype=torch.float64)) for row in g
        ) / len(g)
        expected += v @ inverse @ g.T
    torch.testing.assert_close(influence(queries, train, layers, 0.1), expected, rtol=1e-9, atol=1e-12)


def test_datainf_over_one_image_is_the_exact_inverse():
    g, v = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[3.0, -1.0]]).double()
    value = 0.1 * 5 / 2
    exact = v @ torch.linalg.inv(g.T @ g + value * torch.eye(2, dtype=torch.float64)) @ g.T
    torch.testing.assert_close(influence(v, g, np.array([(0, 2, 2)]), 0.1), exact)


# ------------------------------------------------------------------------------- exact leave-one-out


def ridge_problem(residual_signs: bool):
    """Ridge regression with unit-variance columns; targets whose residuals have equal size if asked."""
    random = np.random.default_rng(0)
    n, d = 40, 5
    x = random.normal(size=(n, d))
    signs = random.choice([-1.0, 1.0], size=n)
    if residual_signs:  # residuals stay ±1 when the signs are orthogonal to every column
        x -= np.outer(signs, signs @ x) / n
    y = x @ random.normal(size=d) + (signs if residual_signs else random.normal(size=n))
    return x, y, random.normal(size=(6, d))


@pytest.mark.parametrize("function", ["loss", "prediction"])
def test_kernel_scores_meet_exact_leave_one_out_on_ridge_regression(function):
    """A linear model through the same watching, kernel and sign as the diffusion model, no projection."""
    from attribench.gradients.factors import record
    from attribench.gradients.kernels import RidgeKernel

    x, y, x_query = ridge_problem(residual_signs=function == "loss")
    ridge = 1e-2
    y_query = x_query @ np.linalg.lstsq(x, y, rcond=None)[0] + 2.0

    def solve(rows) -> np.ndarray:
        return np.linalg.solve(x[rows].T @ x[rows] + ridge * np.eye(x.shape[1]), x[rows].T @ y[rows])

    theta = solve(np.arange(len(x)))
    model = torch.nn.Linear(x.shape[1], 1, bias=False).double()
    model.weight.data = torch.from_numpy(theta)[None]

    def phi(inputs, targets) -> torch.Tensor:
        inputs, targets = torch.from_numpy(inputs), torch.from_numpy(targets)

        def run():
            prediction = model(inputs)[:, 0]
            return (prediction - targets).square() if function == "loss" else prediction

        return record({"model": model}, run)["model"].factor(1).matrix().flatten(1)

    left_out = [solve(np.delete(np.arange(len(x)), i)) for i in range(len(x))]
    train, seen = phi(x, y), phi(x_query, y_query)
    scores = RidgeKernel.fit(train).scores(seen, train, [ridge])[0].numpy()
    if function == "loss":  # removing what helps raises the query's loss
        truth = np.array([(x_query @ t - y_query) ** 2 for t in left_out]).T - ((x_query @ theta - y_query) ** 2)[:, None]
    else:  # DAS without the square: φ_q K⁻¹ φ_i r_i / (1 − h_i) is the exact change of the prediction
        leverage = RidgeKernel.fit(train).leverages(train, [ridge])[0].numpy()
        scores = scores * (y - x @ theta) / (1 - leverage)
        truth = (x_query @ theta)[:, None] - np.array([x_query @ t for t in left_out]).T
        np.testing.assert_allclose(scores, truth, rtol=1e-6, atol=1e-9)
    for ours, exact in zip(scores, truth, strict=True):
        assert stats.spearmanr(ours, exact).statistic >= 0.99
