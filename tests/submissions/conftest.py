"""A submission of a real run, taken apart and sealed again."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attribench.run.experiment import Experiment
from attribench.submissions import container


@pytest.fixture(scope="session")
def members(packed: bytes) -> dict[str, bytes]:
    """Its members, without their digests."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    del found[container.SUMS]
    return found


@pytest.fixture
def verdict(tmp_path: Path, experiment: Experiment) -> Callable:
    """Verifies members, packed anew as their forger would do it, or the bytes of a file."""
    from attribench.submissions.verify import verify

    def run(content: dict[str, bytes] | bytes, **options):
        path = tmp_path / "a.submission.zip"
        path.write_bytes(content if isinstance(content, bytes) else container.pack(content))
        return verify(path, **{"known": [experiment], **options})

    return run
