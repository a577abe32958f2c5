"""faiss finds most of what the exact search finds, and all of it when it looks everywhere."""

import sys

import numpy as np
import pytest

from attribench.errors import Unavailable
from attribench.retrieval.approximate import ApproximateIndex, share_found
from attribench.retrieval.exact import Nearest, nearest
from attribench.retrieval.rows import FeatureRows


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """4,000 rows in clusters, as features of pictures are."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(20, 32))
    values = (centres[random.integers(0, 20, 4000)] + 0.5 * random.normal(size=(4000, 32))).astype(np.float16)
    path = tmp_path_factory.mktemp("pool") / "features.npy"
    np.save(path, values)
    queries = (values[:50] + 0.1 * random.normal(size=(50, 32))).astype(np.float32)
    return FeatureRows.open(path), queries


def test_the_share_found_counts_rows_in_any_order():
    exact = Nearest(np.array([[1, 2, 3, 4]]), np.zeros((1, 4)))
    assert share_found(Nearest(np.array([[4, 9, 1, -1]]), np.zeros((1, 4))), exact).tolist() == [0.5]


def test_more_cells_looked_into_find_more_and_all_find_everything(pool):
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    rows, queries = pool
    exact, index = nearest(queries, rows, 10), ApproximateIndex(rows, n_cells=16)
    shares = [share_found(index.nearest(queries, 10, n_probe=n), exact).mean() for n in (1, 4, 16)]
    assert 0.5 < shares[0] <= shares[1] <= shares[2]
    assert shares[2] > 0.97  # float16 of unit vectors moves a few near ties


def test_without_faiss_it_says_what_to_install(pool, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(Unavailable, match=r"attribench-diffusion\[faiss\]"):
        ApproximateIndex(pool[0], n_cells=4)
