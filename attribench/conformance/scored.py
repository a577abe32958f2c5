"""Checks of the scores themselves: that they are there, and that they point the right way."""

from __future__ import annotations

import numpy as np

from attribench.conformance.subject import Subject
from attribench.conformance.verdict import Exempt, Failed
from attribench.data import TrainImage
from attribench.errors import AccessError
from attribench.interface import Scores

ROUNDING = 1e-6
"""Of the largest score: closer ones are tied."""


def shape(subject: Subject) -> str:
    """One finite score for each query and training image, with the ids of both in the order in which they were given;
    for a method with candidates, such a table for each."""
    if subject.fault is not None and not isinstance(subject.fault, AccessError):
        raise Failed(f"it raised {type(subject.fault).__name__}: {subject.fault}")
    found, stage = subject.scores, subject.stage
    wanted = max(len(subject.method.candidates()), 1)
    if len(found) != wanted:
        raise Failed(f"score_candidates returned {len(found)} scores for {wanted} candidates; return one for each, in order")
    query_ids = tuple(case.id for case in stage.queries)
    train_ids = tuple(image.id for image in stage.plan.training.images)
    for scores in found:
        if not isinstance(scores, Scores):
            raise Failed(f"score returned {type(scores).__name__}; return Scores.of(queries, study.train, values)")
        if (scores.query_ids, scores.train_ids) != (query_ids, train_ids):
            raise Failed("the ids of its scores are not those of the queries and images that it was given, in their order")
    tables = f", {wanted} candidates" if wanted > 1 else ""
    return f"{len(query_ids)} queries × {len(train_ids)} training images, all finite{tables}"


def sign(subject: Subject) -> str:
    """Higher = more influential: for a query that is a training image once more (its picture, its prompt, its caption as
    the plain prompt, its latents), that image has the highest score, in more than half of the cases, and one of the upper
    half in each, since learned methods may prefer another now and then. Images tied with it count if they share its prompt
    or its caption, which may be all that the method sees. A flipped sign has it lowest. Controls are exempt."""
    if subject.method.control:
        raise Exempt("exempt: a control knows nothing of the query")
    images = subject.stage.plan.training.images
    n = len(images)
    untuned = subject.method.default_candidate() if subject.method.candidates() else 0
    table = subject.values(subject.straight, subject.stage.planted_queries)[untuned]
    places = [1 + int((table[row] > table[row, row]).sum()) for row in range(n)]
    first = sum(_is_first(table[row], row, images) for row in range(n))
    if first <= n / 2 or max(places) > n / 2:
        worst = int(np.argmax(places))
        raise Failed(
            f"the planted duplicate ranks first for {first} of {n} queries, and {images[worst].id} has place {places[worst]}; "
            "a higher score must mean more influence"
        )
    return f"the planted duplicate ranks first for {first} of {n} queries"


def _is_first(scores: np.ndarray, own: int, images: tuple[TrainImage, ...]) -> bool:
    tied = scores >= scores.max() - ROUNDING * np.abs(scores).max()
    alike = [image.prompt == images[own].prompt or image.caption == images[own].caption for image in images]
    return bool(tied[own]) and all(alike[i] for i in np.flatnonzero(tied))
