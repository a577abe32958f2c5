"""Checks that hold two trials of a method against each other: the same scores, whatever ought not to matter."""

from __future__ import annotations

import numpy as np

from attribench.conformance.apart import run_apart
from attribench.conformance.subject import Subject
from attribench.conformance.trial import METHOD_SEED
from attribench.conformance.verdict import Exempt, Failed
from attribench.statistics.agreement import SAME_RANKS, rank_agreement

TOLERANCE = 1e-5
"""Of the largest score: what another order of summation may change."""
ADVICE = "draw random numbers from study.seed alone (attribench.diffusion.noise)"


def determinism(subject: Subject) -> str:
    """Fitted and scored twice, each time in a fresh folder, it gives the same scores, bit for bit."""
    subject.require_scores()
    if not subject.repeats:
        off = _difference(subject.values(subject.fitted()), subject.expected)
        raise Failed(f"a second fit in a fresh folder gave other scores (off by {off:.1e} of the largest); {ADVICE}")
    return "a second fit in a fresh folder gave the same scores, bit for bit"


def learning(subject: Subject) -> str:
    """What it learns and draws counts: it ranks otherwise than untrained (where it names what it is before it learns), and,
    if it says that it is stochastic, otherwise with another seed. Otherwise is a mean Spearman correlation below .999."""
    expected, method = subject.expected, subject.method
    subject.require_repeats()
    said = []
    if (untrained := method.untrained()) is not None:
        alike = rank_agreement(subject.values(subject.fitted(untrained)), expected)
        if alike >= SAME_RANKS:
            raise Failed(f"it ranks as it does untrained (Spearman {alike:.4f}): what it learns changes nothing; train it longer")
        said.append(f"Spearman {alike:.3f} with itself untrained")
    if method.stochastic:
        alike = rank_agreement(subject.values(subject.fitted(seed=METHOD_SEED + 1)), expected)
        if alike >= SAME_RANKS:
            raise Failed(
                f"two seeds rank alike (Spearman {alike:.4f}), and it says that it is stochastic; let what it draws or learns "
                "count, or leave `stochastic` out"
            )
        said.append(f"{alike:.3f} with another seed")
    return ", ".join(said) or "it neither learns nor draws random numbers"


def batches(subject: Subject) -> str:
    """The score of a query does not depend on which others are asked for with it, nor on their order: one by one, all
    together and reversed they agree to 1e-5 of the largest score. A control may look at the other queries."""
    expected, cases = subject.expected, subject.stage.queries
    subject.require_repeats()
    alone = np.concatenate([subject.values(subject.straight, [case]) for case in cases], axis=1)
    reversed_ = subject.values(subject.straight, cases[::-1])[:, ::-1]
    for found, how in ((alone, "one by one"), (reversed_, "in reversed order")):
        off = _difference(found, expected)
        if off > TOLERANCE:
            told = f"queries scored {how} get other scores than all together (off by {off:.1e} of the largest)"
            if subject.method.control:
                raise Exempt(f"exempt: a control may look at the other queries; {told}")
            raise Failed(f"{told}; score each query by itself, with noise of its own")
    return f"{len(cases)} queries one by one, together and reversed: the same scores"


def permutation(subject: Subject) -> str:
    """With the training images in another order it gives the same scores in that order. A method that watches training
    sees the very same training with its images renumbered."""
    expected, order = subject.expected, subject.world.order
    subject.require_repeats()
    found = subject.values(subject.fitted(order=order))
    off = _difference(found, expected[:, :, list(order)])
    if off > TOLERANCE:
        raise Failed(
            f"with the training images in another order the scores are not those of before in that order (off by {off:.1e} "
            "of the largest); let nothing depend on an image's row: draw by its id, or sort by ids first"
        )
    return f"{len(order)} training images in another order: the same scores in that order"


def resume(subject: Subject) -> str:
    """A fit that is killed (SIGKILL at about half of its time, and again as it opens its first file for writing) and called
    again in the same folder leads to the scores of a fit that was not."""
    expected = subject.expected
    subject.require_repeats()
    whole = subject.apart
    if not subject.straight.kept:
        return "it keeps nothing, so there is nothing to go on from"
    trial = subject.trial()
    first = run_apart(trial, kill_after=whole.fit_seconds / 2)
    run_apart(trial, dies_at=1)
    trial.fit()
    off = _difference(subject.values(trial), expected)
    if off > TOLERANCE:
        raise Failed(
            f"killed and called again it gave other scores (off by {off:.1e} of the largest); take nothing in the state for "
            "whole that a kill can leave half-written"
        )
    halfway = "as it ended" if first is not None else f"after {whole.fit_seconds / 2:.2g} s"
    return f"killed {halfway} and as it opened its first file, then called again: the same scores"


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of two arrays [candidates, n_query, n_train], as part of a candidate's largest score."""
    if found.shape != expected.shape:
        return float("inf")
    scale = np.abs(expected).max(axis=(1, 2))
    off = np.abs(found.astype(np.float64) - expected).max(axis=(1, 2))
    return float(np.divide(off, scale, out=np.where(off > 0, np.inf, 0.0), where=scale > 0).max())
