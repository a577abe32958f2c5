"""Values from ranks are those of the metrics on all scores, ties included."""

import numpy as np
import pytest
from attribench.metrics.retrieval import AveragePrecision, Recall

from attribench.measurement import Truth
from attribench.retrieval.exact import Ranks, average_precision, ranks, recall
from attribench.retrieval.rows import FeatureRows


@pytest.mark.parametrize("levels", [1, 3, 40, 10_000])
def test_they_agree_with_the_metrics(levels):
    random = np.random.default_rng(levels)
    own = [random.integers(0, levels, count).astype(float) for count in (1, 4, 12, 30)]
    pool = random.integers(0, levels, (len(own), 200)).astype(float)
    found = Ranks(
        tuple((row[None] > scores[:, None]).sum(axis=1) for row, scores in zip(pool, own, strict=True)),
        tuple((row[None] == scores[:, None]).sum(axis=1) for row, scores in zip(pool, own, strict=True)),
        tuple(own),
    )
    for q, scores in enumerate(own):
        values = np.concatenate([scores, pool[q]])[None]
        truth = Truth(("q",), tuple(map(str, range(values.shape[1]))), np.arange(values.shape[1])[None] < len(scores))
        assert average_precision(found)[q] == pytest.approx(AveragePrecision().values(values, truth)[0], abs=1e-12)
        for k in (1, 5, 10, 100, 1000):
            assert recall(found, k)[q] == pytest.approx(Recall(k=k).values(values, truth)[0], abs=1e-12)


def test_an_own_row_that_is_in_the_pool_too_is_tied_with_it(tmp_path):
    values = np.eye(4, dtype=np.float32)
    np.save(tmp_path / "pool.npy", values)
    found = ranks(values[:1], [values[:1]], FeatureRows.open(tmp_path / "pool.npy"))
    assert recall(found, 1).tolist() == [0.5] and average_precision(found).tolist() == [0.75]


def test_a_query_without_own_rows_has_no_value():
    empty = np.empty(0, np.int64)
    found = Ranks((empty,), (empty,), (np.empty(0),))
    assert np.isnan(recall(found, 5)).all() and np.isnan(average_precision(found)).all()
