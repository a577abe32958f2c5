"""Worlds to check methods in: the small random model on drawn concepts, and what ships with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from attribench.conformance import World
from attribench.editions import open_dataset


@pytest.fixture(scope="session")
def small_world(paper_folder: Path, small_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Of the small random model and the drawn concepts."""
    dataset = open_dataset("customconcept101", "paper", paper_folder)
    return World.open(tmp_path_factory.mktemp("world"), model=small_model_folder, dataset=dataset)


@pytest.fixture(scope="session")
def shipped_world(shipped_world_store: Path) -> World:
    """That of `attribench check`."""
    return World.open(shipped_world_store)
