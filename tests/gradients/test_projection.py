"""Projections keep inner products, and depend on nothing but their seed, the layer and the model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from attribench.errors import MethodError
from attribench.gradients.projection import Projection, side_matrix

SHAPES = {"up.to_k": (6, 5), "up.to_v": (9, 5), "down.to_k": (3, 8)}
RANDOM = [
    Projection(kind="sjlt", dim=16),
    Projection(kind="sjlt", dim=16, sparsity=3),
    Projection(kind="factored", dim=16, factor_dim=3),
    Projection(kind="factored", dim=16, factor_dim=4, distribution="normal"),
    Projection(kind="layerwise", dim=None, factor_dim=3),
    Projection(kind="layerwise", dim=None, factor_dim=4, distribution="rademacher"),
    Projection(kind="trak", dim=16),
    Projection(kind="trak", dim=130, distribution="rademacher"),
]


@dataclass(frozen=True)
class Gradients:
    """Gradients of one layer as outer products summed over tokens: Σ_r g_r x_rᵀ."""

    g: Tensor
    x: Tensor

    @property
    def n(self) -> int:
        return len(self.g)

    @property
    def shape(self) -> tuple[int, int]:
        return self.g.shape[2], self.x.shape[2]

    def matrix(self) -> Tensor:
        return self.two_sided(None, None)

    def two_sided(self, left: Tensor | None, right: Tensor | None) -> Tensor:
        g = self.g if left is None else self.g @ left
        return g.mT @ (self.x if right is None else self.x @ right)

    def __getitem__(self, rows: slice) -> Gradients:
        return Gradients(self.g[rows], self.x[rows])


def gradients(n: int, shapes=SHAPES, tokens: int = 4) -> dict[str, Gradients]:
    generator = torch.Generator().manual_seed(n)
    draw = lambda size: torch.randn(n, tokens, size, generator=generator)  # noqa: E731
    return {name: Gradients(draw(out), draw(columns)) for name, (out, columns) in shapes.items()}


def exact(factors: dict[str, Gradients]) -> Tensor:
    return torch.cat([factor.matrix().flatten(1) for factor in factors.values()], dim=1)


def name_of(projection: Projection) -> str:
    return "-".join(str(part) for part in (projection.kind, projection.factor_dim, projection.sparsity, projection.distribution))


def test_no_projection_is_the_gradients_in_layer_order():
    projector = Projection(kind="none", dim=None).projector(SHAPES, "cpu")
    factors = gradients(3)
    assert projector.dim == 6 * 5 + 9 * 5 + 3 * 8
    assert torch.equal(projector(factors), exact(factors))
    assert torch.equal(projector(factors)[:, projector.blocks["up.to_v"]], factors["up.to_v"].matrix().flatten(1))


def test_the_order_in_which_layers_arrive_does_not_matter():
    projector = Projection(dim=8).projector(SHAPES, "cpu")
    factors = gradients(3)
    assert torch.equal(projector(factors), projector(dict(reversed(factors.items()))))


@pytest.mark.parametrize("projection", RANDOM, ids=name_of)
def test_inner_products_are_right_on_average(projection):
    """E⟨Px, Py⟩ = ⟨x, y⟩ over seeds, within four standard errors; trak's entries have variance 1, not 1/dim."""
    factors = gradients(2)
    x, y = exact(factors)
    found = []
    for seed in range(400):
        projector = replace(projection, seed=7919 * seed).projector(SHAPES, "cpu")
        features = projector(factors)
        assert features.shape == (2, projector.dim) and features.dtype == torch.float32
        scale = projector.dim if projection.kind == "trak" else 1
        found.append(torch.stack([features[0] @ features[1], features[0] @ features[0]]) / scale)
    found = torch.stack(found).double()
    error = (found.mean(0) - torch.stack([x @ y, x @ x])).abs()
    assert (error < 4 * found.std(0) / 400**0.5).all()


