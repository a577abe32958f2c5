"""What the pages say is what there is: links, names, needs, hyper-parameters and defaults, decisions, checks, the contract."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from attribench.cli.list import list_plugins

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "leaderboards" / "README.md"]
LINK = re.compile(r"\]\((?!\w+:)([^()\s]+)\)")
FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2", re.DOTALL | re.MULTILINE)
SPANS = re.compile(r"`([^`]+)`")


def tables(page: Path, first: str) -> Iterator[dict[str, str]]:
    """The rows of the page's tables whose first column is headed `first`, by column."""
    header: list[str] = []
    for line in page.read_text().splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
        elif header[0] == first and not set(line) <= set("|- "):
            yield dict(zip(header, cells, strict=True))


def names(cell: str) -> list[str]:
    return SPANS.findall(cell)


METHODS = {names(row["method"])[0]: row for row in tables(DOCS / "methods.md", "method")}
METHOD_PAGES = {name: DOCS / LINK.search(row["method"])[1] for name, row in METHODS.items()}


def anchors(page: Path) -> set[str]:
    """As forges and mkdocs make them of headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.fixture(scope="module")
def ours() -> dict[str, dict[str, dict]]:
    """What `attribench list --json` prints of the built-in plugins, by kind and name."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        list_plugins(json=True)
    rows = [json.loads(line) for line in printed.getvalue().splitlines()]
    own = [row for row in rows if row["origin"].startswith("attribench-diffusion")]
    return {kind: {row["name"]: row for row in own if row["kind"] == kind} for kind in {row["kind"] for row in own}}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_and_picture_leads_to_a_file(page):
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        path, _, part = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists() and there.is_relative_to(ROOT), f"{page.name} links to {target}, which is not there"
        assert not part or part in anchors(there), f"{page.name} links to {target}, and there is no such heading"


def test_the_overview_holds_each_built_in_method_once_with_what_it_needs(ours):
    assert METHODS.keys() == ours["method"].keys()
    for name, row in METHODS.items():
        assert names(row["needs"]) == ours["method"][name]["needs"], name


@pytest.mark.parametrize("page", sorted(set(METHOD_PAGES.values())), ids=lambda page: page.name)
def test_a_method_page_lists_the_hyper_parameters_and_defaults_that_there_are(page, ours):
    here = [name for name, of in METHOD_PAGES.items() if of == page]
    listed: dict[str, dict[str, str]] = {name: {} for name in here}
    for row in tables(page, "hyper-parameter"):
        for name in here if row["methods"] == "all" else names(row["methods"]):
            listed[name][names(row["hyper-parameter"])[0]] = names(row["default"])[0].strip('"')
    assert listed == {name: ours["method"][name]["params"] for name in here}
    for name in here:
        assert f"`{name}`" in page.read_text()


@pytest.mark.parametrize(("kind", "page", "first"), [
    ("metric", "metrics.md", "metric"), ("dataset", "data-sets.md", "data set"), ("protocol", "protocols.md", "protocol"),
])  # fmt: skip
def test_every_metric_data_set_and_protocol_is_on_its_page(kind, page, first, ours):
    found = {names(row[first])[0] for row in tables(DOCS / page, first)}
    assert found == ours[kind].keys()


def test_every_decision_is_in_the_index():
    index = (DOCS / "decisions" / "README.md").read_text()
    there = {path.name for path in (DOCS / "decisions").glob("0*.md")}
    assert {target for target in LINK.findall(index) if target.startswith("0")} == there


def test_the_page_on_methods_names_the_conformance_checks():
    from attribench import conformance

    listed = [names(row["check"])[0] for row in tables(DOCS / "add-a-method.md", "check")]
    assert listed == [check.name for check in conformance.CHECKS]
