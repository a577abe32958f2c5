"""A submission is what it says, or it is refused with the reason: every number is recomputed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribench.measurement.arrays import arrays_of, truth_from
from attribench.report import record
from attribench.submissions.container import PER_QUERY, RECORD, STATEMENT
from attribench.submissions.pack import submission_of
from attribench.submissions.parsing import parquet_bytes, safetensors_bytes, tensors_of

Members = dict[str, bytes]
SCORES = "scores/pixel/customconcept101-test-5c-00-seed0.safetensors"
TRUTH = "truth/customconcept101-test-5c-00.safetensors"


def stated(members: Members, change: Callable[[dict], None]) -> Members:
    """With another submission.json."""
    values = json.loads(members[STATEMENT])
    change(values)
    return members | {STATEMENT: json.dumps(values).encode()}


def tabled(members: Members, name: str, change: Callable[[dict], None]) -> Members:
    """With other columns of a table."""
    table = pq.read_table(pa.BufferReader(members[name]))
    columns = table.to_pydict()
    change(columns)
    return members | {name: parquet_bytes(pa.Table.from_pydict(columns, schema=table.schema))}


def arrayed(members: Members, name: str, change: Callable[[dict, dict], None]) -> Members:
    """With other arrays or ids."""
    arrays, about = tensors_of(members[name], name)
    arrays = {key: array.copy() for key, array in arrays.items()}
    change(arrays, about)
    return members | {name: safetensors_bytes(arrays, about)}


def test_a_run_is_packed_to_the_same_bytes_and_verified(run_folder, packed, verdict):
    assert submission_of(run_folder, submitter="A. Tester", links={"code": "https://example.org/code"}) == packed
    found = verdict(packed)
    assert found.accepted and found.reasons == []
    before = {(r.method, r.variant, r.metric): r for r in record.read(run_folder) if r.competes}
    assert {(r.method, r.variant, r.metric): r for r in found.rows} == before


def test_labels_are_known_here_and_the_table_of_the_training_is_not(verdict, packed, run_folder):
    found = verdict(packed)
    assert {metric for _, metric in found.verified} == {
        "recall@5", "recall@10", "precision@5", "precision@10", "average_precision",
    }  # fmt: skip
    from attribench.submissions.truths import kept_truths

    kept = kept_truths(run_folder, found.planned)
    trusted = verdict(packed, kept=kept)
    assert {metric for _, metric in trusted.verified} > {"spearman_with_table", "recall@5"}


def test_a_preset_that_no_board_changes_is_not_followed(verdict, packed):
    (reason,) = verdict(packed, known=[]).reasons
    assert "changes the preset's numbers" in reason


def test_every_number_of_the_record_that_is_changed_is_named(verdict, members):
    names = ("value", "low", "high", "chance", "ceiling", "rank", "n_queries", "n_studies")

    def change(columns: dict) -> None:
        for row, name in enumerate(names):
            number = columns[name][row] if name != "value" else (columns["low"][row] + columns["high"][row]) / 2
            columns[name][row] = number + 1 if row > 4 else abs(number - 1e-6) if name != "high" else number + 1e-6

    reasons = verdict(tabled(members, RECORD, change)).reasons
    assert [reason.partition(" of ")[0] for reason in reasons] == list(names)
    assert all("in the file, recomputed" in reason for reason in reasons)


def test_every_value_of_a_query_that_is_changed_is_named(verdict, members):
    for name in ("value", "chance", "ceiling"):
        (reason,) = verdict(tabled(members, PER_QUERY, lambda c, name=name: c[name].__setitem__(5, 0.123))).reasons
        assert reason.startswith(f"{name} of ") and "0.123 in the file, recomputed" in reason


def test_better_scores_do_not_fit_the_numbers_that_were_stated(verdict, members):
    def perfect(arrays: dict, about: dict) -> None:
        truth = truth_from(*tensors_of(members[TRUTH], TRUTH))
        arrays["scores"][:] = truth.relevant

    reasons = verdict(arrayed(members, SCORES, perfect)).reasons
    assert all("of pixel for" in reason for reason in reasons[:5]) and "recomputed 1" in reasons[0]


def shuffled(arrays: dict, about: dict) -> None:
    arrays["scores"] = arrays["scores"][::-1].copy()


def renamed(arrays: dict, about: dict) -> None:
    about["query_ids"][0] += "x"


def swapped(arrays: dict, about: dict) -> None:
    about["train_ids"][:2] = about["train_ids"][1::-1]


def undefined(arrays: dict, about: dict) -> None:
    arrays["scores"][0, 0] = np.nan


def infinite(arrays: dict, about: dict) -> None:
    arrays["scores"][0, 0] = np.inf


def wider(arrays: dict, about: dict) -> None:
    arrays["scores"] = np.pad(arrays["scores"], ((0, 0), (0, 1)))


def another(arrays: dict, about: dict) -> None:
    arrays["further"] = np.zeros(3, dtype=np.float32)


def in_double(arrays: dict, about: dict) -> None:
    arrays["scores"] = arrays["scores"].astype(np.float64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shuffled, "recomputed"), (renamed, "has other ids"), (swapped, "has other ids"), (undefined, "1 numbers that are NaN"),
        (infinite, "1 numbers that are NaN or infinite"), (wider, "does not hold float32 scores"),
        (another, "does not hold float32 scores"), (in_double, "does not hold float32 scores"),
    ],
)  # fmt: skip
def test_scores_that_are_not_those_of_the_plan(verdict, members, change, said):
    assert any(said in reason for reason in verdict(arrayed(members, SCORES, change)).reasons)


def test_scores_of_another_query_in_its_place_are_found_out_though_no_metric_were_stated(verdict, members):
    """Swapping two studies' files: the ids tell."""
    other = SCORES.replace("-00-", "-01-")
    (reason,) = verdict(members | {SCORES: members[other], other: members[SCORES]}).reasons
    assert "has other ids" in reason


