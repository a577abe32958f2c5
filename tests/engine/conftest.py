"""Stores and processes. The steps are in `fixtures/sample_steps.py`, a module that other processes can import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attribench.engine.store import ArtifactStore

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """An empty store."""
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def python():
    """Start Python with some code in another process, which can import the sample steps."""
    started: list[subprocess.Popen] = []

    def start(code: str, *arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(FIXTURES), **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
