"""The pages of the documentation as they lie in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = re.compile(r'^```python title="([\w.]+)"\n(.*?)^```', re.DOTALL | re.MULTILINE)


@pytest.fixture
def files_of(tmp_path: Path):
    """Writes every titled block of code of a page to a file of that name; gives the folder."""

    def write(page: str) -> Path:
        for title, code in CODE.findall((ROOT / "docs" / page).read_text()):
            (tmp_path / title).write_text(code)
        return tmp_path

    return write
