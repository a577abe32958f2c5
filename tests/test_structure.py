"""The rules of the layout that a reader relies on."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUGIN_FOLDERS = ("methods", "datasets", "metrics")


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_plugins_of_one_kind_know_no_other_kind(folder):
    others = set(PLUGIN_FOLDERS) - {folder}
    for path in (ROOT / folder).rglob("*.py"):
        wrong = {m for m in imported_modules(path) if set(m.split(".")[:2]) & others}
        assert not wrong, f"{path} imports {wrong}"


def run(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_help_and_import_load_no_torch():
    modules = "attribench, attribench.cli, attribench.data, attribench.interface, attribench.plugins"
    code = f"import sys; import {modules}; print('torch' in sys.modules)"
    assert run(sys.executable, "-c", code, cwd=ROOT / "tests").stdout.strip() == "False"


def test_our_folders_shadow_no_package_when_run_from_the_root():
    """From the repository root `import datasets` would find ours; `python -m attribench` takes the root off the path."""
    code = (
        "import runpy, sys; sys.argv = ['attribench', '--version']\n"
        "try: runpy.run_module('attribench', run_name='__main__', alter_sys=True)\n"
        "except SystemExit: pass\n"
        "import importlib.util as u\n"
        "spec = u.find_spec('datasets')\n"
        "print('ours' if spec and spec.origin and 'attribench' in open(spec.origin).read() else 'not ours')"
    )
    result = run(sys.executable, "-c", code)
    assert result.stdout.split() == ["attribench", "0.1.0", "not", "ours"], result.stderr


def test_tests_run_with_the_root_off_the_path():
    assert str(ROOT) not in sys.path
    assert "" not in sys.path


def test_every_package_is_in_the_wheel():
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"attribench"}
    for folder in ("attribench", *PLUGIN_FOLDERS):
        prefix = "" if folder == "attribench" else "attribench."
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(prefix + ".".join(init.parent.relative_to(ROOT).parts))
    assert declared == found


def test_every_dependency_is_pinned():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = {
        canonicalize_name(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    assert {canonicalize_name(Requirement(text).name) for text in wanted} <= pins


def test_ci_runs_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    marked = readme.partition("<!-- test command -->")[2]
    command = next(line for line in marked.splitlines() if line.startswith("pip install"))
    assert "&& pytest" in command
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()
