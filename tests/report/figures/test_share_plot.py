"""The picture of the within-concept protocol: whole, legible, and blind to what strangers' text might mean."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from attribench.measurement.share_curve import area_above, null_of_prompts, share_above
from attribench.report.figures import share_plot as module
from attribench.report.figures.drawing import MAX_BYTES, missing_glyphs_as_boxes
from attribench.report.figures.share_plot import share_plot
from attribench.report.record import Row
from attribench.statistics.summary import summary

SKILL = {"montrage": 0.68, "clip-image": 0.58, "d-trak": 0.74, "random": 0.5, "constant": 0.5, "shuffled-queries": 0.5}
CONTROLS = ("random", "constant", "shuffled-queries")
STUDIES, PROMPTS, PICTURES = 10, 5, 2
METRICS = ["share_above@0.9", "share_above@0.8", "share_above@0.7", "share_above@0.6"]


def values(skill: dict[str, float]) -> pd.DataFrame:
    """Values per query as the metrics give them."""
    random, found = np.random.default_rng(2), []
    for method, right in skill.items():
        for study, seed in itertools.product(range(STUDIES), (4, 16) if method in ("random", "montrage") else (0,)):
            lean = np.clip(right + random.normal(0, 0.12), 0, 1) if method != "constant" else 0.5
            wins = (random.random(PROMPTS * PICTURES) < lean).astype(float) if method != "constant" else np.full(10, 0.5)
            first = {name: float(share_above(wins.mean()[None], [float(name[12:])])[0]) for name in METRICS}
            first["area_above"] = float(area_above(wins.mean()[None]))
            for query, win in enumerate(wins):
                numbers = {"accuracy": win} | {name: value if query == 0 else np.nan for name, value in first.items()}
                for metric, value in numbers.items():
                    found.append((method, "", "monitored", metric, f"s{study}", f"q{query}", seed, value, 0.5, 1.0))
    columns = ["method", "tuning", "variant", "metric", "study", "query_id", "method_seed", "value", "chance", "ceiling"]
    return pd.DataFrame(found, columns=columns)


def rows_of(per_query: pd.DataFrame, **changes: Any) -> list[Row]:
    return [
        Row(
            **number | {"tuning": None, "control": number["method"] in CONTROLS, "params": {}, "plugin": "here"}
            | {"dataset": "customconcept101", "edition": "mini", "protocol": "within-concept", "n_concepts": 1}
            | {"split": "test", "seed": 0, "device": "cpu", "status": "ok"} | changes
        )
        for number in summary(per_query).to_dict("records")
    ]  # fmt: skip


NULL = null_of_prompts([[PICTURES] * PROMPTS] * STUDIES)


@pytest.fixture(scope="module")
def per_query() -> pd.DataFrame:
    return values(SKILL)


def drawn(monkeypatch, rows, per_query):
    figures = []
    monkeypatch.setattr(module, "save", lambda figure, path: figures.append(figure))
    share_plot("unused", rows, per_query, NULL)
    FigureCanvasAgg(figures[0]).draw()
    return figures[0]


def texts(figure) -> list:
    of_axes = [[*a.texts, a.title, a._left_title, a.xaxis.label, *a.get_yticklabels(), *a.get_xticklabels()] for a in figure.axes]
    found = [*figure.artists, *itertools.chain(*of_axes)]
    for legend in figure.legends:
        found += [*legend.get_texts(), legend.get_title()]
    return [text for text in found if hasattr(text, "get_text") and text.get_text()]


def assert_no_overlap(figure) -> None:
    renderer = figure.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other_box), f"{text!r} lies over {other!r}"
    for text, box in boxes:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width + 1, f"{text!r} leaves the picture"
        assert box.y0 >= 0 and box.y1 <= figure.bbox.height + 1, f"{text!r} leaves the picture"


def test_it_is_drawn_whole_and_small(tmp_path, per_query):
    path = tmp_path / "share-above.png"
    share_plot(path, rows_of(per_query), per_query, NULL)
    assert path.stat().st_size <= MAX_BYTES
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 900 and image.height > 600


def test_no_text_overlaps_or_leaves_the_picture(monkeypatch, per_query):
    assert_no_overlap(drawn(monkeypatch, rows_of(per_query), per_query))


def test_fifteen_methods_with_long_names_fit(monkeypatch):
    many = values({f"a-stranger's-method-number-{i} (with-an-encoder-of-a-long-name)": 0.6 for i in range(15)})
    assert_no_overlap(drawn(monkeypatch, rows_of(many), many))


def test_every_eta_has_its_panel_with_a_bar_a_method(monkeypatch, per_query):
    figure = drawn(monkeypatch, rows_of(per_query), per_query)
    assert [axes.get_title() for axes in figure.axes[:4]] == ["η = 0.9", "η = 0.8", "η = 0.7", "η = 0.6"]
    for axes in figure.axes[:4]:
        assert len(axes.texts) == len(SKILL)


def test_the_curve_of_a_method_with_seeds_is_the_mean_of_its_seeds_curves(monkeypatch, per_query):
    figure = drawn(monkeypatch, rows_of(per_query), per_query)
    own = per_query[(per_query["method"] == "montrage") & (per_query["metric"] == "share_above@0.6")]
    at_sixty = own.dropna().groupby("method_seed")["value"].mean().mean()
    curves = [line.get_ydata()[20] for line in figure.axes[4].lines]  # η = 0.6
    assert any(np.isclose(curve, at_sixty) for curve in curves)


@pytest.mark.filterwarnings("error")
@missing_glyphs_as_boxes()
def test_strangers_text_is_drawn_as_it_is(tmp_path):
    strange = values({"$\\bad{{$": 0.7, "日本語": 0.6})
    share_plot(tmp_path / "strange.png", rows_of(strange, dataset="$x$ $"), strange, NULL)


def test_one_study_is_drawn_without_intervals(tmp_path, per_query):
    one = per_query[per_query["study"] == "s0"]
    rows = rows_of(one)
    assert all(row.low is None for row in rows)
    share_plot(tmp_path / "one.png", rows, one, NULL)


def test_a_run_without_any_value_is_drawn(tmp_path):
    share_plot(tmp_path / "none.png", [], values({}), NULL)
    assert (tmp_path / "none.png").is_file()
