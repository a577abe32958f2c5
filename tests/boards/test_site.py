"""The built pages: complete without a script or a network, and nothing that a stranger wrote runs in them."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribench.boards import tables
from attribench.boards.adding import add, entries_of
from attribench.boards.board import Leaderboards
from attribench.boards.pictures import image_ids_of
from attribench.boards.plot import front, points_of
from attribench.boards.site import build_site
from attribench.boards.standings import Standings
from attribench.editions import open_dataset
from attribench.errors import UsageError
from attribench.submissions import container
from attribench.submissions.parsing import parquet_bytes

ATTACK = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


class Page(HTMLParser):
    """What a page holds: tags with attributes, ids, links, and text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.tags, self.text = path, [], ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def site(filled: Leaderboards, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site") / "site"
    build_site(filled, target)
    return target


@pytest.fixture(scope="module")
def pages(site: Path) -> list[Page]:
    return [Page(path) for path in sorted(site.rglob("*.html"))]


def test_there_is_a_page_for_each_board_method_and_data_set(site):
    names = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    board = "customconcept101-mini.between-concepts.v1"
    methods = {f"methods/{name}.html" for name in ("pixel", "random", "constant", "shuffled-queries", "training-loss")}
    assert names == {"index.html", f"boards/{board}.html", "data/customconcept101-mini.html", *methods}
    assert {path.suffix for path in (site / "tables").iterdir()} == {".md", ".csv", ".tex"}


def test_every_link_and_picture_is_a_file_of_the_site_or_an_address(pages, site):
    for page in pages:
        ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
        for tag, name in (("a", "href"), ("link", "href"), ("img", "src"), ("script", "src")):
            for attrs in page.of(tag):
                parts = urlsplit(attrs[name])
                if parts.scheme:
                    assert tag == "a" and parts.scheme in ("http", "https") and "noopener" in attrs["rel"]
                elif parts.path:
                    target = (page.path.parent / unquote(parts.path)).resolve()
                    assert target.is_file() and target.is_relative_to(site.resolve()), attrs
                else:
                    assert parts.fragment in ids


def test_pages_let_nothing_run_or_load_but_the_sites_own_files(pages):
    for page in pages:
        (policy,) = [m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy
        assert page.of("style") == [] and all("src" in attrs for attrs in page.of("script"))
        for _, attrs in page.tags:
            assert not any(name.startswith("on") or name == "style" for name in attrs)


def test_tables_have_captions_and_headings_and_pictures_say_what_they_show(pages):
    for page in pages:
        assert len(page.of("table")) == len(page.of("caption"))
        assert all(attrs.get("scope") in ("col", "row") for attrs in page.of("th"))
        assert all("alt" in attrs for attrs in page.of("img"))
        assert [attrs["lang"] for attrs in page.of("html")] == ["en"] and len(page.of("h1")) == len(page.of("main")) == 1


def test_the_same_boards_give_the_same_bytes(filled, site, tmp_path):
    build_site(filled, tmp_path / "again")
    first, second = (
        {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (site, tmp_path / "again")
    )
    assert first == second


def test_a_folder_with_other_files_is_left_alone(filled, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    with pytest.raises(UsageError, match="no built site"):
        build_site(filled, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_site_of_no_board_is_a_page_that_says_so(tmp_path):
    build_site(Leaderboards(tmp_path / "none"), tmp_path / "site")
    assert "There is no board yet" in (tmp_path / "site" / "index.html").read_text()


@pytest.fixture(scope="module")
def attacked(files, experiment, tmp_path_factory) -> Leaderboards:
    """A board with a submission whose texts are all an attack."""
    with zipfile.ZipFile(io.BytesIO(files[1].read_bytes())) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != container.SUMS}
    statement = json.loads(members[container.STATEMENT])
    statement["submitter"] = ATTACK
    statement["machine"] = {ATTACK: ATTACK}
    method = next(m for m in statement["methods"] if m["name"] == "pixel")
    method |= {"plugin": ATTACK, "summary": ATTACK, "params": {"encoder": ATTACK, "=cmd()": "{{ 7 * 7 }}"}}
    table = pq.read_table(pa.BufferReader(members[container.RECORD]))
    columns = table.to_pydict()
    for i, name in enumerate(columns["method"]):
        if name == "pixel":
            columns["plugin"][i], columns["params"][i] = ATTACK, json.dumps(method["params"])
    members[container.STATEMENT] = json.dumps(statement).encode()
    members[container.RECORD] = parquet_bytes(pa.Table.from_pydict(columns, schema=table.schema))
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "attack.submission.zip").write_bytes(container.pack(members))
    found = Leaderboards(folder / "leaderboards")
    found.define(experiment, "A small board")
    add(folder / "attack.submission.zip", found)
    build_site(found, folder / "leaderboards" / "site")
    return found


def test_what_a_stranger_wrote_is_text_wherever_it_is_shown(attacked):
    site = attacked.root / "site"
    shown = 0
    for path in site.rglob("*.html"):
        page = Page(path)
        shown += page.text.count("<script>alert(1)</script>")
        assert all(attrs.get("src", "").endswith("board.js") for attrs in page.of("script"))
        assert not any(attrs.get("src") == "x" for attrs in page.of("img"))
    assert shown >= 4


def test_tables_of_other_formats_escape_it_too(attacked):
    folder = attacked.root / "site" / "tables"
    markdown, latex = (next(folder.glob(f"*.{suffix}")).read_text() for suffix in ("md", "tex"))
    assert "<script" not in markdown and "&lt;script&gt;" in markdown
    assert "<script" not in latex and r"\textless{}script\textgreater{}" in latex
    rows = list(csv.DictReader(io.StringIO(next(folder.glob("*.csv")).read_text())))
    assert any(row["plugin"] == ATTACK for row in rows)
    assert tables.csv_text("=cmd()") == "'=cmd()"
    assert tables.markdown_text("a|b\n[x](y)") == r"a\|b \[x\](y)"
    assert tables.latex_text(r"50% & \x_1") == r"50\% \& \textbackslash{}x\_1"


def test_the_tables_hold_the_numbers_of_the_page(filled, site):
    (board,) = filled.boards
    standings = Standings.of(board, entries_of(board, filled))
    rows = list(csv.DictReader(io.StringIO(next((site / "tables").glob("*.csv")).read_text())))
    page = Page(site / "boards" / f"{board.name}.html").text
    by_key = {(r["method"], r["params"], r["variant"], r["metric"]): r for r in rows}
    assert len(by_key) == len(rows) == sum(len(line.numbers) for line in standings.lines)
    for row in rows:
        assert f"{float(row['value']):.3f}" in page
    markdown = next((site / "tables").glob("*.md")).read_text()
    for variant in standings.variants:
        for line in variant.lines:
            row = line.numbers[variant.name, variant.metrics[0]].row
            assert rf"{row.value:.3f} \[{row.low:.3f}, {row.high:.3f}\]" in markdown


def test_the_front_of_the_plot_holds_what_nothing_beats_at_its_price(filled):
    (board,) = filled.boards
    variant = Standings.of(board, entries_of(board, filled)).variants[0]
    points = points_of(variant)
    best = front(points)
    for point in points:
        others = [other for other in points if other is not point]
        beaten = any(other.cost <= point.cost and other.value >= point.value for other in others)
        assert point in best or beaten
    assert all(a.cost <= b.cost and a.value < b.value for a, b in zip(best, best[1:], strict=False))


def test_no_page_names_a_place_of_this_machine(site):
    for path in site.rglob("*.html"):
        assert not re.search(r"/(home|root|tmp|work)/", path.read_text())


@pytest.mark.parametrize("name", ["artchive", "customconcept101", "gendata", "mscoco"])
def test_the_pictures_of_every_kind_of_data_set_can_be_shown(name):
    dataset = open_dataset(name)
    ids = image_ids_of(dataset)
    assert len(ids) == len(set(ids)) > 100
    assert {dataset.load(image_id).mode for image_id in (ids[0], ids[-1])} == {"RGB"}
