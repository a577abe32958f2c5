"""The whole way of a stranger: new → check → run → submit → verify → on the board → built → a row of the page in a browser.

The package is installed beside attribench for the first four. Whoever runs the board has not installed it, and needs not to.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from attribench import plugins, scaffold
from attribench.boards.adding import add, verdict_of
from attribench.boards.board import Leaderboards
from attribench.boards.site import build_site

CHROMIUM = shutil.which("chromium")
METHOD = "strangers-cosine"


@pytest.fixture(scope="module")
def submitted(beside, run_folder: Path, tmp_path_factory) -> Path:
    """A new package's method, checked, run on the studies of the tests' board and packed, all by the command line."""
    folder = tmp_path_factory.mktemp("stranger")
    scaffold.write("method", METHOD, folder / METHOD)
    say = beside([folder / METHOD], folder)
    for command in (
        ("check", METHOD),
        ("run", str(run_folder / "run.toml"), "-m", METHOD, "--out", "run"),
        ("submit", "run", "--by", "A. Stranger", "--code", "https://example.org/code", "--out", "mine.submission.zip"),
    ):
        result = say(*command)
        assert result.returncode == 0, result.stderr
    return folder / "mine.submission.zip"


@pytest.fixture(scope="module")
def site(submitted: Path, packed: bytes, experiment, tmp_path_factory) -> Path:
    """The built pages of a board that has our run, whose truth is kept, and then the stranger's."""
    folder = tmp_path_factory.mktemp("journey")
    (folder / "ours.submission.zip").write_bytes(packed)
    leaderboards = Leaderboards(folder / "leaderboards")
    board = leaderboards.define(experiment, "A small board")
    add(folder / "ours.submission.zip", leaderboards, keep_truth=True)
    assert METHOD not in plugins.all_plugins("method")
    verdict, fits = verdict_of(submitted, leaderboards)
    assert verdict.accepted, verdict.reasons
    assert fits == board and verdict.verified == {(row.variant, row.metric) for row in verdict.rows}
    add(submitted, leaderboards)
    build_site(leaderboards, folder / "site")
    return folder / "site"


def test_the_row_of_a_strangers_method_is_on_the_page_beside_ours_with_its_package_and_code(site):
    page = next((site / "boards").glob("*.html")).read_text()
    assert f'href="../methods/{METHOD}.html"' in page and 'href="../methods/pixel.html"' in page
    own = (site / "methods" / f"{METHOD}.html").read_text()
    assert f"attribench-{METHOD} 0.1.0" in own and "A. Stranger" in own and "https://example.org/code" in own


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (Debian: apt-get install chromium)")
def test_the_row_is_seen_in_a_browser_verified_and_ranked(site):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        view = browser.new_page(viewport={"width": 1280, "height": 900})
        view.goto(next((site / "boards").glob("*.html")).as_uri())
        view.locator("input[type=search]").fill("stranger")
        row = view.locator("table.board").first.locator("tbody.methods tr")
        assert row.count() == 1 and row.is_visible()
        assert METHOD in row.inner_text() and "verified" in row.inner_text()
        assert row.locator("td.rank").inner_text().isdigit()
        row.get_by_role("link", name=METHOD).click()
        assert view.get_by_role("heading", level=1).inner_text() == METHOD
        browser.close()
