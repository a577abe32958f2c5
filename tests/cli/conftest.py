"""The command line on a small world: seven drawn concepts in the public layout, a random-weight model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

SMALL = {
    "n_studies": "2", "images_per_concept": "3", "templates": "4", "fit_pictures": "1", "method_seeds": "[4, 16]",
    "query_pictures.un-mixed": "2", "query_pictures.mixed": "1",
    "customization.epochs": "2", "sampling.steps": "2",
}  # fmt: skip


@pytest.fixture(scope="session")
def small_options(paper_folder: Path, small_model_folder: Path) -> dict:
    """Options of `RunConfig.gather` for a run of seconds."""
    return {
        "dataset": "customconcept101",
        "data_root": paper_folder,
        "model": str(small_model_folder),
        "preset": "mini",
        "workers": 1,  # no second import of torch for seconds of work; test_job.py runs the others
        "params": [f"between-concepts.{name}={value}" for name, value in SMALL.items()] + ["shuffled-queries.encoder=clip-tiny"],
    }


@pytest.fixture(scope="session")
def command_line(small_options: dict) -> list[str]:
    """The same as arguments of `attribench run`."""
    pairs = {"--dataset": "CustomConcepts101", "--data-root": str(small_options["data_root"]),
             "--model": small_options["model"], "--preset": "mini", "--workers": "1"}  # fmt: skip
    return [x for pair in pairs.items() for x in pair] + [x for p in small_options["params"] for x in ("--param", p)]


@pytest.fixture
def attribench_process(tmp_path: Path, common_store: Path) -> Callable[..., subprocess.CompletedProcess]:
    """The fixture `attribench`, in a process of its own, as a user starts it."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        own = {"HF_HUB_OFFLINE": "1", "ATTRIBENCH_STORE": str(common_store), "COLUMNS": "150"}
        return subprocess.run(
            [sys.executable, "-m", "attribench", *arguments],
            cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def beside(shipped_world_store: Path) -> Callable[[Sequence[Path], Path], Callable[..., subprocess.CompletedProcess]]:
    """Installs packages below a folder as a stranger would, by pip, but offline; gives `attribench …` with them beside it.

    `tool="pytest"` runs that instead of attribench.
    """

    def install(sources: Sequence[Path], folder: Path) -> Callable[..., subprocess.CompletedProcess]:
        site = folder / "site"
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), *map(str, sources)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        own = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(site), "ATTRIBENCH_STORE": str(shipped_world_store), "COLUMNS": "150"}

        def run(*arguments: str, tool: str = "attribench") -> subprocess.CompletedProcess:
            return subprocess.run(
                [sys.executable, "-m", tool, *arguments],
                cwd=folder, env=os.environ | own, capture_output=True, text=True, timeout=600, check=False,
            )  # fmt: skip

        return run

    return install
