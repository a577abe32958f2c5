"""Ridge kernels against plain inverses in float64, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from attribench.errors import MethodError
from attribench.files.state import State
from attribench.gradients import kernels
from attribench.gradients.kernels import LAMBDA_GRID, RidgeKernel

SIZES = [(40, 12), (12, 40), (15, 15)]
LAMBDAS = (0.01, 0.5, 30.0)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inverse(phi: Tensor, damping: float) -> Tensor:
    """(ΦᵀΦ + λI)⁻¹."""
    return torch.linalg.inv(phi.double().T @ phi.double() + damping * torch.eye(phi.shape[1], dtype=torch.float64))


class Watched:
    """Features that note how they are read."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.shape, self.reads = values, tuple(values.shape), []

    def __getitem__(self, rows: slice) -> Tensor:
        self.reads.append((rows.start, rows.stop))
        return self.values[rows]


@pytest.fixture(params=[2**19, 50], ids=["one-block", "many-blocks"])
def block(request, monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", request.param)


def test_the_grid_is_that_of_d_trak():
    assert len(LAMBDA_GRID) == 27
    assert LAMBDA_GRID[:4] == (0.01, 0.02, 0.05, 0.1) and LAMBDA_GRID[-1] == 5e6
    assert list(LAMBDA_GRID) == sorted(LAMBDA_GRID)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(("n", "k"), SIZES)
class TestAgainstTheInverse:
    def test_scores(self, n, k):
        phi, queries = random(n, k), random(5, k, seed=1)
        expected = torch.stack([queries @ inverse(phi, value) @ phi.T for value in LAMBDAS])
        torch.testing.assert_close(RidgeKernel.fit(phi).scores(queries, phi, LAMBDAS), expected, rtol=1e-9, atol=1e-9)

    def test_leverages(self, n, k):
        phi = random(n, k)
        found = RidgeKernel.fit(phi).leverages(phi, LAMBDAS)
        expected = torch.stack([(phi @ inverse(phi, value) @ phi.T).diagonal() for value in LAMBDAS])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert found.min() >= 0 and found.max() <= 1

    def test_norms_of_the_inverse_times_each_row(self, n, k):
        phi = random(n, k)
        expected = torch.stack([(phi @ inverse(phi, value)).norm(dim=1) for value in LAMBDAS])
        torch.testing.assert_close(RidgeKernel.fit(phi).inverse_norms(phi, LAMBDAS), expected, rtol=1e-9, atol=1e-9)

    def test_mean_entry_of_the_inverse(self, n, k):
        phi = random(n, k)
        expected = torch.stack([inverse(phi, value).abs().mean() for value in LAMBDAS])
        torch.testing.assert_close(RidgeKernel.fit(phi).mean_absolute_inverse(phi, LAMBDAS), expected, rtol=1e-9, atol=1e-9)

    def test_a_kept_kernel_scores_as_the_fitted_one(self, n, k, tmp_path):
        phi, queries, state = random(n, k), random(5, k, seed=1), State(tmp_path)
        kernel = RidgeKernel.fit(phi)
        assert "kernel-0.sizes" not in state
        kernel.save(state, "kernel-0")
        assert "kernel-0.sizes" in state
        loaded = RidgeKernel.load(state, "kernel-0")
        assert torch.equal(loaded.scores(queries, phi, LAMBDAS), kernel.scores(queries, phi, LAMBDAS))
        assert loaded.mean_squared_norm == pytest.approx(float(phi.square().sum()) / n)


def test_traker_divides_by_the_mean_entry():
    """φ A / mean|A| of the installed trak package."""
    from trak.score_computers import BasicScoreComputer

    phi = random(30, 8, dtype=torch.float32)
    computer = BasicScoreComputer(torch.float32, "cpu", lambda_reg=0.3)
    theirs = computer.get_x_xtx_inv(phi, computer.get_xtx(phi))
    kernel = RidgeKernel.fit(phi)
    ours = kernel.scores(torch.eye(8), phi, [0.3])[0].T / kernel.mean_absolute_inverse(phi, [0.3])
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("n", "k"), [(300, 100), (100, 300)])
def test_features_of_low_precision_give_scores_of_float32(tmp_path, n, k, dtype):
    """Read from a memory map, with eigenvalues over six decades; the error is that of the last bit of Φ."""
    decay = torch.logspace(0, -3, k, dtype=torch.float64)
    phi, queries = (random(n, k) * decay).to(dtype), (random(6, k, seed=1) * decay).float()
    np.save(tmp_path / "phi.npy", phi.numpy())
    mapped = np.load(tmp_path / "phi.npy", mmap_mode="r")
    lambdas = (1e-3, 1.0)
    expected = torch.stack([queries.double() @ inverse(phi, value) @ phi.double().T for value in lambdas])
    found = RidgeKernel.fit(mapped).scores(queries, mapped, lambdas)
    assert found.dtype == torch.float32
    worst = (found - expected).abs().amax(dim=(1, 2)) / expected.abs().amax(dim=(1, 2))
    assert worst.max() < 2e-5


