"""Fisher matrices of real small models against torch.func, and of linear models against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from attribench.data import Edition, TrainImage, TrainingImages
from attribench.data.region import Region
from attribench.diffusion import noise
from attribench.diffusion.model import DiffusionModel
from attribench.errors import MethodError, UsageError
from attribench.files.state import State
from attribench.gradients import curvature, fisher
from attribench.gradients.curvature import EkFac, covariances, eigenbases, split_bases, split_entries, sum_of_squares
from attribench.gradients.diffusion import GradientReader, Sample, timesteps_of
from attribench.gradients.factors import record
from attribench.gradients.fisher import Fisher
from attribench.gradients.outputs import output
from attribench.gradients.region import mask as mask_of
from attribench.interface import Study


@pytest.fixture
def double_model(small_model: DiffusionModel) -> DiffusionModel:
    small_model.unet.double()
    small_model.text_encoder.double()
    return small_model


class OneModel(Study):
    """What a Fisher reads: pictures, prompts and a model."""

    edition: Edition = "mini"
    id, seed, device = "study", 0, "cpu"
    prompts = models = generations = features = trajectory = observation = None
    model = None

    def __init__(self, model, pictures, flips=False) -> None:
        self.model, self.flips = model, flips
        prompt = "photo of a <new1> cat"
        images = [TrainImage(id=name, prompt=prompt, caption="", concept="") for name in pictures]
        self.train = TrainingImages(images, pictures.__getitem__)


@pytest.fixture
def study(double_model, pictures) -> OneModel:
    return OneModel(double_model, dict(list(pictures.items())[:3]))


def kept(study: Study, kind: str, folder, group="cross-attention-kv", draws: int = 4) -> State:
    state = State(folder)
    Fisher(kind=kind, group=group, draws=draws).of_training(study, state)
    return state


# ------------------------------------------------------------------------------- the diagonal


@pytest.mark.parametrize("group", ["cross-attention-kv", "full"])
def test_the_diagonal_is_the_oracles_mean_of_squared_gradients(study, tmp_path, group):
    state = kept(study, "diagonal", tmp_path / group, group, draws=1)
    oracle = GradientReader(study.model, group, "loss", vmap=True)
    samples = list(Fisher(kind="diagonal", group=group, draws=1)._samples(study, study.model, range(3)))
    total = 0.0
    for sample in samples:
        factors, _ = oracle.factors([sample])
        total = total + torch.cat([factor.matrix()[0].square().flatten() for factor in factors.values()])
    torch.testing.assert_close(torch.from_numpy(np.array(state["squares"])), total / len(samples), rtol=1e-9, atol=1e-22)


def test_draws_differ_in_timestep_and_noise_and_flips_double_them(study):
    of_three = Fisher(kind="diagonal", group="full", draws=5)
    samples = list(of_three._samples(study, study.model, range(3)))
    assert len(samples) == 15
    assert all(sorted(s.timesteps[0] // 200 for s in samples[i : i + 5]) == [0, 1, 2, 3, 4] for i in (0, 5, 10))
    assert len({s.timesteps[0] for s in samples}) > 10
    assert len({s.noise.sum().item() for s in samples}) == 15
    mirrored = list(of_three._samples(study, study.model, range(3, 6)))
    assert not torch.allclose(mirrored[0].latents, samples[0].latents)


@pytest.mark.parametrize("kind", ["diagonal", "ekfac"])
def test_a_fisher_does_not_depend_on_the_batch_and_goes_on_after_a_kill(study, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(fisher, "ROWS", 16)
    whole = kept(study, kind, tmp_path / "whole")
    monkeypatch.setattr(fisher, "ROWS", 1)
    single = kept(study, kind, tmp_path / "single")
    np.testing.assert_allclose(single["squares"], whole["squares"], rtol=1e-9, atol=1e-12 * np.max(whole["squares"]))

    monkeypatch.setattr(fisher, "BLOCK", 4)  # one image
    blocks = kept(study, kind, tmp_path / "blocks")
    reads = 0

    class Killed(Exception):
        pass

    original = Fisher._samples

    def dying(self, *args):
        nonlocal reads
        reads += 1
        if reads == (2 if kind == "diagonal" else 5):  # EK-FAC: in the second of its two readings
            raise Killed
        return original(self, *args)

    monkeypatch.setattr(Fisher, "_samples", dying)
    with pytest.raises(Killed):
        kept(study, kind, tmp_path / "killed")
    before = reads
    resumed = kept(study, kind, tmp_path / "killed")
    assert reads - before == 2  # the block in the making and the last one
    np.testing.assert_array_equal(resumed["squares"], blocks["squares"])


def test_each_draw_has_one_of_the_images_captions_and_all_are_drawn(double_model, pictures):
    captions = ("a cat", "a red cat", "a picture of a cat")
    images = [TrainImage(id=name, prompt=captions[0], caption="", concept="", further_prompts=captions[1:]) for name in pictures]
    study = OneModel(double_model, pictures)
    study.train = TrainingImages(images, pictures.__getitem__)
    fisher = Fisher(kind="diagonal", group="full", draws=6)
    seen = [sample.prompt for sample in fisher._samples(study, double_model, range(8))]
    assert set(seen) == set(captions)
    assert len({tuple(seen[6 * row : 6 * row + 6]) for row in range(8)}) > 4  # not the same one for all of a batch
    study.train = TrainingImages(images[4:], pictures.__getitem__)
    assert [sample.prompt for sample in fisher._samples(study, double_model, range(1))] == seen[24:30]


def test_an_entry_without_curvature_is_an_error_only_where_the_query_asks_for_a_step():
    squares = {"layer": torch.tensor([[0.0, 2.0]]).double()}
    unasked = EkFac(squares, {}, damping=0.0).solve({"layer": torch.tensor([[0.0, 4.0]])})
    assert unasked["layer"].tolist() == [[0.0, 2.0]]
    with pytest.raises(MethodError, match="1 of 2 entries of the Fisher of layer are 0 .* give damping"):
        EkFac(squares, {}, damping=0.0).solve({"layer": torch.tensor([[1.0, 4.0]])})
    damped = EkFac(squares, {}, damping=0.5).solve({"layer": torch.tensor([[1.0, 5.0]])})  # 0.5 · mean(0, 2)
    assert damped["layer"].tolist() == [[2.0, 2.0]]


def test_squares_of_small_gradients_do_not_vanish():
    from attribench.gradients.factors import MatrixFactor

    assert sum_of_squares({"layer": MatrixFactor(torch.full((1, 1, 1), 1e-30))}).item() == pytest.approx(1e-60)


# ------------------------------------------------------------------------------- EK-FAC


def test_with_identity_bases_ekfac_is_the_damped_diagonal():
    generator = torch.Generator().manual_seed(0)
    squares = {"layer": torch.rand(4, 6, generator=generator).double()}
    gradient = {"layer": torch.randn(4, 6, generator=generator)}
    bases = {"layer": (torch.eye(4).double(), torch.eye(6).double())}
    ours = EkFac(squares, bases, damping=0.1).solve(gradient)["layer"]
    torch.testing.assert_close(ours, EkFac(squares, {}, damping=0.1).solve(gradient)["layer"])
    torch.testing.assert_close(ours, gradient["layer"].double() / (squares["layer"] + 0.1 * squares["layer"].mean()))


def linear_problem():
    """Every input meets every residual once, and residuals have covariance I: Gaussian noise without its chance."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(7, 3, generator=generator).double() @ torch.randn(3, 3, generator=generator).double()
    residuals = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    model = nn.Linear(3, 2).double()
    x = inputs.repeat_interleave(len(residuals), dim=0)
    return model, x, model(x).detach() + residuals.repeat(len(inputs), 1)


