"""Streamed retrieval gives what sorting all cosines in memory gives: ranks, ties and nearest rows."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from attribench.errors import DatasetError
from attribench.retrieval import exact
from attribench.retrieval.exact import exact_cosines, nearest, ranks
from attribench.retrieval.rows import FeatureRows

N, D, Q, K = 5000, 48, 7, 20


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """[N, D] float16 with every third row a copy of an earlier one, one row of zeros, and clusters that nearly tie."""
    random = np.random.default_rng(0)
    values = random.normal(size=(N, D)).astype(np.float16)
    values[100:2000] = (values[3] + 1e-3 * random.normal(size=(1900, D))).astype(np.float16)
    values[2::3] = values[random.integers(0, N, len(values[2::3]))]
    values[77] = 0
    return values


@pytest.fixture(scope="module")
def queries(features: np.ndarray) -> np.ndarray:
    return (features[:Q].astype(np.float32) + 0.3 * np.random.default_rng(1).normal(size=(Q, D))).astype(np.float32)


@pytest.fixture(scope="module")
def stored(features: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> FeatureRows:
    path = tmp_path_factory.mktemp("features") / "pool.npy"
    np.save(path, features)
    return FeatureRows.open(path)


@pytest.fixture(scope="module")
def cosines(features: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """[Q, N] float64: brute force."""
    unit = queries.astype(np.float64)
    unit /= np.sqrt((unit * unit).sum(axis=1, keepdims=True))
    return np.stack([exact_cosines(query, features) for query in unit])


def test_the_float64_cosine_is_the_textbook_one(features, queries):
    unit = queries[0].astype(np.float64) / np.linalg.norm(queries[0].astype(np.float64))
    textbook = features.astype(np.float64) @ unit / np.maximum(np.linalg.norm(features.astype(np.float64), axis=1), 1e-300)
    np.testing.assert_allclose(exact_cosines(unit, features), textbook, atol=1e-14)
    assert exact_cosines(unit, features[77:78]) == 0


def test_ranks_are_those_of_sorting_everything(features, queries, stored, cosines):
    places = [np.arange(q, 3000, 600 + q) for q in range(Q)]  # some among the near ties, some copies of others
    found = ranks(queries, [features[at] for at in places], stored)
    for q, at in enumerate(places):
        own = cosines[q, at]
        np.testing.assert_array_equal(found.scores[q], own)
        np.testing.assert_array_equal(found.above[q], (cosines[q][None] > own[:, None]).sum(axis=1))
        np.testing.assert_array_equal(found.tied[q], (cosines[q][None] == own[:, None]).sum(axis=1))
    assert max(tied.max() for tied in found.tied) > 1


def test_nearest_rows_are_those_of_sorting_everything(queries, stored, cosines):
    found = nearest(queries, stored, K)
    for q in range(Q):
        best = np.lexsort((np.arange(N), -cosines[q]))[:K]
        np.testing.assert_array_equal(found.places[q], best)
        np.testing.assert_array_equal(found.scores[q], cosines[q, best])


@pytest.mark.parametrize(("rows_at_once", "threads"), [(64, 1), (333, 2), (4096, 3)])
def test_blocks_and_threads_change_nothing(monkeypatch, features, queries, stored, rows_at_once, threads):
    whole, own = nearest(queries, stored, K), [features[5:9]] * Q
    whole_ranks = ranks(queries, own, stored)
    monkeypatch.setattr(exact, "ROWS_AT_ONCE", rows_at_once)
    monkeypatch.setattr(exact, "FRESH", 1)
    again = nearest(queries, stored, K, threads=threads)
    np.testing.assert_array_equal(again.places, whole.places)
    np.testing.assert_array_equal(again.scores, whole.scores)
    again_ranks = ranks(queries, own, stored, threads=threads)
    np.testing.assert_array_equal(again_ranks.above, whole_ranks.above)
    np.testing.assert_array_equal(again_ranks.tied, whole_ranks.tied)


def test_a_pool_smaller_than_k_is_returned_whole(features, queries, tmp_path):
    np.save(tmp_path / "few.npy", features[:4])
    found = nearest(queries, FeatureRows.open(tmp_path / "few.npy"), 10)
    assert found.places.shape == (Q, 4) and all(set(row) == {0, 1, 2, 3} for row in found.places.tolist())


def test_a_query_without_rows_of_its_own_has_no_rank(features, queries, stored):
    found = ranks(queries[:2], [features[:0], features[:1]], stored)
    assert [len(above) for above in found.above] == [0, 1]


def test_a_row_that_is_not_finite_is_named(features, queries, tmp_path):
    values = features.copy()
    values[4321, 7] = np.nan
    np.save(tmp_path / "pool.npy", values)
    with pytest.raises(DatasetError, match="row 4321 is not finite"):
        nearest(queries, FeatureRows.open(tmp_path / "pool.npy"), K)


def test_queries_of_another_encoder_or_not_finite_are_refused(queries, stored):
    with pytest.raises(DatasetError, match="of other encoders"):
        nearest(queries[:, :10], stored, K)
    with pytest.raises(DatasetError, match="not finite .*query 2"):
        nearest(np.where(np.arange(Q)[:, None] == 2, np.inf, queries), stored, K)


# --------------------------------------------------------------------------------------- the files


def test_safetensors_and_npy_hold_the_same(features, tmp_path):
    save_file({"other": features[:3], "features": features}, tmp_path / "pool.safetensors")
    rows = FeatureRows.open(tmp_path / "pool.safetensors")
    assert (rows.n, rows.d) == (N, D)
    np.testing.assert_array_equal(rows.read(10, 20), features[10:20])
    np.testing.assert_array_equal(rows.take(np.array([4, 4, 99])), features[[4, 4, 99]])


def hostile_pickle(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("a.npy", lambda path: path.write_bytes(b"no array"), "is no array in npy format"),
        ("a.npy", hostile_pickle, "holds object of shape"),
        ("a.npy", lambda path: np.save(path, np.zeros(5, np.float32)), "of shape"),
        ("a.npy", lambda path: np.save(path, np.zeros((5, 3), np.float64)), "holds float64"),
        ("a.npy", lambda path: np.save(path, np.zeros((0, 3), np.float16)), "holds no feature"),
        ("a.npy", lambda path: np.save(path, np.asfortranarray(np.zeros((5, 3), np.float16))), "Fortran order"),
        ("a.safetensors", lambda path: path.write_bytes(b"\xff" * 40), "has no float16 or float32 tensor"),
        ("a.safetensors", lambda path: save_file({"x": np.zeros((2, 2), np.float16)}, path), "tensor 'features'"),
        ("a.safetensors", lambda path: save_file({"features": np.zeros((2, 2), np.int64)}, path), "tensor 'features'"),
    ],
)
def test_a_file_that_holds_no_features_is_one_line(tmp_path, name, write, says):
    write(tmp_path / name)
    with pytest.raises(DatasetError, match=says) as caught:
        FeatureRows.open(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_told(features, tmp_path):
    np.save(tmp_path / "a.npy", features)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-100])
    with pytest.raises(DatasetError, match="is truncated"):
        FeatureRows.open(tmp_path / "a.npy")
    with pytest.raises(DatasetError, match="cannot be read"):
        FeatureRows.open(tmp_path / "missing.npy")
