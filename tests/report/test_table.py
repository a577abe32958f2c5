"""What a reader of the terminal, or of a pipe, gets to see."""

import io

import pytest
from rich.console import Console

from attribench.report.record import Row
from attribench.report.table import show
from attribench.report.words import by_rank, duration, size


def printed(rows: list[Row], width: int) -> str:
    stream = io.StringIO()
    show(rows, Console(file=stream, width=width))
    return stream.getvalue()


def test_the_first_line_says_what_was_run(rows):
    first = printed(rows, 200).splitlines()[0]
    for part in (
        "artchive, mini edition (64×64 artwork and rendered objects, tiny model): not comparable with the papers",
        "between-concepts, 5 concepts, test split",
        "4 studies",
        "160 queries",
        "cpu",
    ):
        assert part in first


@pytest.mark.parametrize("width", [80, 100, 150, 200])
def test_every_value_is_whole_at_any_width(rows, width):
    text = printed(rows, width)
    assert "…" not in text
    for row in rows:
        if row.value is not None:
            assert f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" in text
    table_lines = [line for line in text.splitlines() if "clip-text (ViT-B-32) unavailable" not in line]
    assert max(map(len, table_lines)) <= width


def test_a_wide_console_gets_one_table_per_variant_and_a_narrow_one_several(rows):
    headers = [printed(rows, width).count("method ") for width in (200, 100)]
    assert headers[0] == 2 and headers[1] > 2


def test_methods_come_by_rank_and_controls_after_them(rows):
    text = printed(rows, 200)
    places = [text.index(f"\n{name} ") for name in ("montrage", "clip-image (clip-tiny)", "pixel", "random", "chance")]
    assert places == sorted(places)
    assert by_rank([r for r in rows if r.variant == "mixed"])[-1] == "clip-text (ViT-B-32)"


def test_a_method_without_numbers_says_why_once(rows):
    text = printed(rows, 100)
    assert "unavailable" in text
    assert text.count("no weights of ViT-B-32 [openai] in the cache; get them, or use clip-tiny") == 1


def test_costs_are_readable(rows):
    text = printed(rows, 200)
    assert all(cost in text for cost in ("5.2 s", "12 ms", "312 MB", "2.0 kB"))


def test_published_numbers_stand_under_their_own_heading(rows):
    heading, _, below = printed(rows, 120).partition("published, other data and model")
    assert "0.442" in below and "0.350 †" in below and "† contradicts itself as printed" in below
    assert "GenDataAttribution" not in heading


def test_on_the_papers_data_the_published_numbers_are_of_other_models_alone(rows):
    text = printed([row.model_copy(update={"edition": "paper"}) for row in rows], 120)
    assert "published, the papers' own models and pictures" in text and "other data" not in text


def test_another_data_set_has_no_published_numbers(rows):
    assert "published" not in printed([row.model_copy(update={"dataset": "mine"}) for row in rows], 120)


def test_one_study_has_values_without_interval_or_rank(rows):
    single = [r.model_copy(update={"n_studies": 1, "low": None, "high": None, "rank": None}) for r in rows]
    text = printed(single, 200)
    assert "One study: no interval and no rank" in text and "value [95 %]" not in text


def test_a_strangers_names_are_shown_and_not_obeyed(rows):
    strange = [rows[0].model_copy(update={"method": "[red]x[/red] \x1b[31m", "reason": None})]
    text = printed(strange, 200)
    assert "[red]x[/red]" in text and "\x1b" not in text


def test_an_empty_record_is_said_to_be_empty():
    assert "no rows" in printed([], 80)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0004, "0.4 ms"), (0.0123, "12 ms"), (5.23, "5.2 s"), (600, "10 min"), (7200, "2.0 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (2048, "2.0 kB"), (312_000_000, "312 MB"), (999_900, "1.0 MB"), (5.1e9, "5.1 GB")],
)
def test_sizes(n_bytes, text):
    assert size(n_bytes) == text
