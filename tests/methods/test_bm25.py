"""BM25 over captions: the formula by hand, ties, and words that no caption has."""

import math

import numpy as np
import pytest
from attribench.methods.bm25 import Bm25

from attribench.data import Queries, TrainImage

CAPTIONS = ["red cat, red hat", "blue dog", "red dog sleeping near the blue house", "chair", "chair"]


@pytest.fixture
def study(toy):
    return toy.MemoryStudy([toy.train_image(f"{i}.png", caption=caption) for i, caption in enumerate(CAPTIONS)], {})


def scores(method, study, toy, *prompts):
    return method.score(study, {}, Queries([toy.case(f"q{i}", plain=p) for i, p in enumerate(prompts)], None)).values


def test_scores_are_the_formula(study, toy):
    documents = [line.split() for line in ("red cat red hat", "blue dog", "red dog sleeping near blue house", "chair", "chair")]
    k1, b, n = 1.2, 0.5, len(documents)
    mean_length = sum(map(len, documents)) / n
    expected = []
    for document in documents:
        total = 0.0
        for word in ("red", "dog"):
            n_w, f = sum(word in other for other in documents), document.count(word)
            idf = math.log(1 + (n - n_w + 0.5) / (n_w + 0.5))
            total += idf * f / (f + k1 * (1 - b + b * len(document) / mean_length))
        expected.append(total)
    np.testing.assert_allclose(scores(Bm25(k1=k1, b=b), study, toy, "A red dog.")[0], expected, rtol=1e-5)


def test_equal_captions_tie_and_images_without_a_shared_word_score_nothing(study, toy):
    values = scores(Bm25(), study, toy, "photo of a chair", "an elephant", "of the")
    assert values[0, 3] == values[0, 4] > 0 and (values[0, :3] == 0).all()
    assert (values[1:] == 0).all()


def test_all_captions_of_an_image_count(toy):
    images = [
        TrainImage(id="a", prompt="a cat", caption="a cat", concept="", further_prompts=("a pet on a sofa",)),
        TrainImage(id="b", prompt="a dog", caption="a dog", concept="", further_prompts=("a pet outside",)),
    ]
    (values,) = scores(Bm25(), toy.MemoryStudy(images, {}), toy, "sofa")
    assert values[0] > values[1] == 0


def test_stop_words_count_only_if_asked_for(study, toy):
    assert (scores(Bm25(), study, toy, "near the") == scores(Bm25(), study, toy, "near")).all()
    with_them = scores(Bm25(stopwords=False), study, toy, "the")
    assert with_them[0].argmax() == 2 and with_them[0, 2] > 0


def test_captions_without_words_score_nothing(toy):
    study = toy.MemoryStudy([toy.train_image("a", caption=""), toy.train_image("b", caption="!")], {})
    assert (scores(Bm25(), study, toy, "a red cat") == 0).all()