def ekfac_of(model: nn.Linear, x: torch.Tensor, targets: torch.Tensor) -> EkFac:
    factors = {"w": record({"w": model}, lambda: (model(x) - targets).square().sum(dim=1) / 2)["w"].factor(1)}
    shapes = {"w": factors["w"].shape}
    bases = split_bases(eigenbases(covariances(factors, ["w"]), shapes), shapes)
    return EkFac(split_entries(sum_of_squares(factors, bases) / len(x), shapes), bases, damping=0.0)


def test_on_a_linear_model_with_gaussian_noise_ekfac_is_the_exact_newton_step():
    """F = A ⊗ I is the Hessian of ½‖Wx + b − t‖², whose eigenbasis EK-FAC finds; the bias is an input that is 1."""
    model, x, targets = linear_problem()
    gradient = torch.randn(2, 4, generator=torch.Generator().manual_seed(2)).double()
    ours = ekfac_of(model, x, targets).solve({"w": gradient})["w"]
    augmented = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    hessian = augmented.T @ augmented / len(x)
    torch.testing.assert_close(ours, gradient @ torch.linalg.inv(hessian), rtol=1e-9, atol=1e-12)


def test_one_step_lands_on_the_optimum_of_a_quadratic_loss():
    model, x, targets = linear_problem()
    ekfac = ekfac_of(model, x, targets)
    shifted = targets + x @ torch.randn(3, 2, generator=torch.Generator().manual_seed(3)).double()
    errors = model(x).detach() - shifted
    augmented = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    step = ekfac.solve({"w": errors.T @ augmented / len(x)})["w"]
    landed = torch.cat([model.weight.detach(), model.bias.detach()[:, None]], dim=1) - step
    torch.testing.assert_close(landed, torch.linalg.lstsq(augmented, shifted).solution.T, rtol=1e-9, atol=1e-12)


