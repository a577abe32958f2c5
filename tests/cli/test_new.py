"""`attribench new`: packages that work as they are, for names that can be, where nothing is."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from attribench import scaffold
from attribench.errors import UsageError

SMALL = ("n_studies=1", "n_concepts=3", "images_per_concept=2", "templates=2", "method_seeds=[4]", "query_pictures.un-mixed=2",
         "query_pictures.mixed=1", "customization.epochs=1", "sampling.steps=2")  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with a new package of each kind."""
    folder = tmp_path_factory.mktemp("new")
    for kind, name in (("method", "small-cosine"), ("dataset", "drawn-shapes"), ("metric", "ordered_pairs")):
        scaffold.write(kind, name, folder / name)
    return folder


@pytest.fixture(scope="module")
def installed(written: Path, beside) -> Callable[..., subprocess.CompletedProcess]:
    """The command line with all three beside it."""
    return beside([written / name for name in ("small-cosine", "drawn-shapes", "ordered_pairs")], written)


def test_a_package_holds_the_plugin_a_test_and_a_readme(written):
    found = {path.relative_to(written / "small-cosine").as_posix() for path in (written / "small-cosine").rglob("*.*")}
    assert found >= {"pyproject.toml", "small_cosine.py", "tests/test_small_cosine.py", "README.md"}
    for path in written.rglob("*.*"):
        if path.suffix in (".py", ".toml", ".md") and "site" not in path.parts:
            assert "$" not in path.read_text(), path
    project = tomllib.loads((written / "small-cosine" / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["attribench.methods"] == {"small-cosine": "small_cosine:SmallCosine"}
    assert any(requirement.startswith("attribench-diffusion") for requirement in project["dependencies"])


def test_new_method_data_set_and_metric_run_together_beside_the_built_in_ones(installed, small_model_folder):
    """With their own mini edition, and no parameter of ours but the small counts."""
    result = installed(
        "run", "-m", "small-cosine", "-m", "pixel", "-d", "drawn-shapes", "--metric", "ordered_pairs", "--model",
        str(small_model_folder), "--workers", "0", "--json", *(x for p in SMALL for x in ("-p", f"between-concepts.{p}")),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    mine = [row for row in rows if row["method"] == "small-cosine"]
    assert {row["dataset"] for row in rows} == {"drawn-shapes"}
    assert mine[0]["plugin"] == "attribench-small-cosine 0.1.0"
    measured = {(row["variant"], row["metric"]): row for row in mine}
    for variant in ("un-mixed", "mixed"):
        row = measured[variant, "ordered_pairs"]
        assert 0 <= row["value"] <= 1 and (row["chance"], row["ceiling"]) == (0.5, 1.0)


def test_the_tests_of_the_new_metric_and_data_set_pass(installed):
    result = installed("-q", "-p", "no:cacheprovider", "ordered_pairs", "drawn-shapes", tool="pytest")
    assert result.returncode == 0, result.stdout
    assert "7 passed" in result.stdout


def test_the_tests_of_the_new_method_are_the_conformance_checks_and_pass(installed):
    result = installed("-q", "-p", "no:cacheprovider", "small-cosine", tool="pytest")
    assert result.returncode == 0, result.stdout
    assert "12 passed" in result.stdout


NAMES = {
    "": "cannot name a method", "3d": "cannot name a method", "käse": "cannot name a method", "a/b": "cannot name a method",
    "../up": "cannot name a method", "$name": "cannot name a method", "x" * 61: "cannot name a method",
    "class": "Python already has a module or word 'class'", "json": "already has", "numpy": "already has",
    "attribench": "already has",
    "Pixel": "already a method called 'pixel'", "D Trak": "already a method called 'd-trak'", "mon-trage": "called 'montrage'",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_cannot_be_is_one_line(name, tmp_path):
    with pytest.raises(UsageError, match="^[^\n]*" + NAMES[name].replace("'", ".")) as refusal:
        scaffold.write("method", name, tmp_path / "here")
    assert "\n" not in str(refusal.value) and not (tmp_path / "here").exists()


@pytest.mark.parametrize(("given", "name", "module", "cls"), [
    ("my-method", "my-method", "my_method", "MyMethod"), ("My Method 2", "my-method-2", "my_method_2", "MyMethod2"),
])  # fmt: skip
def test_names_are_made_from_what_was_given(given, name, module, cls):
    made = scaffold.names("method", given)
    assert (made["name"], made["module"], made["class_name"]) == (name, module, cls)


def test_nothing_is_overwritten(tmp_path):
    scaffold.write("method", "my-method", tmp_path / "mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    with pytest.raises(UsageError, match="exists, and nothing is overwritten"):
        scaffold.write("metric", "my-metric", tmp_path / "mine")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before
    (tmp_path / "empty").mkdir()
    assert scaffold.write("metric", "my-metric", tmp_path / "empty") == tmp_path / "empty"


def test_the_command_line_says_what_it_wrote(attribench, tmp_path):
    result = attribench("new", "method", "my-method")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "next: see my-method/README.md"
    assert (tmp_path / "my-method" / "my_method.py").is_file()
    refused = attribench("new", "methd", "x")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
