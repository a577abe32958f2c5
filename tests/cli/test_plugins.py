"""Plugins in packages of their own, installed as a stranger would: listed, used, told apart when names clash.

Commands that several tests look at run once.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "colour-histogram"
METHOD = (
    "from dataclasses import dataclass\n"
    "from attribench.interface import AttributionMethod\n"
    "@dataclass(frozen=True, kw_only=True)\n"
    "class Mine(AttributionMethod):\n"
    "    '''From {package}.'''\n"
    "    name = '{name}'\n"
    "    def score(self, study, state, queries):\n"
    "        raise NotImplementedError\n"
)
PACKAGES = {
    "thief": ("methods", "pixels", METHOD, 'license = {text = "Apache License 2.0\\nand all its text"}'),
    "twin-one": ("methods", "twins", METHOD, 'classifiers = ["License :: OSI Approved :: MIT License"]'),
    "twin-two": ("methods", "twins", METHOD, ""),
    "wreck": ("metrics", "wreck", "import a_module_that_is_not_there\n", ""),
}
"""Package -> kind, entry point, code, a line on its licence."""


def write_package(folder: Path, package: str) -> Path:
    kind, name, code, licence = PACKAGES[package]
    module = package.replace("-", "_") + "_plugin"
    (folder / package).mkdir()
    (folder / package / f"{module}.py").write_text(code.format(package=package, name=name))
    (folder / package / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "{package}"\nversion = "2.5"\n{licence}\n'
        f'[project.entry-points."attribench.{kind}"]\n{name} = "{module}:Mine"\n'
        f'[tool.setuptools]\npy-modules = ["{module}"]\n'
    )
    return folder / package


@pytest.fixture(scope="module")
def strangers(beside, tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """The command line beside packages that clash or are broken."""
    folder = tmp_path_factory.mktemp("strangers")
    return cache(beside([write_package(folder, package) for package in PACKAGES], folder))


@pytest.fixture(scope="module")
def example(beside, tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """The command line beside the example package."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    return cache(beside([folder / "source"], folder))


def rows(result: subprocess.CompletedProcess) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# --------------------------------------------------------------------------------------- the example


def test_the_example_is_listed_with_its_package_version_and_licence(example):
    found = next(row for row in rows(example("plugins", "--json")) if row["name"] == "colour-histogram")
    assert found == {
        "kind": "method", "name": "colour-histogram", "version": "1.0.0", "distribution": "attribench-colour-histogram",
        "licence": "MIT", "origin": "attribench-colour-histogram 1.0.0",
        "place": "attribench_colour_histogram:ColourHistogram", "state": "ok", "reason": None,
    }  # fmt: skip
    listed = next(row for row in rows(example("list", "--json")) if row["name"] == "colour-histogram")
    assert listed["params"] == {"bins": "8"} and listed["needs"] == ["features"]


def test_the_example_passes_the_conformance_checks(example):
    result = example("check", "colour-histogram", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    assert [row["status"] for row in rows(result)] == ["passed"] * len(rows(result))
    assert "by attribench-colour-histogram 1.0.0" in result.stderr


def test_the_example_has_a_row_beside_the_built_in_methods(example, command_line):
    result = example("run", *command_line, "-m", "colour-histogram", "-m", "pixel", "-p", "colour-histogram.bins=4", "--json")
    assert result.returncode == 0, result.stderr
    found = [row for row in rows(result) if row["method"] == "colour-histogram"]
    assert {row["status"] for row in found} == {"ok"}
    assert found[0]["plugin"] == "attribench-colour-histogram 1.0.0" and found[0]["params"] == {"bins": 4}
    assert {row["method"] for row in rows(result)} > {"pixel", "random"}


# ------------------------------------------------------------------------------------------- clashes


def test_plugins_lists_clashes_and_what_cannot_be_imported(strangers):
    result = strangers("plugins", "--json")
    assert result.returncode == 5
    by_package = {row["distribution"]: row for row in rows(result) if row["distribution"] in PACKAGES}
    assert {package: row["state"] for package, row in by_package.items()} == {
        "thief": "not used", "twin-one": "not used", "twin-two": "not used", "wreck": "broken",
    }  # fmt: skip
    assert {package: row["licence"] for package, row in by_package.items()} == {
        "thief": "Apache License 2.0", "twin-one": "MIT License", "twin-two": None, "wreck": None,
    }  # fmt: skip
    assert "No module named 'a_module_that_is_not_there'" in by_package["wreck"]["reason"]
    assert "two methods are called 'pixels': that of attribench-diffusion" in by_package["thief"]["reason"]
    shown = strangers("plugins")
    assert "metric wreck broken: the metric plugin 'wreck' (wreck 2.5) cannot be imported" in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr


@pytest.mark.parametrize("verb", ["list", "plugins"])
def test_a_clash_is_told_wherever_plugins_are_listed(strangers, verb):
    warnings = [line for line in strangers(verb).stderr.splitlines() if line.startswith("attribench: warning: two methods")]
    assert len(warnings) == 3
    assert any("'pixels'" in line and "the first, which is built in, is used" in line for line in warnings)


def test_the_built_in_method_wins_and_every_use_says_so(strangers, command_line):
    result = strangers("run", *command_line, "-m", "pixels", "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    assert any(row["step"].startswith("fit pixel") for row in rows(result))
    warnings = [line for line in result.stderr.splitlines() if line.startswith("attribench: warning: ")]
    assert len(warnings) == 1 and "that of thief 2.5" in warnings[0]


def test_of_two_strangers_with_one_name_neither_is_used(strangers):
    result = strangers("check", "twins")
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if "warning" not in line]
    assert line.startswith("attribench: two methods are called 'twins'") and line.endswith("neither is used: uninstall one")
