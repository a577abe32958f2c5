"""The editions that ship are whole, and are read by the adapters of the paper editions."""

import csv
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from attribench.datasets.customconcept101 import CustomConcept101

from attribench import editions

OF_CONCEPTS = ("artchive", "customconcept101")
ALL = (*OF_CONCEPTS, "mscoco")
FOLDER = Path(str(files("attribench") / "assets" / "editions"))


@pytest.fixture(scope="module", params=OF_CONCEPTS)
def mini(request):
    return editions.open_dataset(request.param)


@pytest.mark.parametrize("name", ALL)
def test_it_has_no_fault(name):
    mini = editions.open_dataset(name)
    assert [str(problem) for problem in mini.verify()] == []


@pytest.mark.parametrize("name", ALL)
def test_its_card_and_notice_name_every_licence(name):
    root = FOLDER / name
    assert (root / "CARD.md").read_text().startswith("# ") and (root / "NOTICE").read_text().startswith("NOTICE for")
    with (root / "images.csv").open(newline="", encoding="utf-8") as file:
        licences = {row["licence"] for row in csv.DictReader(file)}
    assert licences == {path.stem for path in (root / "LICENSES").iterdir()}


def test_all_editions_together_are_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 12_000_000


def test_both_splits_hold_concepts_for_customizations_of_five(mini):
    splits = Counter(concept.split for concept in mini.concepts)
    assert splits["dev"] >= 5 and splits["test"] >= 10


def test_every_picture_has_a_caption_of_its_own_edition(mini):
    captions = {image.caption for concept in mini.concepts for image in mini.images(concept.name)}
    assert all(caption and caption == caption.strip() for caption in captions)
    assert mini.default_caption not in captions


def test_every_concept_has_a_plain_name_and_a_prompt_for_its_modifier(mini):
    for concept in mini.concepts:
        assert concept.class_word and "_" not in concept.class_word
        assert concept.prompt.format(modifier="<new1>").count("<new1>") == 1
        assert concept.phrase.format(modifier="<new1>").startswith("<new1> ")


def test_pictures_are_small_and_square(mini):
    for concept in mini.concepts[::10]:
        picture = mini.load(mini.images(concept.name)[0].id)
        assert picture.size == (64, 64) and np.asarray(picture).std() > 5


def test_customconcept101_counts():
    mini = editions.open_dataset("customconcept101")
    assert isinstance(mini, CustomConcept101)
    assert len(mini.concepts) == 101
    assert {len(mini.images(concept.name)) for concept in mini.concepts} == {8}
    assert {len(mini.prompts(concept.name)) for concept in mini.concepts} == {20}
    assert {len(composition.templates) for composition in mini.compositions()} == {12}