@pytest.mark.parametrize(("n", "passes"), [(4000, 1), (30, 2)])
def test_memory_holds_a_block_and_one_pass_serves_every_lambda(monkeypatch, n, passes):
    monkeypatch.setattr(kernels, "BLOCK", 640)
    features = Watched(random(n, 32))
    kernel = RidgeKernel.fit(features)
    assert max(stop - start for start, stop in features.reads) <= 20
    features.reads.clear()
    rows = sum(part.shape[2] for _, part in kernel.score_blocks(random(2, 32, seed=1), features, LAMBDA_GRID))
    assert rows == n
    assert sum(stop - start for start, stop in features.reads) <= passes * n + 1


def test_a_relative_lambda_scales_with_the_features():
    phi, queries = random(30, 8), random(3, 8, seed=1)

    def scores(factor: float) -> Tensor:
        kernel = RidgeKernel.fit(phi * factor)
        return kernel.scores(queries * factor, phi * factor, kernel.absolute(LAMBDAS, "relative"))

    torch.testing.assert_close(scores(1.0), scores(1000.0))
    assert RidgeKernel.fit(phi).absolute(LAMBDAS, "absolute") == LAMBDAS


def test_without_damping_a_full_rank_kernel_is_least_squares():
    phi, queries = random(30, 8), random(3, 8, seed=1)
    expected = queries @ torch.linalg.pinv(phi)
    torch.testing.assert_close(RidgeKernel.fit(phi).scores(queries, phi, [0.0])[0], expected)


@pytest.mark.parametrize(
    ("phi", "told"),
    [
        (random(20, 50), "n=20 training rows and k=50 features, of rank 20, is singular"),
        (random(50, 4) @ random(4, 20, seed=1), "n=50 training rows and k=20 features, of rank 4, is singular"),
        (torch.cat([random(20, 20)[:, :19], torch.zeros(20, 1)], dim=1), "of rank 19, is singular"),
        (torch.zeros(5, 3), "of rank 0, is singular"),
    ],
    ids=["more-features-than-rows", "low-rank", "a-dead-feature", "nothing"],
)
def test_a_singular_system_is_refused_and_says_what_to_do(phi, told):
    kernel = RidgeKernel.fit(phi)
    too_small = float(kernel.values[-1]) * 1e-18
    for value in (0.0, too_small):
        for product in (kernel.leverages, kernel.inverse_norms, kernel.mean_absolute_inverse):
            with pytest.raises(MethodError, match=told):
                product(phi, [1.0, value])
        with pytest.raises(MethodError, match="take λ > 0 .* or a projection_dim of at most") as raised:
            kernel.scores(phi[:2], phi, [value])
        assert "\n" not in str(raised.value)
    assert kernel.scores(phi[:2], phi, [1.0]).isfinite().all()


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_lambda_below_zero_is_refused(value):
    with pytest.raises(MethodError, match="λ must be a number of at least 0"):
        RidgeKernel.fit(random(5, 3)).scores(random(2, 3), random(5, 3), [value])


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(("n", "k"), SIZES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_counted(n, k, bad):
    phi = random(n, k)
    phi[[1, 7], 2] = bad
    with pytest.raises(MethodError, match=f"2 of {n} rows of training features are NaN or infinite"):
        RidgeKernel.fit(phi)
    with pytest.raises(MethodError, match="1 of 3 queries have NaN or infinite features"):
        RidgeKernel.fit(random(n, k)).scores(phi[:3], random(n, k), [1.0])


def test_other_features_than_the_fitted_ones_are_refused(tmp_path):
    kernel = RidgeKernel.fit(random(9, 4))
    with pytest.raises(MethodError, match=r"fitted to features \[9, 4\], but gets \[8, 4\]"):
        kernel.scores(random(2, 4), random(8, 4), [1.0])
    with pytest.raises(MethodError, match=r"queries \[2, 5\]"):
        kernel.scores(random(2, 5), random(9, 4), [1.0])
    with pytest.raises(MethodError, match="needs training features"):
        RidgeKernel.fit(torch.zeros(0, 4))
    with pytest.raises(MethodError, match="no kernel 'kernel' was kept"):
        RidgeKernel.load(State(tmp_path), "kernel")


@pytest.mark.parametrize("n", [8, 90])
def test_the_mean_of_some_columns_stands_for_all(n, monkeypatch):
    """Random features, primal and dual: a quarter of the columns gives the mean to a few per cent."""
    from attribench.gradients import kernels

    features = random(n, 64)
    kernel = RidgeKernel.fit(features)
    exact = torch.linalg.inv(features.T @ features + 0.5 * torch.eye(64, dtype=torch.float64)).abs().mean()
    torch.testing.assert_close(kernel.mean_absolute_inverse(features, [0.5])[0], exact)
    monkeypatch.setattr(kernels, "MEAN_COLUMNS", 16)
    assert abs(kernel.mean_absolute_inverse(features, [0.5])[0] / exact - 1) < 0.1
