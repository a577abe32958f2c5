"""From a run folder to the built page by the command line alone; and what a refusal looks like."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from attribench.__main__ import main
from attribench.boards.board import Leaderboards
from attribench.engine.listener import Listener
from attribench.report import record
from attribench.run.config import RunConfig
from attribench.run.execute import execute
from attribench.run.prepare import prepare


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def say(monkeypatch, capsys, tmp_path) -> Callable[..., Said]:
    """Runs `attribench …` in this process, in a folder of its own, and returns what came out."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["attribench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Said(ended.value.code or 0, *capsys.readouterr())

    return run


def test_a_run_goes_to_a_built_page(say, run_folder, experiment, tmp_path):
    Leaderboards(tmp_path / "leaderboards").define(experiment, "A small board")
    packed = say("submit", run_folder, "--by", "A. Tester", "--code", "https://example.org", "--out", "mine.submission.zip")
    assert packed.code == 0 and "mine.submission.zip: " in packed.out
    verified = say("verify", "mine.submission.zip")
    assert verified.code == 0, verified
    assert "every number was recomputed from its scores; verified, but for spearman_with_table" in verified.out
    assert "fits the board customconcept101-mini.between-concepts.v1" in verified.out and "pixel" in verified.out
    assert say("leaderboard", "add", "mine.submission.zip").out == "mine.submission.zip: added (pixel)\n"
    built = say("leaderboard", "build")
    assert built.code == 0 and "1 boards, 1 submissions" in built.out
    assert "A. Tester" in (tmp_path / "leaderboards" / "site" / "methods" / "pixel.html").read_text()


def test_metrics_that_were_added_to_a_run_are_no_part_of_its_submission(say, run_folder, experiment, packed, tmp_path):
    """And the protocol's own numbers are those of the run without them."""
    config = RunConfig.gather(run_folder / "run.toml", metrics=["recall"], params=["recall.k=3"], out=tmp_path / "with")
    assert execute(prepare(config), Listener()).failure is None
    assert {row.metric for row in record.read(tmp_path / "with")} >= {"recall@3", "recall@5"}
    Leaderboards(tmp_path / "leaderboards").define(experiment, "A small board")
    said = say("submit", tmp_path / "with", "--out", "with.submission.zip")
    assert said.out.startswith("left out: recall@3; a submission holds the metrics of its protocol")
    (tmp_path / "without.submission.zip").write_bytes(packed)
    rows = {}
    for name in ("with", "without"):
        verdict = json.loads(say("verify", f"{name}.submission.zip", "--json").out)
        assert verdict["verdict"] != "refused"
        rows[name] = {(r["method"], r["variant"], r["metric"]): (r["value"], r["low"], r["rank"]) for r in verdict["rows"]}
    assert rows["with"] == rows["without"]


def test_a_refusal_names_its_reason_and_has_its_own_exit_code(say, packed, tmp_path):
    (tmp_path / "bad.zip").write_bytes(packed[:-3])
    said = say("verify", "bad.zip")
    assert said.code == 8 and said.out.startswith("bad.zip: refused: it is no zip of stored members")
    assert said.err == "attribench: bad.zip is refused (1 reasons)\n"
    as_json = json.loads(say("verify", "bad.zip", "--json").out)
    assert as_json["verdict"] == "refused" and len(as_json["reasons"]) == 1 and as_json["rows"] == []


def test_what_cannot_be_submitted_is_one_line(say, run_folder, tmp_path):
    assert "cannot read" in say("submit", tmp_path).err
    said = say("submit", run_folder, "-m", "montrage")
    assert said.code == 2 and "the run has no numbers of montrage; it has those of" in said.err


def test_a_board_of_a_mini_edition_is_defined_by_name(say, tmp_path):
    said = say("leaderboard", "new", "artchive")
    assert said.out == "leaderboards/boards/artchive-mini.between-concepts.v1.toml: Between concepts on artchive\n"
    assert "already a board" in say("leaderboard", "new", "artchive").err
    assert Path("leaderboards/boards/artchive-mini.between-concepts.v1.toml").is_file()
