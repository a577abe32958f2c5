"""Gradients as factors equal those of torch.func for every row, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attribench.diffusion import noise
from attribench.diffusion.model import DiffusionModel
from attribench.errors import MethodError
from attribench.gradients.diffusion import GradientReader, Sample, timesteps_of
from attribench.gradients.factors import record
from attribench.gradients.groups import layers_of

GROUPS = ["cross-attention-kv", "cross-attention", "attention", "full"]


@pytest.fixture
def double_model(small_model: DiffusionModel) -> DiffusionModel:
    """The small model in float64."""
    small_model.unet.double()
    small_model.text_encoder.double()
    return small_model


def samples_for(model: DiffusionModel, n: int = 3, k: int = 4) -> list[Sample]:
    prompts = ["photo of a <new1> cat", "a red dog", "an image of a <new2> chair"]
    steps = timesteps_of("uniform", k, model.n_timesteps)
    dtype = next(model.unet.parameters()).dtype
    return [
        Sample(
            id=f"{i}.png",
            prompt=prompts[i % 3],
            latents=noise.normal(model.latent_shape, "latent", i).to(dtype).expand(k, -1, -1, -1),
            timesteps=steps,
            noise=torch.stack([noise.normal(model.latent_shape, "noise", i, t) for t in steps]).to(dtype),
        )
        for i in range(n)
    ]


def matrices(reader: GradientReader, samples: list[Sample]) -> dict[str, torch.Tensor]:
    factors, _ = reader.factors(samples)
    return {name: factor.matrix() for name, factor in factors.items()}


def relative_error(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert list(a) == list(b)
    return max(((a[name] - b[name]).norm() / b[name].norm().clamp(min=1e-30)).item() for name in a)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("normalize", [False, True])
def test_factors_equal_the_vmap_oracle(double_model, group, normalize):
    samples = samples_for(double_model)
    ours = matrices(GradientReader(double_model, group, "loss", normalize=normalize), samples)
    oracle = matrices(GradientReader(double_model, group, "loss", normalize=normalize, vmap=True), samples)
    for name in oracle:  # a layer whose true gradient is zero would hide behind a relative error
        assert oracle[name].abs().max() < 1e-14 or relative_error({name: ours[name]}, {name: oracle[name]}) < 1e-10


@pytest.mark.parametrize("function", ["loss", "mean-squared-l2-norm", "mean", "l1-norm", "l2-norm", "linf-norm", "weighted-mse"])
def test_every_output_function_equals_a_transcription_of_its_formula(double_model, function):
    (sample,) = samples_for(double_model, n=1, k=3)
    ours = matrices(GradientReader(double_model, "cross-attention-kv", function), [sample])
    layers = layers_of(double_model.unet, "cross-attention-kv")
    weights = [layer.weight.requires_grad_(True) for layer in layers.values()]
    scheduler, abar = double_model.scheduler, double_model.scheduler.alphas_cumprod
    total = [torch.zeros_like(weight) for weight in weights]
    for x, t, epsilon in zip(sample.latents, sample.timesteps, sample.noise, strict=True):
        x_t = abar[t].double().sqrt() * x + (1 - abar[t].double()).sqrt() * epsilon
        e = double_model.unet(x_t[None], t, double_model.encode_prompts([sample.prompt])).sample[0]
        d, beta, alpha = e.numel(), scheduler.betas[t].double(), 1 - scheduler.betas[t].double()
        f = {
            "loss": ((e - epsilon) ** 2).sum() / d,
            "mean-squared-l2-norm": (e**2).sum() / d,
            "mean": e.sum() / d,
            "l1-norm": e.abs().sum(),
            "l2-norm": (e**2).sum() ** 0.5,
            "linf-norm": e.abs().max(),
            "weighted-mse": beta / (2 * alpha * (1 - abar[t].double())) * ((e - epsilon) ** 2).sum() / d,
        }[function]
        for part, g in zip(total, torch.autograd.grad(f, weights), strict=True):
            part += g / len(sample.timesteps)
    for weight in weights:
        weight.requires_grad_(False)
    expected = dict(zip(layers, total, strict=True))
    # scheduler.add_noise and the variational weight compute with float32 ᾱ, the transcription with float64
    tolerance = 1e-4 if function == "weighted-mse" else 1e-5
    assert relative_error({name: m[0] for name, m in ours.items()}, expected) < tolerance


def test_summing_output_gradients_of_keys_and_values_is_exact(double_model):
    reader = GradientReader(double_model, "cross-attention-kv", "mean-squared-l2-norm")
    samples = samples_for(double_model)
    rows = reader._rows(samples, slice(None))
    seen = record(reader.layers, lambda: reader._values(double_model.unet, rows))
    for recorded in seen.values():
        general, shared = recorded.factor(4), recorded.factor(4, same_input=True)
        assert shared.inputs.shape[1] * 4 == general.inputs.shape[1]
        torch.testing.assert_close(shared.matrix(), general.matrix(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("group", ["cross-attention-kv", "full"])
def test_two_sided_projection_equals_projecting_the_matrix(double_model, group):
    factors, _ = GradientReader(double_model, group, "loss").factors(samples_for(double_model))
    generator = torch.Generator().manual_seed(0)
    for factor in factors.values():
        out, columns = factor.shape
        left = torch.randn(out, 3, generator=generator, dtype=torch.float64)
        right = torch.randn(columns, 5, generator=generator, dtype=torch.float64)
        g = factor.matrix()
        assert g.shape == (factor.n, out, columns)
        torch.testing.assert_close(factor.two_sided(left, right), left.T @ g @ right, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(factor.two_sided(left, None), left.T @ g, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(factor.two_sided(None, right), g @ right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("group", ["cross-attention-kv", "full"])
def test_row_norms_equal_those_of_the_gradients(double_model, group):
    reader = GradientReader(double_model, group, "loss")
    rows = reader._rows(samples_for(double_model), slice(None))
    seen = record(reader.layers, lambda: reader._values(double_model.unet, rows))
    for recorded in seen.values():
        matrix = recorded.factor(1).matrix()
        torch.testing.assert_close(recorded.squared_norms(), matrix.square().sum(dim=(1, 2)), rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("normalize", [False, True])
def test_passes_of_any_size_give_the_same_gradients(double_model, normalize):
    samples = samples_for(double_model, n=5)

    def flat(factors):
        return torch.cat([factor.matrix().flatten(1) for factor in factors.values()], dim=1)

    def features(rows):
        reader = GradientReader(double_model, "attention", "loss", rows=rows, normalize=normalize)
        read = list(reader.read(samples, flat))
        return torch.cat([g.features for g in read]), torch.cat([g.errors for g in read])

    one_by_one, errors = features(1)  # fewer than the timesteps of a sample: summed over passes
    for rows in (3, 4, 8, 64):
        batched, same_errors = features(rows)
        torch.testing.assert_close(batched, one_by_one, rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(same_errors, errors)


def test_low_rank_adapters_are_a_group_of_their_own(double_model):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    double_model.unet.add_adapter(
        peft.LoraConfig(r=2, init_lora_weights="gaussian", target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    )
    double_model.unet.double()
    for name, parameter in double_model.unet.named_parameters():
        if "lora_B" in name:  # zero at the start, which would leave no gradient for lora_A
            nn.init.normal_(parameter, std=0.1)
    layers = layers_of(double_model.unet, "lora")
    assert layers and all("lora" in name for name in layers)
    assert not any("lora" in name for name in layers_of(double_model.unet, "attention"))
    samples = samples_for(double_model, n=2)
    ours = matrices(GradientReader(double_model, "lora", "loss"), samples)
    oracle = matrices(GradientReader(double_model, "lora", "loss", vmap=True), samples)
    assert relative_error(ours, oracle) < 1e-10


def test_modules_without_factors_fall_back_to_vmap(double_model):
    """A depthwise convolution is not a linear layer over shared patches."""
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=4).double()
    inner = double_model.unet.conv_out
    double_model.unet.conv_out = nn.Sequential(inner, conv)
    samples = samples_for(double_model)
    reader = GradientReader(double_model, "full", "loss")
    assert list(reader._by_vmap) == ["conv_out.1"]
    oracle = matrices(GradientReader(double_model, "full", "loss", vmap=True), samples)["conv_out.1"]
    ours = matrices(reader, samples)
    assert list(ours) == list(reader.shapes) and ours["conv_out.1"].shape[1:] == reader.shapes["conv_out.1"]
    torch.testing.assert_close(ours["conv_out.1"], oracle)


def test_reading_leaves_the_model_as_it_was(small_model):
    before = {name: p.clone() for name, p in small_model.unet.named_parameters()}
    for _ in GradientReader(small_model, "full", "loss").read(samples_for(small_model), lambda f: torch.zeros(3, 1)):
        pass
    for name, parameter in small_model.unet.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None and not parameter.requires_grad
    assert not any(module._forward_hooks for module in small_model.unet.modules())


def test_a_group_without_parameters_is_refused(small_model):
    with pytest.raises(MethodError, match="'lora' names no parameter"):
        layers_of(small_model.unet, "lora")
    with pytest.raises(MethodError, match="no such attention"):
        layers_of(nn.Sequential(nn.Conv2d(4, 4, 3)), "cross-attention")


def test_a_loss_that_is_not_finite_names_the_picture(small_model):
    small_model.unet.conv_out.bias.data.fill_(float("nan"))
    reader = GradientReader(small_model, "cross-attention-kv", "loss")
    with pytest.raises(MethodError, match=r"not finite for 2 pictures, the first '0.png'"):
        list(reader.read(samples_for(small_model, n=2), lambda f: torch.zeros(2, 1)))


def test_timesteps_are_spread_or_the_first_or_drawn_for_the_sample():
    assert timesteps_of("uniform", 10, 1000) == list(range(0, 1000, 100))
    assert len(timesteps_of("uniform", 7, 1000)) == 7
    assert timesteps_of("cumulative", 3, 1000) == [0, 1, 2]
    assert timesteps_of("random", 5, 1000, "a") == timesteps_of("random", 5, 1000, "a")
    assert timesteps_of("random", 5, 1000, "a") != timesteps_of("random", 5, 1000, "b")
    with pytest.raises(MethodError, match="ask for fewer"):
        timesteps_of("uniform", 1001, 1000)
