"""The growing table: recall by hand, and a picture that is whole."""

import numpy as np
import pytest
from PIL import Image

from attribench.report.figures.drawing import MAX_BYTES
from attribench.report.figures.table_plot import GrownTable, recall_at_relevant, recall_over_epochs, table_plot

RELEVANT = np.array([[1, 1, 0, 0]], dtype=bool)


@pytest.mark.parametrize(
    "column, recall",
    [([4, 3, 2, 1], 1.0), ([4, 1, 2, 3], 0.5), ([1, 2, 3, 4], 0.0), ([0, 0, 0, 0], 0.5), ([3, 1, 1, 0], 0.75)],
)
def test_recall_is_over_as_many_images_as_are_relevant_with_ties_in_expectation(column, recall):
    assert recall_at_relevant(np.array([column]), RELEVANT) == pytest.approx(recall)


def study(number: int, size: int, moments: int = 5) -> GrownTable:
    random = np.random.default_rng([number, size])
    relevant = np.repeat(np.eye(3, dtype=bool), 4, axis=1)  # 3 prompts, 3 concepts of 4 images
    step = relevant / size + 0.9 * random.random((moments, *relevant.shape))
    tables = dict(zip((4.0 * (m + 1) for m in range(moments)), np.cumsum(step, axis=0), strict=True))
    return GrownTable(batch_size=size, study=(f"concept {number}", "b", "c"), relevant=relevant, tables=tables)


GROWN = [study(number, size) for number in range(4) for size in (1, 2, 4)]


def test_each_batch_size_has_a_recall_with_its_interval_at_every_moment():
    found = recall_over_epochs(GROWN)
    assert list(found) == [1, 2, 4]
    for by_epoch in found.values():
        assert list(by_epoch) == [4, 8, 12, 16, 20]
        for value in by_epoch.values():
            assert value.n_studies == 4 and value.n_queries == 12 and value.low <= value.value <= value.high


def test_pictures_of_one_prompt_count_once():
    one = study(0, 1)
    doubled = {epoch: np.repeat(table, 2, axis=0) for epoch, table in one.tables.items()}
    twice = GrownTable(1, one.study, np.repeat(one.relevant, 2, axis=0), doubled)
    counted = [[(e.value, e.n_queries) for e in recall_over_epochs([g])[1].values()] for g in (one, twice)]
    assert counted[0] == counted[1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("grown", [GROWN, GROWN[:3], [study(0, 1, moments=1)], []])
def test_it_is_drawn_whole_and_small(tmp_path, grown):
    path = tmp_path / "recall-over-epochs.png"
    table_plot(path, grown)
    assert path.stat().st_size <= MAX_BYTES
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width > 500
