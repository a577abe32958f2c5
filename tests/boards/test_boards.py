"""A board takes what the verifier accepts, keeps what verifying gave, and ranks all of it against each other."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from attribench.boards import tables
from attribench.boards.adding import add, entries_of
from attribench.boards.board import Leaderboards
from attribench.boards.entry import digest_of, entry_bytes, read_entry
from attribench.boards.quote import boards_markdown
from attribench.boards.standings import Standings
from attribench.errors import SubmissionError, UsageError
from attribench.report import record
from attribench.statistics.intervals import compare, ranks


def test_a_board_is_named_by_edition_protocol_and_version_and_defined_once(leaderboards, experiment):
    (board,) = leaderboards.boards
    assert board.name == "customconcept101-mini.between-concepts.v1"
    assert leaderboards.of(experiment) == board
    with pytest.raises(UsageError, match="already a board"):
        leaderboards.define(experiment)


def test_other_studies_are_another_version(leaderboards, experiment):
    changed = experiment.model_copy(update={"seed": 1})
    assert leaderboards.define(changed).name.endswith(".v2")
    assert leaderboards.of(experiment).name.endswith(".v1")


def test_a_board_whose_studies_have_changed_says_so(leaderboards):
    path = next((leaderboards.root / "boards").glob("*.toml"))
    path.write_text(changed(path))
    with pytest.raises(SubmissionError, match="are no longer those that it was made for"):
        Leaderboards(leaderboards.root).boards[0].planned()


def changed(path) -> str:
    lines = path.read_text().splitlines()
    return "\n".join(f'studies = "{"0" * 64}"' if line.startswith("studies") else line for line in lines)


def test_what_was_added_is_found_again_and_verifying_again_gives_the_same(leaderboards, files):
    entry = add(files[0], leaderboards)
    (board,) = leaderboards.boards
    (kept,) = entries_of(board, leaderboards)
    assert entry_bytes(kept) == entry_bytes(entry)
    (again,) = entries_of(board, leaderboards, again=True)
    assert entry_bytes(again) == entry_bytes(entry)
    assert kept.digest == digest_of(files[0]) and board.submissions[0].name.startswith(kept.digest[:16])


def test_an_entry_that_verifying_does_not_give_is_found_out(leaderboards, files):
    entry = add(files[0], leaderboards)
    (board,) = leaderboards.boards
    better = next(row for row in entry.rows if row.method == "pixel").model_copy(update={"value": 1.0, "high": 1.0})
    forged = type(entry)(**{**vars(entry), "rows": tuple(better if row.method == "pixel" else row for row in entry.rows)})
    board.entry_path(entry.digest).write_bytes(entry_bytes(forged))
    with pytest.raises(SubmissionError, match="is not what verifying"):
        entries_of(board, leaderboards, again=True)


def test_an_entry_belongs_to_one_file(leaderboards, files):
    entry = add(files[0], leaderboards)
    (board,) = leaderboards.boards
    shutil.copy(files[1], board.submissions[0])
    with pytest.raises(SubmissionError, match="is not the file that was verified"):
        read_entry(board.entry_path(entry.digest), board.submissions[0])


def test_what_is_refused_or_fits_no_board_is_not_kept(leaderboards, files, tmp_path):
    broken = tmp_path / "broken.submission.zip"
    broken.write_bytes(files[0].read_bytes()[:-1])
    with pytest.raises(SubmissionError, match="is refused"):
        add(broken, leaderboards)
    with pytest.raises(SubmissionError, match="is refused: it changes the preset's numbers"):
        add(files[0], Leaderboards(tmp_path / "empty"))
    assert leaderboards.boards[0].submissions == []


def test_the_board_of_one_run_shows_what_the_run_found(leaderboards, files, run_folder):
    """Every number and rank of the run's own record, where all is verified."""
    add(files[0], leaderboards, keep_truth=True)
    (board,) = leaderboards.boards
    standings = Standings.of(board, entries_of(board, leaderboards))
    said = {(row.method, row.variant, row.metric): row for row in record.read(run_folder) if row.competes}
    found = {(line.method.name, *key): number for line in standings.lines for key, number in line.numbers.items()}
    assert found.keys() == said.keys()
    for key, number in found.items():
        assert number.row == said[key] and number.rank == said[key].rank and number.standing == "verified"


def test_submissions_are_ranked_against_each_other_as_if_they_were_one_run(filled):
    (board,) = filled.boards
    standings = Standings.of(board, entries_of(board, filled))
    assert {line.method.params["size"] for line in standings.lines if line.method.name == "pixel"} == {64, 4}
    controls = [line.method.name for line in standings.lines if line.method.control]
    assert len(set(controls)) == len(controls)
    for variant in standings.variants:
        for metric in variant.metrics:
            lines = [line for line in standings.lines if (variant.name, metric) in line.numbers]
            values = {i: line.entry.values[line.method.name, variant.name, metric] for i, line in enumerate(lines)}
            studies = lines[0].entry.studies[variant.name]
            expected = ranks(values, compare(values, studies))
            assert [line.numbers[variant.name, metric].rank for line in lines] == list(expected.values())


def test_a_number_that_rests_on_an_unseen_truth_has_no_rank(leaderboards, files):
    add(files[0], leaderboards)
    (board,) = leaderboards.boards
    standings = Standings.of(board, entries_of(board, leaderboards))
    pixel = next(line for line in standings.lines if line.method.name == "pixel")
    own, known = pixel.numbers["un-mixed", "spearman_with_table"], pixel.numbers["un-mixed", "recall@5"]
    assert (own.standing, own.rank) == ("self-reported", None)
    assert known.standing == "verified" and known.rank is not None


def test_the_same_submission_twice_is_one_line(leaderboards, files):
    add(files[0], leaderboards)
    add(files[0], leaderboards)
    assert len(leaderboards.boards[0].submissions) == 1


def test_the_truth_of_another_training_does_not_become_the_boards(filled, files, tmp_path):
    from attribench.submissions.truths import merged

    (board,) = filled.boards
    truth = next(iter(board.kept(board.planned()).values()))
    other = type(truth)(**{**vars(truth), "tables": {"table": truth.tables["table"] + 1}})
    assert np.array_equal(merged(truth, truth).tables["table"], truth.tables["table"])
    with pytest.raises(UsageError, match="another 'table' than the board's"):
        merged(truth, other)


def test_a_row_whose_seeds_rank_alike_is_flagged_and_a_random_one_is_not(filled):
    board = filled.boards[0]
    entries = entries_of(board, filled)
    random = entries[0].alike["random"]
    assert abs(random) < 0.9 and "pixel" not in entries[0].alike  # one seed tells nothing
    assert not any(line.doubt for line in Standings.of(board, entries).lines)
    doubted = [replace(entry, alike={**entry.alike, "pixel": 0.9999}) for entry in entries]
    standings = Standings.of(board, doubted)
    lines = [line for line in standings.lines if line.method.name == "pixel"]
    assert lines and all("its seeds rank alike (Spearman 0.9999)" in line.doubt for line in lines)
    page = tables.markdown(standings)
    assert page.count("pixel ‡") == len(standings.variants) * len(lines) and "‡ pixel: its seeds rank alike" in page
    quoted = boards_markdown([standings], "site")
    assert "‡" in quoted and tables.SEEDS_ALIKE in quoted