def test_a_diagonal_quadratic_is_solved_by_the_diagonal_in_one_step():
    """Inputs one at a time, residuals ±1: the Hessian of ½(wᵀx − t)² is diag E[x²], and so is E[g²]."""
    scales = torch.tensor([0.5, 2.0, 3.0]).double()
    x = torch.diag(scales).repeat(2, 1)
    signs = torch.tensor([1.0, 1, 1, -1, -1, -1]).double()[:, None]
    model = nn.Linear(3, 1, bias=False).double()
    targets = model(x).detach() + signs
    factors = {"w": record({"w": model}, lambda: (model(x) - targets).square().sum(dim=1) / 2)["w"].factor(1)}
    diagonal = EkFac({"w": (sum_of_squares(factors) / len(x)).reshape(1, 3)}, {}, damping=0.0)
    optimum = torch.tensor([[4.0, -1.0, 2.0]]).double()
    gradient = ((model(x) - x @ optimum.T).T @ x / len(x)).detach()
    torch.testing.assert_close(model.weight.detach() - diagonal.solve({"w": gradient})["w"], optimum)


def test_a_convolution_is_a_linear_layer_over_patches(study, tmp_path):
    """Λ from two-sided contractions equals rotating the oracle's gradients; normalizations keep their diagonal."""
    state = kept(study, "ekfac", tmp_path / "state", "full", draws=1)
    reader = GradientReader(study.model, "full", "loss")
    own = Fisher(kind="ekfac", group="full", draws=1)
    found = own.curvature(state, reader, damping=0.1)
    assert "conv_in" in found.bases and not any("norm" in name for name in found.bases)
    factors, _ = reader.factors(list(own._samples(study, study.model, range(3))))
    for name in ("conv_in", "conv_norm_out", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"):
        g = factors[name].matrix()
        left, right = found.bases.get(name, (torch.eye(g.shape[1]).double(), torch.eye(g.shape[2]).double()))
        torch.testing.assert_close(left.T @ left, torch.eye(len(left)).double(), rtol=0, atol=1e-10)
        torch.testing.assert_close(found.squares[name], (left.T @ g @ right).square().mean(dim=0), rtol=1e-8, atol=1e-22)


# ------------------------------------------------------------------------------- inner products


@pytest.mark.parametrize("n_directions", [1, 4])
def test_inner_products_need_no_gradient_and_equal_those_with_it(double_model, n_directions):
    steps = timesteps_of("uniform", 2, 1000)
    samples = [
        Sample(
            id=str(i), prompt="a cat", latents=noise.normal(double_model.latent_shape, "x", i).double().expand(2, -1, -1, -1),
            timesteps=steps, noise=torch.stack([noise.normal(double_model.latent_shape, i, t) for t in steps]).double(),
        )
        for i in range(2)
    ]  # fmt: skip
    factors, _ = GradientReader(double_model, "full", "loss").factors(samples)
    for factor in factors.values():
        directions = torch.randn(n_directions, *factor.shape, generator=torch.Generator().manual_seed(0)).double()
        expected = torch.einsum("noi,qoi->nq", factor.matrix(), directions)
        torch.testing.assert_close(factor.inner(directions), expected, rtol=1e-9, atol=1e-15)
    assert curvature.has_bases(double_model.unet.conv_in)


# ------------------------------------------------------------------------------- regions


def test_a_region_is_the_cells_that_its_box_touches():
    whole = mask_of(Region.parse("0,0,32,32"), (32, 32), 32, 4)
    assert whole.shape == (1, 8, 8) and whole.all()
    mask = mask_of(Region.parse("3, 8, 2, 4"), (32, 32), 32, 4)  # columns 3 and 4 of pixels: cells 0 and 1
    assert mask[0].nonzero().tolist() == [[2, 0], [2, 1]]
    large = mask_of(Region.parse("6,16,4,8"), (64, 64), 32, 4)  # the same box of a picture of twice the size
    assert torch.equal(large, mask)
    wide = mask_of(Region.parse("16,0,32,32"), (64, 32), 32, 4)  # the centre square is all that the model sees
    assert wide.all()


def test_a_region_that_the_model_cannot_see_is_told():
    with pytest.raises(UsageError, match="30,0,4,4 reaches beyond the picture of 32 × 32 pixels"):
        mask_of(Region.parse("30,0,4,4"), (32, 32), 32, 4)
    with pytest.raises(MethodError, match="outside the centre square"):
        mask_of(Region.parse("0,0,8,8"), (64, 32), 32, 4)


@pytest.mark.parametrize("function", ["loss", "mean-squared-l2-norm", "mean", "l1-norm", "l2-norm", "linf-norm", "weighted-mse"])
def test_no_function_counts_what_lies_outside_the_mask(function):
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, 3, 4, 4, generator=generator, requires_grad=True)
    target, mask = torch.randn(2, 3, 4, 4, generator=generator), torch.zeros(2, 1, 4, 4)
    mask[:, :, :2, 1:3] = 1
    abar = torch.linspace(0.9, 0.1, 10)
    value = output(function, prediction, target, torch.tensor([3, 7]), abar, mask)
    cut = output(function, prediction[..., :2, 1:3], target[..., :2, 1:3], torch.tensor([3, 7]), abar)
    torch.testing.assert_close(value, cut)
    (gradient,) = torch.autograd.grad(value.sum(), prediction)
    assert (gradient * (1 - mask) == 0).all() and (gradient * mask).any()