def test_labels_are_those_of_the_data_set_whatever_the_file_says(verdict, members):
    def all_relevant(arrays: dict, about: dict) -> None:
        arrays["relevant"][:] = 1

    (reason,) = verdict(arrayed(members, TRUTH, all_relevant)).reasons
    assert "labels that are not those of the data set" in reason


def test_a_truth_is_the_one_whose_digest_is_stated(verdict, members):
    def nudged(arrays: dict, about: dict) -> None:
        arrays["table/table"][0, 0] += 1

    (reason,) = verdict(arrayed(members, TRUTH, nudged)).reasons
    assert "is not the one whose digest" in reason


def without_controls(values: dict) -> None:
    values["methods"] = [m for m in values["methods"] if not m["control"]]


def test_without_controls_nothing_is_accepted(verdict, members):
    fewer = {n: content for n, content in members.items() if not n.startswith("scores/") or n.startswith("scores/pixel/")}
    fewer = stated(fewer, without_controls)

    def pixel_only(columns: dict) -> None:
        kept = [i for i, method in enumerate(columns["method"]) if method == "pixel"]
        for name, column in columns.items():
            columns[name] = [column[i] for i in kept]

    (reason,) = verdict(tabled(tabled(fewer, RECORD, pixel_only), PER_QUERY, pixel_only)).reasons
    assert "lacks the control" in reason


