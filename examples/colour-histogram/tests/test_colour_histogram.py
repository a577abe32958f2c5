"""The histogram intersection against its closed form, and against what every method must do."""

import numpy as np
import pytest
from attribench_colour_histogram import ColourHistogram
from PIL import Image

from attribench import conformance


@pytest.fixture(scope="module")
def subject() -> conformance.Subject:
    """The method, as installed, in a small real study."""
    return conformance.subject("colour-histogram")


@pytest.mark.parametrize("check", conformance.CHECKS, ids=str)
def test_it_conforms(check, subject):
    verdict = check(subject)
    assert verdict.ok, verdict.what


def test_a_picture_that_is_half_red_and_half_blue_shares_half_with_a_red_one():
    both = Image.new("RGB", (10, 8), "red")
    both.paste("blue", (5, 0, 10, 8))
    red, mixed = ColourHistogram(bins=4)._histograms([Image.new("RGB", (3, 3), "red"), both])
    assert red.sum() == mixed.sum() == 1
    assert np.minimum(red, mixed).sum() == 0.5