@pytest.mark.parametrize("sparsity", [1, 4])
def test_the_sparse_projection_errs_no_more_than_a_dense_one(sparsity):
    """Var⟨Px, Py⟩ <= (‖x‖²‖y‖² + ⟨x, y⟩²)/dim, also for gradients with a few large coordinates."""
    dim = 32
    x, y = torch.randn(2, 300, generator=torch.Generator().manual_seed(0))
    x[::60], y[::60] = 9, 9
    layer = {"layer": Gradients(torch.stack([x, y])[:, None], torch.ones(2, 1, 1))}
    products = []
    for seed in range(600):
        projection = Projection(kind="sjlt", dim=dim, seed=seed, sparsity=sparsity)
        u, v = projection.projector({"layer": (300, 1)}, "cpu")(layer)
        products.append(u @ v)
    bound = ((x @ x) * (y @ y) + (x @ y) ** 2) / dim
    assert torch.stack(products).var() < 1.2 * bound


def test_orthogonal_sides_err_less_than_normal_ones():
    x, y = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    error = {}
    for distribution in ("orthogonal", "normal"):
        sides = [side_matrix(40, 30, distribution, seed) for seed in range(200)]
        error[distribution] = torch.stack([((x @ r) @ (y @ r) - x @ y).square() for r in sides]).mean()
    assert error["orthogonal"] < 0.5 * error["normal"]


def test_a_layer_that_is_small_enough_is_kept_exactly():
    projector = Projection(kind="layerwise", dim=None, factor_dim=6).projector(SHAPES, "cpu")
    factors = gradients(2)
    features = projector(factors)
    assert projector.dim == 6 * 5 + 6 * 5 + 3 * 6 == features.shape[1]
    assert torch.equal(features[:, projector.blocks["up.to_k"]], factors["up.to_k"].matrix().flatten(1))


def test_factored_is_the_mix_of_layerwise_blocks():
    """With nothing to shorten, the two-sided form is the sparse projection of the exact gradients."""
    factors = gradients(4)
    wide = Projection(kind="factored", dim=16, factor_dim=64).projector(SHAPES, "cpu")(factors)
    assert torch.equal(wide, Projection(kind="sjlt", dim=16).projector(SHAPES, "cpu")(factors))


@pytest.mark.parametrize("projection", RANDOM, ids=name_of)
def test_features_do_not_depend_on_the_batch(projection):
    factors = gradients(16)
    whole = projection.projector(SHAPES, "cpu")(factors)
    for size in (1, 3):
        projector = projection.projector(SHAPES, "cpu")
        parts = [projector({name: f[i : i + size] for name, f in factors.items()}) for i in range(0, 16, size)]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=1e-6 * float(whole.abs().max()))


@pytest.mark.parametrize("projection", RANDOM, ids=name_of)
def test_seed_and_model_each_change_the_projection(projection):
    factors = gradients(2)
    projector = projection.projector(SHAPES, "cpu")
    first, other_model, again = projector(factors, 0), projector(factors, 1), projector(factors, 0)
    other_seed = replace(projection, seed=1).projector(SHAPES, "cpu")(factors, 0)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other_model) and not torch.allclose(first, other_seed)


def test_a_layer_projects_the_same_whatever_stands_beside_it():
    projection = Projection(kind="layerwise", dim=None, factor_dim=3)
    factors = gradients(2)
    together = projection.projector(SHAPES, "cpu")
    alone = projection.projector({"up.to_v": SHAPES["up.to_v"]}, "cpu")({"up.to_v": factors["up.to_v"]})
    torch.testing.assert_close(together(factors)[:, together.blocks["up.to_v"]], alone)


def test_layers_longer_than_a_window_lose_no_coordinate():
    """A layer of 70,000 parameters takes three windows: its squared norm survives, each coordinate counted once."""
    shapes = {"layer": (350, 200)}
    projector = Projection(kind="sjlt", dim=1000, sparsity=1).projector(shapes, "cpu")
    ones = {"layer": Gradients(torch.ones(1, 1, 350), torch.ones(1, 1, 200))}
    *_, sketch = projector.drawn(0)["layer"]
    ((_, _, order, sign),) = sketch.parts
    assert torch.equal(order[sign != 0].sort().values, torch.arange(70_000, dtype=torch.int32))
    torch.testing.assert_close(projector(ones)[0].square().sum(), torch.tensor(70_000.0), rtol=0.2, atol=0)


