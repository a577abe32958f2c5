"""`attribench verify`: every fault of a copy in one table; and the same faults met by a run."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from attribench.__main__ import main


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def say(monkeypatch, capsys) -> Callable[..., Said]:
    """Runs `attribench …` in this process and returns what came out."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["attribench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Said(ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def copy(paper_folder: Path, tmp_path: Path) -> Path:
    """A copy of CustomConcept101 that a test may damage: seven concepts of three pictures."""
    shutil.copytree(paper_folder, tmp_path / "copy")
    (tmp_path / "copy" / "dataset_multiconcept.json").write_text("[]")
    return tmp_path / "copy"


@pytest.fixture
def artists(copy: Path) -> Path:
    """The same pictures as a tree of artists."""
    return copy / "benchmark_dataset"


def test_a_whole_copy_is_one_line(say, copy):
    said = say("verify", "CustomConcepts101", "--data-root", copy)
    assert said.code == 0
    assert said.out == (f"customconcept101, paper edition in {copy}: looked at 21 pictures of 7 usable concepts, no problem\n")


def test_the_mini_edition_is_whole(say):
    said = say("verify", "artchive")
    assert (said.code, said.err) == (0, "")
    assert "mini edition in" in said.out and said.out.endswith("no problem\n")


def test_every_fault_is_a_row_with_its_remedy(say, copy):
    folder = copy / "benchmark_dataset"
    (folder / "thing_cat" / "0.jpg").write_bytes((folder / "thing_cat" / "0.jpg").read_bytes()[:300])
    shutil.copy(folder / "thing_dog" / "0.jpg", folder / "thing_dog" / "9.jpg")
    (copy / "prompts" / "thing.txt").write_text("a {} here\nno place for it\n")
    said = say("verify", "customconcept101", "--data-root", copy)
    assert said.code == 3
    rows = {line.split()[0]: line for line in said.out.splitlines() if line.strip().startswith(("benchmark", "prompts"))}
    assert "is truncated after 300 bytes" in rows["benchmark_dataset/thing_cat/0.jpg"]
    assert "is the same picture as benchmark_dataset/thing_dog/0.jpg" in rows["benchmark_dataset/thing_dog/9.jpg"]
    assert "keep only one of the two" in rows["benchmark_dataset/thing_dog/9.jpg"]
    assert "write {} where the concept goes" in rows["prompts/thing.txt"]
    assert said.out.splitlines()[-1].endswith("looked at 22 pictures of 7 usable concepts, 3 problems")

    as_json = say("verify", "customconcept101", "--data-root", copy, "--json")
    problems = [json.loads(line) for line in as_json.out.splitlines()]
    assert as_json.code == 3 and "3 problems" in as_json.err
    assert [problem["file"] for problem in problems] == [
        "benchmark_dataset/thing_cat/0.jpg", "benchmark_dataset/thing_dog/9.jpg", "prompts/thing.txt line 2",
    ]  # fmt: skip
    assert problems[0].keys() == {"file", "fault", "remedy"}


@pytest.mark.parametrize("name", [b"esc\x1b[31m.jpg", b"bad\xff.jpg", b"two\nlines.jpg", b"[red]x[bold].jpg", b"{0}.jpg"])
def test_no_name_of_a_file_reaches_the_terminal_unescaped(say, artists, name):
    (artists / "thing_cat" / os.fsdecode(name)).write_bytes(b"no picture")
    said = say("verify", "artchive", "--data-root", artists)
    assert said.code == 3
    assert all(line.isprintable() for line in said.out.splitlines())
    assert "1 problem" in said.out
    if name.isascii() and name.decode().isprintable():
        assert f"thing_cat/{name.decode()}" in said.out


def test_a_copy_that_cannot_be_run_is_verified_all_the_same(say, copy):
    for file in (copy / "benchmark_dataset" / "thing_cat").iterdir():
        file.unlink()
    (copy / "benchmark_dataset" / "thing_dog" / "0.jpg").write_bytes(b"")
    said = say("verify", "customconcept101", "--data-root", copy)
    assert said.code == 3
    assert "benchmark_dataset/thing_dog/0.jpg" in said.out
    assert "looked at 18 pictures of 6 usable concepts, 2 problems" in said.out
    (line,) = said.err.splitlines()
    assert line.startswith("attribench: ") and "fewer than 2 pictures for 1 of 7 concepts (thing_cat has none)" in line


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["artchiv"], 2, "did you mean 'artchive'?"),
        (["artchive", "--data-root", "nowhere"], 3, "nowhere does not exist"),
        (["artchive", "--edition", "paper"], 2, "--edition paper needs --data-root"),
        (["artchive", "--edition", "huge"], 2, "'--edition': 'huge' is not one of 'mini', 'paper'"),
        ([], 2, "missing argument 'DATASET'"),
    ],
)
def test_what_cannot_be_verified_is_one_line(say, arguments, code, hint):
    said = say("verify", *arguments)
    assert (said.code, said.out) == (code, "")
    (line,) = said.err.splitlines()
    assert line.startswith("attribench: ") and hint in line


