"""Published numbers beside a board's: which pairs of methods the two put in the same order is counted as by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attribench.boards.adding import entries_of
from attribench.boards.papers import beside_papers, disagreements, papers_markdown, summary
from attribench.boards.site import build_site
from attribench.boards.standings import Standings
from attribench.report.published import published

VARIANT = "un-mixed"


def of_methods(entry, metric: str, values: dict[str, float | np.ndarray]):
    """The entry as if it had these methods in place of the pixel baseline, each with one value for every query, or these."""
    (pixel,) = (method for method in entry.statement.methods if method.name == "pixel")
    controls = [method for method in entry.statement.methods if method.control]
    methods = [*(pixel.model_copy(update={"name": name, "params": {}}) for name in values), *controls]
    rows = [row.model_copy(update={"metric": metric}) for row in entry.rows if row.control and row.metric == "recall@5"]
    arrays = {key: array for key, array in entry.values.items() if key[0] != "pixel"}
    for name, value in values.items():
        own = np.broadcast_to(value, len(entry.studies[VARIANT])).astype(float)
        number = {"value": own.mean(), "low": own.min(), "high": own.max()}
        changed = {"method": name, "params": {}, "metric": metric, **number}
        rows.append(entry.row("pixel", VARIANT, "recall@5").model_copy(update=changed))
        arrays[name, VARIANT, metric] = own
    arrays |= {(m, VARIANT, metric): array for (m, v, own), array in entry.values.items() if (v, own) == (VARIANT, "recall@5")}
    rows = [row for row in rows if row.variant == VARIANT]
    statement = entry.statement.model_copy(update={"methods": tuple(methods)})
    standing = {(VARIANT, metric): "verified"}
    return replace(entry, statement=statement, rows=tuple(rows), standing=standing, values=arrays, means={}, shown={})


@pytest.fixture
def standings(filled):
    """The board of these methods instead of its own."""
    (board,) = filled.boards
    entry = entries_of(board, filled)[0]

    def of(metric: str, values: dict[str, float | np.ndarray]) -> Standings:
        return Standings.of(board, [of_methods(entry, metric, values)])

    return of


def test_orders_that_differ_from_the_paper_are_told_and_those_that_agree_are_counted(standings):
    """Recall@5 in print: MONTRAGE .747, GenDataAttribution .718, D-TRAK .49. Here the last one is between the two."""
    (beside,) = beside_papers(standings("recall@5", {"montrage": 0.5, "abc": 0.1, "d-trak": 0.3}))
    assert {(pair.printed, pair.agrees) for pair in beside.pairs} == {
        (("MONTRAGE", "GenDataAttribution"), True), (("MONTRAGE", "D-TRAK"), True), (("GenDataAttribution", "D-TRAK"), False),
    }  # fmt: skip
    (told,) = disagreements([beside])
    assert told.beyond_doubt and told.difference.value == pytest.approx(-0.2)
    assert "recall@5, un-mixed: GenDataAttribution before D-TRAK in print (0.718 and 0.49); the other way round here" in told.text
    assert "abc and d-trak (0.100 and 0.300; difference -0.200" in told.text
    assert told.text.endswith("The paper's row contradicts itself as printed.")
    assert summary([beside]) == (
        "Orders of two methods in print: 3. The same here: 2 (2 beyond doubt). The other way round: 1 (1 beyond doubt). "
        "Undecided: 0."
    )


def test_a_difference_within_doubt_is_called_so(standings):
    """The two studies, of fifteen queries each, say the opposite of each other."""
    studies = np.repeat([0.9, 0.1], 15)
    (beside,) = beside_papers(standings("recall@5", {"montrage": studies, "abc": studies[::-1] + 0.01}))
    (told,) = disagreements([beside])
    assert not told.beyond_doubt and "not beyond doubt" in told.text


def test_methods_that_are_not_on_the_board_are_shown_without_a_number_of_ours(standings):
    (beside,) = beside_papers(standings("recall@5", {"montrage": 0.5}))
    rows = {printed: (own, dict(zip(beside.columns, cells, strict=True))) for printed, own, cells in beside.rows}
    assert rows["MONTRAGE"][0] == "montrage" and rows["GenDataAttribution"][0] == "–"
    assert rows["MONTRAGE"][1]["recall@5", "published"] == "0.747"
    assert rows["MONTRAGE"][1]["recall@5", "here"].startswith("0.500")
    assert rows["GenDataAttribution"][1]["recall@5", "here"] == "–" and beside.pairs == ()
    assert summary([beside]) == "No two methods that a paper orders are both verified here."


def test_where_cuts_differ_a_paper_and_a_board_must_each_be_of_one_mind(standings):
    """The paper's order at its cut is held against the board's at another cut of the same metric."""
    (beside,) = beside_papers(standings("recall@3", {"montrage": 0.2, "abc": 0.4}))
    (told,) = disagreements([beside])
    assert (told.printed_metrics, told.metrics) == (("recall@5",), ("recall@3",))
    assert {("recall@5", "published"), ("recall@3", "here")} < set(beside.columns)


def test_every_published_method_names_the_one_that_does_it_here():
    from attribench import plugins

    known = plugins.all_plugins("method")
    for dataset, protocol in (("customconcept101", "between-concepts"), ("mscoco", "leave-k-out")):
        named = set(published(dataset, protocol)["plugin"])
        assert len(named) >= 3 and named <= set(known)


def test_the_page_and_the_markdown_show_published_numbers_as_such(filled, tmp_path):
    build_site(filled, tmp_path / "site")
    page = next((tmp_path / "site" / "boards").glob("*.html")).read_text()
    assert "Published, other data and model" in page and "MONTRAGE (Brokman et al. 2024) supplement table 1" in page
    assert "Where this board and the papers disagree" in page
    markdown = next((tmp_path / "site" / "tables").glob("*.md")).read_text()
    assert "## Beside the papers" in markdown and "| GenDataAttribution | – |" in markdown


def test_the_markdown_lists_what_disagrees(standings):
    text = papers_markdown(standings("recall@5", {"montrage": 0.1, "abc": 0.5}))
    assert "- recall@5, un-mixed: MONTRAGE before GenDataAttribution in print" in text