@pytest.mark.parametrize("dim", [30, 230])
@pytest.mark.parametrize("model_id", [0, 3])
def test_trak_is_what_the_trak_package_computes(tmp_path, dim, model_id):
    """Against the projector that a TRAKer on a CPU makes itself, for one block of columns and for three."""
    from trak import TRAKer

    layers = torch.nn.Sequential(torch.nn.Linear(5, 6, bias=False), torch.nn.Linear(6, 9, bias=False))
    shapes = {f"{i}.weight": tuple(layer.weight.shape) for i, layer in enumerate(layers)}
    traker = TRAKer(
        layers, "image_classification", train_set_size=4, save_dir=str(tmp_path), device="cpu",
        proj_dim=dim, use_half_precision=False, projector_seed=5, logging_level=100,
    )  # fmt: skip
    factors = gradients(4, shapes)
    theirs = traker.projector.project({name: f.matrix() for name, f in factors.items()}, model_id=model_id)
    ours = Projection(kind="trak", dim=dim, seed=5).projector(shapes, "cpu")(factors, model_id)
    assert torch.equal(ours, theirs)


def test_trak_in_chunks_covers_batches_larger_than_its_buffer():
    """trak's chunked projector holds 32 samples; the chunks are cut between layers."""
    from trak.projectors import BasicProjector, ChunkedCudaProjector

    projector = Projection(kind="trak", dim=10).projector(SHAPES, "cpu")
    make = lambda size, seed: BasicProjector(size, 10, seed, "normal", "cpu")  # noqa: E731
    chunks = [make(75, 1), make(24, 2)]
    projector._chunked = True
    projector._projector = ChunkedCudaProjector(chunks, 80, [75, 24], 32, "cpu", torch.float32)
    factors = gradients(40)
    flat = exact(factors)
    torch.testing.assert_close(projector(factors), chunks[0].project(flat[:, :75], 0) + chunks[1].project(flat[:, 75:], 0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("projection", [p for p in RANDOM if p.kind != "trak"], ids=name_of)
def test_every_device_gets_the_same_features(projection):
    factors = gradients(5)
    moved = {name: Gradients(f.g.cuda(), f.x.cuda()) for name, f in factors.items()}
    found = projection.projector(SHAPES, "cuda")(moved).cpu()
    torch.testing.assert_close(found, projection.projector(SHAPES, "cpu")(factors), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("fields", "shapes", "told"),
    [
        ({"kind": "sjlt", "dim": 0}, SHAPES, "dimension of at least 1, not 0"),
        ({"kind": "factored", "dim": None}, SHAPES, "dimension of at least 1, not None"),
        ({"kind": "none", "dim": 8}, SHAPES, "set dim to None"),
        ({"kind": "layerwise", "dim": 8}, SHAPES, "set dim to None"),
        ({"kind": "sjlt"}, {}, "no layers"),
        ({"kind": "dense"}, SHAPES, "no projection is called 'dense'"),
        ({"kind": "sjlt", "dim": 4, "sparsity": 5}, SHAPES, "between 1 and dim=4"),
        ({"kind": "factored", "factor_dim": 0}, SHAPES, "at least 1, not 0"),
        ({"kind": "trak", "distribution": "orthogonal"}, SHAPES, "'normal' or 'rademacher'"),
        ({"kind": "factored", "distribution": "cauchy"}, SHAPES, "no distribution is called 'cauchy'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fields, shapes, told):
    with pytest.raises(MethodError, match=told) as raised:
        Projection(**fields).projector(shapes, "cpu")
    assert "\n" not in str(raised.value)


def test_gradients_of_another_model_are_refused():
    projector = Projection(dim=8).projector(SHAPES, "cpu")
    with pytest.raises(MethodError, match="'down.to_k' has gradients of shape None"):
        projector({name: f for name, f in gradients(2).items() if name != "down.to_k"})
    with pytest.raises(MethodError, match=r"'up.to_k' has gradients of shape \(7, 5\)"):
        projector(gradients(2, {**SHAPES, "up.to_k": (7, 5)}))