def test_a_data_set_of_a_plugin_file_is_verified(say, artists, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from attribench.datasets.artchive import Artchive\nclass Mine(Artchive):\n    '''Mine.'''\n    name = 'mine-to-verify'\n"
    )
    said = say("verify", "mine-to-verify", "--plugin", tmp_path / "mine.py", "--data-root", artists)
    assert said.code == 0 and said.out.startswith("mine-to-verify, paper edition")


# ------------------------------------------------------------------------------- the same faults in a run


@pytest.fixture
def dry_run(say, command_line: list[str], tmp_path: Path) -> Callable[..., Said]:
    """A run of `dataset` in `root`, up to where training would begin."""

    def run(dataset: str, root: Path, *more: str) -> Said:
        options = [*command_line, "--dataset", dataset, "--data-root", root, "--store", tmp_path / "store"]
        counts = ("-p", "between-concepts.n_concepts=2", "-p", "between-concepts.n_studies=1")
        return say("run", *options, *counts, "-m", "pixel", "--dry-run", *more)

    return run


@pytest.mark.parametrize("kept", [0, 1])
def test_a_listed_concept_with_too_few_pictures_stops_a_run(dry_run, copy, kept):
    for folder in ("thing_cat", "thing_lamp"):
        for file in sorted((copy / "benchmark_dataset" / folder).iterdir())[kept:]:
            file.unlink()
    said = dry_run("customconcept101", copy)
    (line,) = said.err.splitlines()
    assert (said.code, said.out) == (3, "")
    count = kept or "none"
    assert f"fewer than 2 pictures for 2 of 7 concepts (thing_cat has {count}, thing_lamp has {count}); restore" in line


def test_artists_with_too_few_pictures_are_left_out_and_told(dry_run, artists):
    """The public Artchive has artists with one picture, so this must run."""
    (artists / "nobody [red]").mkdir()
    for file in sorted((artists / "thing_cat").iterdir())[1:]:
        file.unlink()
    notice = "left out, since a concept needs 2 pictures: 2 of 8 concepts (nobody [red] has none, thing_cat has 1)"
    said = dry_run("artchive", artists)
    assert said.code == 0, said.err
    assert notice in said.out.splitlines()


def test_damaged_pictures_stop_a_run_before_anything_is_trained(dry_run, artists):
    for file in artists.glob("*/1.jpg"):
        file.write_bytes(file.read_bytes()[:200])
    said = dry_run("artchive", artists)
    assert (said.code, said.out) == (3, "")
    (line,) = said.err.splitlines()
    assert line.startswith("attribench: thing_") and "/1.jpg: is truncated after 200 bytes" in line
    assert "(and 1 more of 6: thing_" in line
