"""The site builds without a warning, and reads without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FETCHED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -c constraints.txt -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_there_and_so_is_what_pages_link_to(site):
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs").as_posix().replace("README.md", "index.md").removesuffix(".md")
        assert (site / f"{path}.html").is_file(), path
    assert "Changes" in (site / "repository" / "CHANGELOG.html").read_text()
    assert "AttributionMethod" in (site / "repository" / "attribench" / "interface.py.html").read_text()


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        assert FETCHED.findall(page.read_text()) == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text()), style


def test_no_page_names_a_folder_of_the_machine_it_was_built_on(site):
    for page in site.rglob("*.html"):
        assert str(ROOT) not in page.read_text(), page
