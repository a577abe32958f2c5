"""The record keeps what a run measured, and refuses what no run can have measured."""

import json
import math

import pandas as pd
import pyarrow.parquet as pq
import pytest

from attribench.errors import StoreError, UsageError
from attribench.report.record import Row, check, read, read_per_query, write

SOUND = {
    "method": "montrage", "params": {}, "control": False, "plugin": "attribench-diffusion 0.1.0",
    "dataset": "artchive", "edition": "mini", "protocol": "between-concepts", "split": "test", "seed": 0,
    "device": "cpu", "variant": "mixed", "metric": "recall@10", "status": "ok", "value": 0.5,
}  # fmt: skip


def row(**changes) -> Row:
    return Row(**SOUND | changes)


def test_what_is_written_is_read_again(tmp_path, rows, per_query):
    write(rows, per_query, tmp_path)
    assert read(tmp_path) == rows
    pd.testing.assert_frame_equal(read_per_query(tmp_path), per_query, check_dtype=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["per_query.parquet", "record.parquet"]


def test_the_record_has_the_columns_that_the_issue_names(tmp_path, rows, per_query):
    write(rows, per_query, tmp_path)
    wanted = (
        "method, params, dataset, edition, protocol, variant, split, metric, value, low, high, rank, n_queries, "
        "n_studies, seed, fit_seconds, query_seconds, peak_bytes, bytes_per_train_image, status, reason, tuning, "
        "n_models, extra_training_seconds"
    )
    assert set(wanted.split(", ")) <= set(pq.read_schema(tmp_path / "record.parquet").names)


def test_a_run_in_which_no_method_ran_is_a_record_too(tmp_path, rows):
    missing = [r for r in rows if r.status == "unavailable"]
    write(missing, pd.DataFrame(), tmp_path)
    assert read(tmp_path) == missing
    assert len(read_per_query(tmp_path)) == 0


def test_json_lines_are_the_rows_with_null_for_nan():
    line = row(value=math.nan, rank=pd.NA, params={"encoder": "clip-tiny"}).model_dump_json()
    values = json.loads(line)
    assert values["value"] is None and values["rank"] is None and values["params"] == {"encoder": "clip-tiny"}
    assert "\n" not in line and set(values) == set(Row.model_fields)


def test_params_may_come_as_json_text():
    assert row(params='{"dim": 3}').params == {"dim": 3}


def test_a_label_names_the_encoder():
    assert row(params={"encoder": "clip-tiny"}).label == "montrage (clip-tiny)"
    assert row(params={"encoder": None}).label == "montrage"


def test_a_label_says_how_a_row_was_tuned():
    assert row(tuning="tuned").label == "montrage (tuned)"
    assert row(params={"encoder": "clip-tiny"}, tuning="oracle").label == "montrage (clip-tiny, oracle)"


def test_a_tuned_method_comes_three_times():
    check([row(tuning=tuning) for tuning in ("tuned", "default", "oracle")])
    with pytest.raises(StoreError, match="comes twice"):
        check([row(tuning="tuned"), row(tuning="tuned")])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"value": 1.2}, r"value 1\.2 outside \[0\.0, 1\.0\]"),
        ({"metric": "spearman_with_table", "value": -1.1}, "outside"),
        ({"metric": "average_precision", "value": -0.1}, "outside"),
        ({"low": 0.6, "high": 0.7}, r"interval \[0\.6, 0\.7\] around 0\.5"),
        ({"low": 0.4}, "half an interval"),
        ({"rank": 0}, "rank 0"),
        ({"rank": 1, "tuning": "oracle"}, "rank 1, though it shows the oracle values"),
        ({"extra_training_seconds": -1.0}, r"extra_training_seconds = -1\.0"),
        ({"n_studies": -1}, "n_studies = -1"),
        ({"status": "failed", "value": None}, "failed without a reason"),
        ({"status": "unavailable", "reason": "no weights"}, "and yet has numbers"),
    ],
)
def test_impossible_rows_are_refused_in_one_line(tmp_path, changes, fault):
    with pytest.raises(StoreError, match=fault) as caught:
        write([row(**changes)], pd.DataFrame(), tmp_path)
    assert "\n" not in str(caught.value) and not any(tmp_path.iterdir())


def test_recall_cannot_fall_as_k_grows_but_precision_can():
    check([row(metric="precision@5", value=0.5), row(metric="precision@10", value=0.4)])
    check([row(metric="recall@5", value=0.5), row(metric="recall@10", value=0.4, variant="un-mixed")])
    with pytest.raises(StoreError, match=r"recall@10 of montrage \(mixed\) is below recall@5 = 0\.5"):
        check([row(metric="recall@10", value=0.4), row(metric="recall@5", value=0.5)])


def test_a_row_comes_once():
    with pytest.raises(StoreError, match="comes twice"):
        check([row(), row()])


def test_rounding_is_no_fault():
    check([row(value=1.0 + 1e-15, low=1.0, high=1.0, chance=0.1)])


def test_a_metric_that_is_not_installed_has_no_bounds():
    check([row(metric="my_metric@k", value=17.0)])


def test_a_folder_without_a_record_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="give the folder of a finished run"):
        read(tmp_path)


def test_a_damaged_record_is_one_line(tmp_path):
    (tmp_path / "record.parquet").write_bytes(b"PAR1 and then nothing\n\nPAR1")
    with pytest.raises(StoreError, match="cannot be read") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_record_of_another_version_names_the_columns(tmp_path, rows, per_query):
    write(rows, per_query, tmp_path)
    path = tmp_path / "record.parquet"
    pd.read_parquet(path).drop(columns="split").to_parquet(path)
    with pytest.raises(StoreError, match=r"another version .*\(columns that differ: split\)"):
        read(tmp_path)


@pytest.mark.parametrize(("column", "value"), [("status", "great"), ("params", "{not json"), ("edition", "maxi")])
def test_a_wrong_entry_names_column_and_value(tmp_path, rows, per_query, column, value):
    write(rows, per_query, tmp_path)
    path = tmp_path / "record.parquet"
    pd.read_parquet(path).assign(**{column: value}).to_parquet(path)
    with pytest.raises(StoreError, match=f"{column} = '{value}'") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_record_and_nothing_half_written(tmp_path, rows, per_query, monkeypatch):
    write(rows, per_query, tmp_path)

    def full(table, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(StoreError, match=r"cannot write .*: No space left on device; free some space"):
        write(rows[:1], per_query, tmp_path)
    monkeypatch.undo()
    assert read(tmp_path) == rows
    assert len(list(tmp_path.iterdir())) == 2
