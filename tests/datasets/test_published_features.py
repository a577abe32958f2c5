"""Published feature files: read without running their code, checked, and searched as the authors' evaluation does."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from attribench.datasets.published_features import CaseFeatures, PoolFeatures, retrieve

from attribench.errors import DatasetError
from attribench.retrieval.exact import average_precision, recall

D, N = 16, 500
CHUNKS = [(0, 3), (3, 4), (4, 10)]
POOL, CASE = "feats/clip/laion_subset.pth", "feats/clip/test_artchive.pth"


def pool_content() -> dict:
    random = torch.Generator().manual_seed(0)
    return {"feats": torch.randn(N, D, generator=random), "paths": [f"{i:08d}.png" for i in range(N)]}


def case_content() -> dict:
    random = torch.Generator().manual_seed(1)
    exemplars = torch.randn(10, D, generator=random)
    ids = [0, 0, 1, 2, 2]
    made = torch.stack([exemplars[slice(*CHUNKS[i])].mean(0) + torch.randn(D, generator=random) for i in ids])
    families = ("gpt", "object")
    return {
        "exemplar_paths": [f"dataset/exemplar/{i}.jpg" for i in range(10)],
        "exemplar_chunks": CHUNKS,
        "exemplar_tensors": exemplars,
        "synth_paths": {f: [f"dataset/synth/{f}/{i}.png" for i in range(5)] for f in families},
        "synth_ids": dict.fromkeys(families, ids),
        "synth_tensors": {"gpt": made, "object": made.flip(1)},
    }


def saved(root: Path, file: str, content: object) -> Path:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, root / file)
    return root


def test_values_are_those_of_the_authors_evaluation(tmp_path):
    """Sort the pool and the model's own exemplars together, and look where the exemplars are."""
    saved(tmp_path, POOL, pool_content())
    saved(tmp_path, CASE, case_content())
    pool, case = PoolFeatures.open(tmp_path, POOL), CaseFeatures.open(tmp_path, CASE)
    assert case.chunks == tuple(CHUNKS) and pool.paths[3] == "00000003.png" and list(case.made) == ["gpt", "object"]
    unit = torch.nn.functional.normalize
    for family in case.made:
        found = retrieve(case, family, pool)
        for q, number in enumerate(case.models[family]):
            own = unit(torch.from_numpy(case.exemplars[slice(*CHUNKS[number])]), dim=1)
            together = torch.cat([unit(pool_content()["feats"], dim=1), own])
            order = torch.argsort(-(together.double() @ unit(torch.from_numpy(case.made[family][q]), dim=0).double()))
            places = np.flatnonzero(order.numpy() >= N) + 1
            assert average_precision(found)[q] == pytest.approx((np.arange(1, len(own) + 1) / places).mean())
            for k in (5, 10, 100):
                assert recall(found, k)[q] == pytest.approx((places <= k).mean())


class Code:
    def __reduce__(self):
        return (print, ("this must not run",))


def without(name: str) -> dict:
    return {key: value for key, value in pool_content().items() if key != name}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (without("paths"), "has no paths"),
        ([1, 2], "has no feats and no paths"),
        (pool_content() | {"feats": torch.zeros(3, 4, 5)}, "has no feats"),
        (pool_content() | {"feats": [1.0]}, "has no feats"),
        (pool_content() | {"feats": torch.zeros(N, D, dtype=torch.int64)}, "of type torch.int64"),
        (pool_content() | {"feats": torch.zeros(N, D)[:, ::2]}, "not in rows"),
        (pool_content() | {"feats": torch.zeros(N - 1, D)}, "names 500 pictures, and has features of 499"),
        (pool_content() | {"paths": [1] * N}, "no list of text"),
        (pool_content() | {"feats": torch.where(torch.arange(N)[:, None] == 123, torch.nan, torch.zeros(N, D))}, "in row 123"),
    ],
)
def test_a_pool_that_is_not_in_the_layout_is_one_line(tmp_path, content, says):
    with pytest.raises(DatasetError, match=says) as caught:
        PoolFeatures.open(saved(tmp_path, POOL, content), POOL)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(POOL)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    saved(tmp_path, POOL, pool_content() | {"more": Code()})
    with pytest.raises(DatasetError, match="holds more than tensors"):
        PoolFeatures.open(tmp_path, POOL)
    (tmp_path / POOL).write_bytes(pickle.dumps(Code()))
    with pytest.raises(DatasetError):
        PoolFeatures.open(tmp_path, POOL)
    assert capsys.readouterr().out == ""


def test_damaged_missing_and_outside_files_are_told(tmp_path):
    saved(tmp_path, POOL, pool_content())
    data = (tmp_path / POOL).read_bytes()
    (tmp_path / POOL).write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match="is not a file of torch.save"):
        PoolFeatures.open(tmp_path, POOL)
    with pytest.raises(DatasetError, match="is missing"):
        PoolFeatures.open(tmp_path, "feats/dino/laion_subset.pth")
    with pytest.raises(DatasetError, match="leads out of"):
        PoolFeatures.open(tmp_path, "../laion_subset.pth")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"exemplar_chunks": [(0, 11)]}, "beyond its exemplars"),
        ({"exemplar_chunks": [(3, 3)]}, "no \\(start, end\\)"),
        ({"exemplar_paths": ["a"]}, "other exemplars"),
        ({"synth_ids": {"gpt": [0, 0, 1, 2, 2]}}, "not the same families"),
        ({"synth_ids": {"gpt": [0, 0, 1, 2, 3], "object": [0] * 5}}, "models that it does not list"),
        ({"synth_tensors": {"gpt": torch.zeros(5, D), "object": torch.zeros(4, D)}}, "differ in number"),
        ({"synth_tensors": {"gpt": torch.zeros(5, D + 1), "object": torch.zeros(5, D)}}, "of another encoder"),
    ],
)
def test_a_test_case_that_contradicts_itself_is_one_line(tmp_path, change, says):
    with pytest.raises(DatasetError, match=says):
        CaseFeatures.open(saved(tmp_path, CASE, case_content() | change), CASE)


def test_files_of_two_encoders_do_not_go_together(tmp_path):
    saved(tmp_path, POOL, pool_content() | {"feats": torch.zeros(N, D + 2)})
    saved(tmp_path, CASE, case_content())
    with pytest.raises(DatasetError, match="take both files of one encoder"):
        retrieve(CaseFeatures.open(tmp_path, CASE), "gpt", PoolFeatures.open(tmp_path, POOL))
