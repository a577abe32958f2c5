"""The page of a run: everything is in the file, everything a stranger wrote is escaped, and it says what was run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from attribench.editions import open_dataset
from attribench.report.figures.top_five import Shown
from attribench.report.page import REPORT, write_report

HOSTILE = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page_of(tmp_path: Path):
    def write(rows, **more) -> Page:
        (tmp_path / "run.toml").write_text('dataset = "artchive"\n')
        Image.new("RGB", (40, 30), "white").save(tmp_path / "intervals.png")
        colours = ["red", "green", "blue", "white", "black", "grey"]
        found = [(Image.new("RGB", (64, 64), colour), colour == "green") for colour in colours]
        queries = [
            Shown(
                prompt=f"a cat {HOSTILE}",
                picture=Image.new("RGB", (700, 500)),
                title="cat",
                marks="shows a concept of the prompt",
                top={"montrage": found},
            )
        ]
        given = {"dataset": open_dataset("artchive"), "queries": queries, "plots": {"intervals.png": "intervals", "none.png": ""},
                 "preset": {"n_concepts": 5, "k": {"mixed": 10}}, "environment": {"torch": "2.11"}}  # fmt: skip
        write_report(tmp_path, rows, **(given | more))
        return Page((tmp_path / REPORT).read_text(encoding="utf-8"))

    return write


def test_the_page_holds_every_number_with_its_interval_and_rank(page_of, rows):
    page = page_of(rows)
    text = " ".join(page.text.split())
    for row in rows:
        if row.low is not None:
            assert f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" in text
    assert "rank 1" in text and "chance" in text and "best possible" in text
    assert "no weights of ViT-B-32 [openai] in the cache" in text  # why a method has no numbers
    assert "mini edition" in text and "run.toml" in text and "torch" in text and 'dataset = "artchive"' in text


def test_published_numbers_stand_under_their_own_heading(page_of, rows):
    before, _, after = page_of(rows).text.partition("Published numbers")
    assert "0.442" in after and "0.442" not in before and "contradicts itself as printed" in after


def test_it_loads_nothing_and_runs_nothing(page_of, rows):
    page = page_of(rows)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "form")]
    addresses = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert addresses and all(address.startswith("data:image/") for address in addresses)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'") and "script-src" not in policy


def test_what_strangers_wrote_is_text(page_of, rows):
    hostile = [rows[0].model_copy(update={"method": HOSTILE, "params": {HOSTILE: HOSTILE}, "plugin": HOSTILE}), *rows[1:]]
    page = page_of(hostile, preset={HOSTILE: HOSTILE}, environment={HOSTILE: HOSTILE}, failure=HOSTILE)
    assert page.text.count('alert("x")') >= 7
    assert "script" not in {tag for tag, _ in page.tags}


def test_pictures_say_what_they_show_and_are_small(page_of, rows):
    page = page_of(rows)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all(image["alt"] for image in images)
    assert [image["alt"] for image in images].count("shows a concept of the prompt") == 1
    assert len(images) == 1 + 5 + 1  # the generated one, the best five, the one plot that is there
    assert all(len(image["src"]) < 20_000 for image in images)


def test_tables_have_headers_for_a_screen_reader(page_of, rows):
    page = page_of(rows)
    scopes = [attributes.get("scope") for tag, attributes in page.tags if tag == "th"]
    assert scopes and set(scopes) == {"row", "col"}
    assert sum(tag == "caption" for tag, _ in page.tags) >= 2
    assert re.search(r"prefers-color-scheme: dark", page.text)


def test_a_run_without_methods_has_a_page_too(page_of):
    assert "no method was run" in page_of([], queries=[]).text
