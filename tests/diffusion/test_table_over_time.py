"""Copies of the attribution table along a real training."""

import numpy as np
import pytest

from attribench.data import TrainImage
from attribench.diffusion.config import CustomizationConfig
from attribench.diffusion.customization import customize
from attribench.diffusion.monitor import ValueMonitor
from attribench.diffusion.table_over_time import TableOverTime

MONITOR = ValueMonitor(prompts=("a <new1> cat", "art of a cat"))


def grown(model, pictures, moments: int, epochs: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The copies, and the table of a monitor that watched the same training."""
    images = tuple(TrainImage(id=i, prompt="photo of a <new1> cat", caption="", concept="cat") for i in sorted(pictures)[:4])
    config = CustomizationConfig(epochs=epochs, batch_size=2, learning_rate=1e-3, augmentation="none")
    watches = [o.start(model, len(images), config.steps(4)) for o in (TableOverTime(monitor=MONITOR, moments=moments), MONITOR)]
    customize(model, images, pictures.__getitem__, config, seed=0, watches=watches)
    copies, table = (watch.finish() for watch in watches)
    return copies["tables"], table["table"]


@pytest.mark.parametrize("moments", [1, 3, 4])
def test_the_last_copy_is_the_whole_table_and_entries_never_fall(small_model, pictures, moments):
    copies, table = grown(small_model, pictures, moments)
    assert copies.shape == (moments, 4, 2)
    np.testing.assert_array_equal(copies[-1], table)
    assert (np.diff(copies, axis=0) >= 0).all()


def test_copies_are_taken_while_the_table_grows(small_model, pictures):
    copies, _ = grown(small_model, pictures, 3)
    assert 0 < copies[0].sum() < copies[1].sum() < copies[2].sum()


def test_more_moments_than_steps_repeat_the_table_that_there_is(small_model, pictures):
    copies, table = grown(small_model, pictures, 5, epochs=1)
    assert len(copies) == 5
    assert copies[0].sum() == 0
    np.testing.assert_array_equal(copies[-1], table)