def test_a_control_that_is_off_its_known_value_is_refused(verdict, members):
    """A forger who makes the random control perfect and states just what that gives."""
    from attribench.submissions.numbers import numbers, recomputed, values

    honest = verdict(members)
    scores = {key: value.copy() for key, value in honest.scores.items()}
    for (method, study, _), own in scores.items():
        if method == "random":
            own[:] = honest.truths[study].relevant + own * 1e-3
    found = values(honest.planned, honest.statement.methods, scores, honest.truths)
    rows = recomputed(honest.planned, found, honest.rows)
    forged = dict(members)
    for (method, study, seed), own in scores.items():
        truth = honest.truths[study]
        ids = {"query_ids": truth.query_ids, "train_ids": truth.train_ids}
        forged[f"scores/{method}/{study}-seed{seed}.safetensors"] = safetensors_bytes({"scores": own}, ids)
    forged[RECORD] = parquet_bytes(record.record_table(rows))
    forged[PER_QUERY] = parquet_bytes(record.per_query_table(found.per_query))
    assert len(numbers(honest.planned, found)) == len(rows)
    (reason,) = verdict(forged).reasons
    assert "the control 'random' has" in reason and "its known value is" in reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.update(format="attribench submission 9"), "is of format 'attribench submission 9'"),
        (lambda v: v.update(attribench="99.0.0"), "made by attribench 99.0.0"),
        (lambda v: v.update(further=1), "Extra inputs"),
        (lambda v: v["experiment"].update(seed="0"), "valid integer"),
        (lambda v: v["experiment"].update(edition="paper"), "preset"),
        (lambda v: v["experiment"].update(model="sha256:0"), "preset"),
        (lambda v: v["experiment"].update(dataset="../../etc"), "no plain name"),
        (lambda v: v["methods"][0].update(name="../x"), "no plain name"),
        (lambda v: v["methods"].append(v["methods"][0]), "names a method twice"),
        (lambda v: v["methods"][0].update(plugin="attribench-diffusion 9.9.9"), "contradicts submission.json"),
        (lambda v: v["methods"][0].update(params={"size": 63}), "contradicts submission.json"),
        (lambda v: v["methods"][0].update(seeds=[0, 1]), "it lacks scores/"),
        (lambda v: v["links"].update(code="javascript:alert(1)"), "should match pattern"),
        (lambda v: v["links"].update(code="https://x.org/\" onclick=\"x"), "should match pattern"),
        (lambda v: v.update(submitter="a\u202eb"), "cannot be shown"),
        (lambda v: v["studies"].popitem(), "more than it names"),
        (lambda v: next(iter(v["studies"].values())).update(plan="0" * 64), "is another study"),
        (lambda v: v.update(seconds=-1), "greater than or equal"),
        (lambda v: v.update(submitter="x" * 400), "at most 300"),
    ],
)  # fmt: skip
def test_what_a_statement_cannot_say(verdict, members, change, said):
    reasons = verdict(stated(members, change)).reasons
    assert reasons and re.search(re.escape(said), reasons[0]), reasons


@pytest.mark.parametrize(
    "text", [b'{"a": NaN}', b"[" * 100 + b"]" * 100, b'{"a": 1, "a": 2}', b"", b"\xff", b"1" * 9_000, b'{"a": 1e999}']
)
def test_json_is_bounded(verdict, members, text):
    assert not verdict(members | {STATEMENT: text}).accepted


def test_a_reason_is_one_printable_line(verdict, members):
    forged = stated(members, lambda v: v.update({"\x1b[31m\nred": 1}))
    assert all(reason.isprintable() for reason in verdict(forged).reasons)


def test_a_record_of_other_costs_is_shown_as_stated_but_must_be_possible(verdict, members):
    def cost(number: float) -> Members:
        return tabled(members, RECORD, lambda c: c.update(fit_seconds=[number] * len(c["fit_seconds"])))

    assert verdict(cost(12.5)).rows[0].fit_seconds == 12.5
    for impossible in (-1.0, 1e30):
        assert not verdict(cost(impossible)).accepted
    one_row = tabled(members, RECORD, lambda c: c["fit_seconds"].__setitem__(0, 99.0))
    assert verdict(one_row).reasons == ["record.parquet states several costs of one method"]


def test_parquet_of_another_form_is_not_read(verdict, members):
    table = pq.read_table(pa.BufferReader(members[RECORD]))
    for options in ({"compression": "snappy"}, {"compression": "none", "use_dictionary": True}):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **options)
        (reason,) = verdict(members | {RECORD: sink.getvalue().to_pybytes()}).reasons
        assert "is compressed or encoded" in reason
    (reason,) = verdict(members | {RECORD: parquet_bytes(table.drop_columns(["chance"]))}).reasons
    assert "has other columns" in reason


def test_the_safetensors_that_are_written_are_those_of_the_library(members):
    from safetensors.numpy import load

    own, about = tensors_of(members[TRUTH], TRUTH)
    theirs = load(members[TRUTH])
    assert own.keys() == theirs.keys() and all(np.array_equal(own[name], theirs[name]) for name in own)
    truth = truth_from(own, about)
    again, said = arrays_of(truth)
    assert said == about and all(np.array_equal(again[name], own[name]) for name in own)


def test_every_field_of_a_truth_has_a_place_in_its_file():
    from dataclasses import fields

    from attribench.measurement.arrays import KNOWN

    for cls, known in KNOWN.items():
        assert {field.name for field in fields(cls)} == set(known), f"give the new field of {cls.__name__} a place"
