"""The pictures of a run: whole, small, legible, and blind to what strangers' text might mean."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from PIL import Image

from attribench.data.region import Region
from attribench.report.figures.drawing import GREEN, MAX_BYTES, YELLOW, missing_glyphs_as_boxes
from attribench.report.figures.intervals import interval_plot
from attribench.report.figures.top_five import BLOCK_HEAD, HEAD, MARGIN, PICTURE, Shown, top_five

METHODS = ["montrage", "clip-image (clip-tiny)", "a-stranger's-method-with-a-very-long-name (and-encoder)", "random"]
LONG = "An image of $\\frac{1}{0$ " + "and_so_on_without_a_space" * 20
CAPITALS = "WWWWW MMMMMMMMMMMM " * 10
OTHER_SCRIPT = "日本語のプロンプト\nwith a line break"


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def query(prompt: str, methods=METHODS, images=5) -> Shown:
    top = {method: [(picture(i, (90, 40)), i % 2 == 0) for i in range(images)] for method in methods}
    return Shown(prompt=prompt, picture=picture(9), title="teddy_bear + $cuckoo_clock", marks="shows a concept", top=top)


def drawn(monkeypatch, draw, *args):
    """The figure that a function would save, laid out."""
    figures = []
    monkeypatch.setattr(f"{draw.__module__}.save", lambda figure, path: figures.append(figure))
    draw("unused", *args)
    FigureCanvasAgg(figures[0]).draw()
    return figures[0]


def texts(figure) -> list:
    found = [*figure.texts, *(t for axes in figure.axes for t in [*axes.texts, axes.title, *axes.get_yticklabels()])]
    return [text for text in found if text.get_text()]


def assert_no_overlap(figure) -> None:
    renderer = figure.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other_box), f"{text!r} lies over {other!r}"
    for text, box in boxes:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width + 1 and box.y0 >= 0, f"{text!r} leaves the picture"


@pytest.mark.parametrize("prompts", [["a prompt"], ["a prompt", LONG, CAPITALS, OTHER_SCRIPT]])
@missing_glyphs_as_boxes()
def test_no_text_of_the_top_five_overlaps_or_leaves_the_picture(monkeypatch, prompts):
    assert_no_overlap(drawn(monkeypatch, top_five, [query(prompt) for prompt in prompts]))


def test_no_text_of_the_interval_plot_overlaps_or_leaves_the_picture(monkeypatch, rows):
    assert_no_overlap(drawn(monkeypatch, interval_plot, rows))


def test_own_images_are_framed_in_green_and_counted(monkeypatch):
    figure = drawn(monkeypatch, top_five, [query("a prompt", methods=["m"])])
    green = [patch for patch in figure.axes[0].patches if to_hex(patch.get_edgecolor()) == GREEN]
    assert len(green) == 3 + 1  # and one in the legend
    assert "3/5" in [text.get_text() for text in texts(figure)]


def test_the_attributed_box_is_framed_where_it_lies(monkeypatch):
    """Of a picture twice as wide as high the middle square is shown, and the part of the box that is in it."""
    boxed = replace(query("a prompt", methods=["m"]), picture=picture(9, (128, 64)), region=Region(16, 32, 48, 32))
    figure = drawn(monkeypatch, top_five, [boxed])
    assert_no_overlap(figure)
    yellow = [patch for patch in figure.axes[0].patches if to_hex(patch.get_edgecolor()) == YELLOW]
    assert len(yellow) == 2  # one in the legend
    box = yellow[-1]
    left, top = MARGIN, HEAD + BLOCK_HEAD
    expected = (left, top + PICTURE / 2, PICTURE / 2, PICTURE / 2)
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
def test_dollars_backslashes_and_unknown_scripts_are_drawn_as_they_are(tmp_path, rows):
    top_five(tmp_path / "top.png", [query(prompt) for prompt in ("$x$ $", LONG, OTHER_SCRIPT)])
    strange = [row.model_copy(update={"method": f"{row.method} $\\bad{{$", "variant": "$v$"}) for row in rows]
    interval_plot(tmp_path / "intervals.png", strange)


def test_a_picture_stays_within_a_megabyte(tmp_path):
    path = tmp_path / "top.png"
    top_five(path, [query(f"query {i}", methods=[f"m{j}" for j in range(8)]) for i in range(4)])
    assert path.stat().st_size <= MAX_BYTES
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 500


def test_fewer_training_images_than_five_and_no_queries_are_drawn(tmp_path):
    top_five(tmp_path / "few.png", [query("a prompt", images=2)])
    top_five(tmp_path / "none.png", [])
    assert {path.name for path in tmp_path.iterdir()} == {"few.png", "none.png"}


def test_one_study_is_drawn_without_intervals(monkeypatch, rows):
    single = [r.model_copy(update={"n_studies": 1, "low": None, "high": None, "rank": None}) for r in rows]
    figure = drawn(monkeypatch, interval_plot, single)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "method: value, no interval over one study" in labels


def test_every_metric_of_every_variant_has_a_panel_with_its_chance(monkeypatch, rows):
    figure = drawn(monkeypatch, interval_plot, rows)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["recall@5", "precision@5", "average precision", "spearman with table"] and len(titles) == 8
    assert all(any(line.get_linestyle() == "--" for line in axes.lines) for axes in figure.axes)


def test_a_run_without_any_value_still_has_its_plot(tmp_path, rows):
    interval_plot(tmp_path / "intervals.png", [row for row in rows if row.value is None])
    assert (tmp_path / "intervals.png").is_file()
