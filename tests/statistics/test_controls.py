"""A control off its known value fails the run; a sound one does not, however unlucky."""

import numpy as np
import pandas as pd
import pytest
from attribench.metrics.agreement import SpearmanWithTable
from attribench.metrics.retrieval import AveragePrecision, Precision, Recall

from attribench.errors import ControlError
from attribench.measurement import Truth
from attribench.statistics.controls import check_controls


def frame(values, chance, method="random", metric="recall@5") -> pd.DataFrame:
    values = np.asarray(values, dtype=float)
    return pd.DataFrame(
        {
            "method": method, "tuning": "", "variant": "un-mixed", "metric": metric, "study": "s", "method_seed": 0,
            "query_id": [f"q{i}" for i in range(len(values))], "value": values, "chance": chance, "ceiling": 1.0,
        }
    )  # fmt: skip


def sound_runs(metric, truth: Truth, repeats: int) -> pd.DataFrame:
    """The random control of many sound runs, each as a variant of its own."""
    rng, chance = np.random.default_rng(0), metric.chance(truth)
    runs = [frame(metric.values(rng.random(truth.relevant.shape), truth), chance) for _ in range(repeats)]
    return pd.concat([run.assign(variant=f"run {i}") for i, run in enumerate(runs)])


def truth_of(n_query: int, n_train: int, n_relevant: int) -> Truth:
    relevant = np.tile(np.arange(n_train) < n_relevant, (n_query, 1))
    ids = tuple(map(str, range(n_query))), tuple(map(str, range(n_train)))
    return Truth(*ids, relevant, {"table": np.random.default_rng(1).random((n_query, n_train))})


@pytest.mark.parametrize("metric", [Recall(k=5), Precision(k=5), AveragePrecision(), SpearmanWithTable()],
                         ids=lambda metric: metric.name)  # fmt: skip
@pytest.mark.parametrize("n_query", [2, 100])
def test_a_sound_random_control_never_alarms(metric, n_query):
    check_controls(sound_runs(metric, truth_of(n_query, 40, 8), 150), ["random"])


def test_nor_does_it_where_hits_are_rare():
    check_controls(sound_runs(Recall(k=5), truth_of(200, 500, 2), 25), ["random"])


def test_a_control_that_is_off_names_metric_value_and_known_value():
    values = np.random.default_rng(2).normal(0.5, 0.1, 100)
    said = r"'random' has recall@5 = 0\.\d+ \(un-mixed, 100 queries\).*known value is 0\.125"
    with pytest.raises(ControlError, match=said):
        check_controls(frame(values, 0.125), ["random"])


def test_a_hundredth_off_is_seen_when_queries_are_many():
    values = np.random.default_rng(3).normal(0.145, 0.05, 600)
    with pytest.raises(ControlError):
        check_controls(frame(values, 0.125), ["random"])


def test_a_constant_exactly_at_chance_passes():
    check_controls(frame([0.125] * 50, 0.125, method="constant"), ["constant"])


def test_other_methods_and_undefined_queries_are_not_checked():
    check_controls(frame([0.9] * 50, 0.125, method="montrage"), ["random"])
    check_controls(frame([np.nan] * 50, 0.125), ["random"])


def test_the_controls_of_a_sound_run_pass(per_query):
    check_controls(per_query, ["random", "constant"])
