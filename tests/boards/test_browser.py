"""The pages in headless Chromium (apt-get install chromium): sorting, filtering, keyboard, phone, dark. Skips without it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from attribench.boards.site import build_site

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def board(filled, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("browsed") / "site"
    build_site(filled, target)
    return next((target / "boards").glob("*.html"))


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def view(browser, board):
    """The board's page from the disk; a message on the console or an address that is asked for fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(board.as_uri())
    yield page
    assert said == []
    assert all(url.startswith("file://") for url in asked)
    context.close()


def column(view, number: int) -> list[str]:
    return view.locator("table.board").first.locator(f"tbody.methods tr:not([hidden]) > :nth-child({number})").all_inner_texts()


def heading(view, name: str):
    return view.locator("table.board").first.get_by_role("button", name=name, exact=True)


def test_a_heading_sorts_by_its_column_and_says_so(view):
    costs = view.locator("table.board").first.locator("tbody.methods td:nth-child(9)")
    heading(view, "per query").click()
    header = view.locator("table.board").first.get_by_role("columnheader", name="per query")
    assert header.get_attribute("aria-sort") == "ascending"
    rising = [float(v) for v in costs.evaluate_all("cells => cells.map(cell => cell.dataset.v)")]
    assert rising == sorted(rising) and len(rising) == 2
    heading(view, "per query").click()
    assert header.get_attribute("aria-sort") == "descending"
    falling = [float(v) for v in costs.evaluate_all("cells => cells.map(cell => cell.dataset.v)")]
    assert falling == sorted(rising, reverse=True)
    assert view.locator("table.board").first.locator("[aria-sort]").count() == 1


def test_a_quality_is_sorted_best_first(view):
    heading(view, "recall@5").click()
    values = [float(text.split()[0]) for text in column(view, 4)]
    assert values == sorted(values, reverse=True)


def test_controls_stay_below_the_methods_however_they_are_sorted(view):
    before = view.locator("table.board").first.locator("tbody.controls").inner_text()
    heading(view, "method").click()
    assert view.locator("table.board").first.locator("tbody.controls").inner_text() == before


def test_the_table_is_sorted_with_the_keyboard_alone(view):
    view.locator("input[type=search]").focus()
    for _ in range(30):
        view.keyboard.press("Tab")
        if view.evaluate("document.activeElement.tagName === 'BUTTON' && document.activeElement.textContent === 'recall@5'"):
            break
    else:
        pytest.fail("no Tab reaches the heading recall@5")
    outline = view.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    view.keyboard.press("Enter")
    assert view.locator("[aria-sort=descending] button").first.inner_text() == "recall@5"
    view.keyboard.press("Space")
    assert view.locator("[aria-sort=ascending] button").first.inner_text() == "recall@5"


def test_rows_are_filtered_by_text_and_by_what_they_need_and_the_number_is_told(view):
    status = view.locator("form.filter [role=status]")
    assert status.inner_text() == "2 of 2 methods"
    view.locator("input[type=search]").fill("B. tester")
    assert status.inner_text() == "1 of 2 methods" and len(column(view, 2)) == 1
    view.locator("input[type=search]").fill("")
    view.get_by_label("features").uncheck()
    assert status.inner_text() == "0 of 2 methods"
    view.get_by_label("features").check()
    view.get_by_label("verified only").check()
    assert status.inner_text() == "2 of 2 methods"


def test_without_a_script_the_page_is_complete_and_offers_nothing_that_does_not_work(browser, board):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(board.as_uri())
    assert page.locator("table.board").count() == 2 and not page.locator("form.filter").is_visible()
    context.close()


@pytest.mark.parametrize("name", ["index.html", "boards", "methods/pixel.html", "data/customconcept101-mini.html"])
def test_no_page_is_wider_than_a_phone(browser, board, name):
    path = board if name == "boards" else board.parent.parent / name
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser, board, scheme):
    """Contrast of WCAG 2.2: at least 4.5 for every text that is seen, in both schemes."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    for path in (board.parent.parent / "index.html", board, board.parent.parent / "methods" / "pixel.html"):
        page.goto(path.as_uri())
        low = page.evaluate(CONTRAST)
        assert low == [], low[:5]
    grounds = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert grounds == {"light": "rgb(251, 250, 248)", "dark": "rgb(20, 23, 27)"}[scheme]
    context.close()


def test_the_accessibility_tree_names_tables_regions_and_pictures(view):
    assert view.get_by_role("table").count() == 4
    assert view.get_by_role("table", name="A small board, un-mixed").count() == 1
    assert view.get_by_role("table", name="un-mixed: as printed, and as on this board").count() == 1
    assert view.get_by_role("region", name="Beside the papers").count() == 1
    assert view.get_by_role("search", name="Filter the tables").count() == 1
    assert view.get_by_role("navigation", name="Pages").count() == 1
    assert view.get_by_role("img", name="recall@5 against seconds per query, un-mixed").count() == 1
    assert view.get_by_role("rowheader", name="pixel").count() >= 2


CONTRAST = """() => {
  const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest("title, desc, .skip")) continue;
    const style = getComputedStyle(node);
    const front = parse(node.closest("svg") ? style.fill : style.color), back = ground(node.closest("svg") || node);
    const [a, b] = [luminance(front), luminance(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push([walker.currentNode.data.trim().slice(0, 30), Math.round(ratio * 100) / 100]);
  }
  return low;
}"""
