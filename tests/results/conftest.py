"""A record as a run leaves it: methods, controls and one method that could not run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from attribench.results.record import Row
from attribench.results.summary import summary

EXPECTED = {"montrage": 0.6, "clip-image": 0.55, "pixel": 0.3, "random": 0.125, "constant": 0.125}


def identity(method: str) -> dict[str, Any]:
    return {
        "method": method,
        "params": {"encoder": "clip-tiny"} if method == "clip-image" else {},
        "control": method in ("random", "constant"),
        "plugin": "attribench-diffusion 0.1.0",
        "dataset": "artchive",
        "edition": "mini",
        "protocol": "between-concepts",
        "n_concepts": 5,
        "split": "test",
        "seed": 0,
        "device": "cpu",
    }


@pytest.fixture(scope="session")
def per_query() -> pd.DataFrame:
    """Values of five methods over four studies, two seeds for the random one."""
    rng = np.random.default_rng(5)
    rows = []
    for variant, k in (("un-mixed", 5), ("mixed", 10)):
        for metric in (f"recall@{k}", f"precision@{k}", "average_precision", "spearman_with_table"):
            chance = 0.0 if metric.startswith("spearman") else 0.125
            for method, expected in EXPECTED.items():
                for study in range(4):
                    shift = rng.normal(0, 0.02)
                    for query in range(20):
                        for seed in (4, 16) if method == "random" else (0,):
                            noise = 0.0 if method == "constant" else rng.normal(shift, 0.1)
                            value = (chance if method in ("random", "constant") else expected) + noise
                            rows.append((method, variant, metric, f"s{study}", f"q{query}", seed, value, chance, 1.0))
    columns = ["method", "variant", "metric", "study", "query_id", "method_seed", "value", "chance", "ceiling"]
    frame = pd.DataFrame(rows, columns=columns)
    frame.insert(1, "tuning", "")
    frame.insert(6, "region", "")
    in_unit = ~frame["metric"].str.startswith("spearman")
    frame.loc[in_unit, "value"] = frame.loc[in_unit, "value"].clip(0, 1)
    return frame


@pytest.fixture(scope="session")
def rows(per_query: pd.DataFrame) -> list[Row]:
    """The record of those values, and of `clip-text`, which has no weights here."""
    costs = {"fit_seconds": 5.23, "query_seconds": 0.0123, "peak_bytes": 312_000_000, "bytes_per_train_image": 2048.0}
    measured = [
        Row(**identity(number["method"]) | number | costs | {"tuning": None}, status="ok")
        for number in summary(per_query).to_dict("records")
    ]
    missing = [
        Row(**identity("clip-text") | {"params": {"encoder": "ViT-B-32"}}, variant=v, metric=m,
            status="unavailable", reason="no weights of ViT-B-32 [openai] in the cache; get them, or use clip-tiny")
        for v, m in dict.fromkeys((row.variant, row.metric) for row in measured)
    ]  # fmt: skip
    return measured + missing
