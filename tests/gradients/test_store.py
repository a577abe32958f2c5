"""A feature store holds what was written, loses at most the block in the making, and refuses what it cannot keep."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch

from attribench.errors import MethodError
from attribench.files.state import State
from attribench.gradients import store
from attribench.gradients.kernels import RidgeKernel
from attribench.gradients.store import FeatureRows, FeatureWriter

IDS = tuple(f"cat/{i}.png" for i in range(5))


def values(rows: int = 10, k: int = 3) -> torch.Tensor:
    return torch.randn(rows, k, generator=torch.Generator().manual_seed(0))


def writer(state: State, **changes) -> FeatureWriter:
    return FeatureWriter(state, "features-0", **{"ids": IDS, "k": 3, "identity": "model a", "versions": 2} | changes)


def written(state: State, **changes) -> FeatureRows:
    into = writer(state, **changes)
    into.append(values())
    return FeatureRows(state, "features-0", "model a")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("float16", 1e-3), ("bfloat16", 4e-3)])
def test_rows_come_back_in_order_whatever_the_blocks(tmp_path, dtype, tolerance):
    state = State(tmp_path)
    into = writer(state, dtype=dtype)
    for start, stop in ((0, 1), (1, 4), (4, 7), (7, 10)):  # the third crosses from one version to the next
        into.append(values()[start:stop])
    kept = FeatureRows(state, "features-0", "model a")
    assert kept.shape == (10, 3)
    for size in (1, 3, 100):
        blocks = [kept[start : start + size] for start in range(0, 10, size)]
        assert all(block.dtype == torch.float32 and len(block) <= size for block in blocks)
        torch.testing.assert_close(torch.cat(blocks), values(), rtol=tolerance, atol=0)


def test_half_precision_takes_half_the_disk(tmp_path):
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        FeatureWriter(State(tmp_path / dtype), "features-0", IDS, 1000, identity="a", dtype=dtype)
        sizes[dtype] = (tmp_path / dtype / "features-0.npy").stat().st_size - 128
    assert sizes == {"float32": 20_000, "bfloat16": 10_000}


def test_a_kernel_reads_a_store(tmp_path):
    rows = written(State(tmp_path), dtype="bfloat16")
    found, expected = (RidgeKernel.fit(phi).scores(values()[:2], phi, [0.5]) for phi in (rows, rows[:]))
    torch.testing.assert_close(found, expected)


def killed_at_the_third_block(folder, moment: str) -> int:
    """The signal that ended a forked process, which wrote blocks of two rows until it was killed."""
    child = os.fork()
    if child == 0:
        try:
            into = writer(State(folder))
            die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
            for start in range(0, 10, 2):
                if start == 4 and moment == "before the rows":
                    store._flat = die
                if start == 4 and moment == "before the count":
                    into._count = die
                into.append(values()[start : start + 2])
                if start == 4:
                    die()
        finally:
            os._exit(1)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("moment", ["before the rows", "before the count", "after the count"])
def test_a_kill_loses_only_the_block_in_the_making(tmp_path, moment):
    """What counts as written is there, and writing goes on."""
    assert killed_at_the_third_block(tmp_path, moment) == signal.SIGKILL
    state = State(tmp_path)
    count = 6 if moment == "after the count" else 4
    with pytest.raises(MethodError, match=f"half-written: {count} of 10 rows are there; run the fit again"):
        FeatureRows(state, "features-0", "model a")
    into = writer(state)
    assert into.written == count
    into.append(values()[count:])
    assert torch.equal(FeatureRows(state, "features-0", "model a")[:], values())


def test_rows_are_on_disk_before_they_count(tmp_path, monkeypatch):
    order = []
    flush = np.memmap.flush
    monkeypatch.setattr(np.memmap, "flush", lambda self: (order.append(os.path.basename(self.filename)), flush(self)))
    writer(State(tmp_path)).append(values()[:2])
    assert order == ["features-0.npy", "features-0.written.npy"]


@pytest.mark.parametrize("left", [b"", b"\x93NUMPY\x01\x00"])
def test_a_kill_while_the_store_is_made_leaves_an_empty_one(tmp_path, left):
    state = State(tmp_path)
    writer(state)
    (tmp_path / "features-0.identity.npy").write_bytes(left)
    with pytest.raises(MethodError, match="no features 'features-0'; fit the method"):
        FeatureRows(state, "features-0", "model a")
    assert writer(state).written == 0


def test_features_of_another_model_are_refused(tmp_path):
    state = State(tmp_path)
    written(state)
    with pytest.raises(MethodError, match=r"of another model or projection \(model a, not model b\)"):
        FeatureRows(state, "features-0", "model b")
    with pytest.raises(MethodError, match="of another model or projection"):
        writer(state, identity="model b")
    assert torch.equal(FeatureRows(state, "features-0", "model a")[:], values())


@pytest.mark.parametrize("changes", [{"k": 4}, {"versions": 1}, {"ids": IDS[:4]}, {"dtype": "float16"}])
def test_other_sizes_are_refused_and_nothing_is_lost(tmp_path, changes):
    state = State(tmp_path)
    written(state)
    with pytest.raises(MethodError, match=r"are kept as float32 \[2, 5, 3\]"):
        writer(state, **changes)
    assert torch.equal(FeatureRows(state, "features-0", "model a")[:], values())


def test_a_finished_store_takes_no_more_rows(tmp_path):
    state = State(tmp_path)
    written(state)
    with pytest.raises(MethodError, match=r"have 0 rows of 3 left to write, not \[1, 3\]"):
        writer(state).append(values()[:1])
    with pytest.raises(MethodError, match="need rows, columns and an identity"):
        writer(State(tmp_path / "empty"), ids=())
    with pytest.raises(MethodError, match="cannot be kept as 'int8'"):
        writer(State(tmp_path / "other"), dtype="int8")


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_rows_that_are_no_numbers_are_named(tmp_path, bad):
    into = writer(State(tmp_path))
    into.append(values()[:4])
    rows = values()[4:7].clone()
    rows[[0, 2], 1] = bad  # rows 4 and 6: the last image of the first version, the second of the other
    with pytest.raises(MethodError, match="features of cat/4.png, cat/1.png are NaN or infinite"):
        into.append(rows)
    assert into.written == 4


@pytest.mark.parametrize(
    ("dtype", "scale", "told"),
    [
        ("float16", 1e6, "beyond 65504, the largest float16; keep them as bfloat16 or float32"),
        ("float16", 1e-8, "too small for float16 and would be rounded away; keep them as bfloat16 or float32"),
        ("bfloat16", 3.4e38, "the largest bfloat16; keep them as float32"),
    ],
)
def test_rows_that_the_dtype_cannot_hold_are_named(tmp_path, dtype, scale, told):
    into = writer(State(tmp_path), dtype=dtype)
    with pytest.raises(MethodError, match=f"features of cat/1.png are .*{told}"):
        into.append(torch.tensor([[1.0, 0.0, 0.0], [scale, 0.0, 0.0]]))
    assert into.written == 0


def test_what_bfloat16_holds_is_kept_from_tiny_to_huge(tmp_path):
    into = writer(State(tmp_path), dtype="bfloat16", versions=1)
    into.append(torch.logspace(-30, 30, 15).reshape(5, 3))
    found = FeatureRows(State(tmp_path), "features-0", "model a")[:]
    torch.testing.assert_close(found.flatten(), torch.logspace(-30, 30, 15), rtol=4e-3, atol=0)
