"""Intervals over subsets and queries cover, come out the same each time, and are paired between methods."""

from __future__ import annotations

import numpy as np
import pytest
from attribench.metrics.lds import Lds, subset_scores

from attribench.measurement import Retrained, Truth
from attribench.statistics.two_way import TwoWay, compare_redrawn, estimate_redrawn

M, N, Q = 24, 10, 6


def study(random: np.random.Generator, between: float) -> tuple[Truth, np.ndarray]:
    """A truth of additive effects, and scores that are right but for an error whose size varies `between` studies."""
    masks = np.array([random.permutation(N) < N // 2 for _ in range(M)])
    effects = random.normal(size=(Q, N))
    losses = -subset_scores(effects, masks)[:, :, None] + 2.0 * random.normal(size=(Q, M, 2))
    known = Retrained(masks, (0, 1), losses, np.zeros(Q), own_seed=0)
    scores = effects + np.exp(between * random.normal()) * random.normal(size=effects.shape)
    return Truth(tuple(map(str, range(Q))), tuple(map(str, range(N))), retrained=known), scores


def interval(studies: list[tuple[Truth, np.ndarray]], resamples: int, seed: int = 0):
    two_way = TwoWay(resamples=resamples, seed=seed)
    values = []
    for number, (truth, scores) in enumerate(studies):
        two_way.add("method", f"study {number}", Lds(), truth, scores)
        values.append(Lds().values(scores, truth))
    means = two_way.means()["method"]
    return estimate_redrawn(float(np.mean(values)), means, Q * len(studies), len(studies))


@pytest.mark.parametrize(("n_studies", "between"), [(1, 0.0), (2, 0.0), (4, 0.0), (4, 1.0)])
def test_the_interval_covers(n_studies, between):
    """Of what the same studies, or other ones, give on the average. Over one study and over several alike."""
    random = np.random.default_rng(0)
    expected = np.mean([Lds().values(scores, truth).mean() for truth, scores in (study(random, between) for _ in range(1500))])
    found = [interval([study(random, between) for _ in range(n_studies)], 200) for _ in range(100)]
    covered = np.mean([one.low <= expected <= one.high for one in found])
    assert covered >= 0.88


def test_draws_are_seeded_and_paired():
    random = np.random.default_rng(1)
    studies = [study(random, 0.0) for _ in range(3)]
    assert interval(studies, 300, seed=4) == interval(studies, 300, seed=4)
    assert interval(studies, 300, seed=4) != interval(studies, 300, seed=5)
    two_way = TwoWay(resamples=300)
    for number, (truth, scores) in enumerate(studies):
        two_way.add("one", str(number), Lds(), truth, scores)
        two_way.add("twin", str(number), Lds(), truth, 2 * scores + 1)
        two_way.add("negative", str(number), Lds(), truth, -scores)
    means = two_way.means()
    np.testing.assert_array_equal(means["one"], means["twin"])
    np.testing.assert_allclose(means["one"], -means["negative"])
    value = {"one": 0.5, "twin": 0.5, "negative": -0.5}
    same, apart, _ = compare_redrawn(value, means, 3)
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert apart.low > 0
    assert np.isnan(compare_redrawn(value, means, 1)[1].low)  # over one study nothing is ranked


def test_seeds_of_a_method_are_averaged_over():
    random = np.random.default_rng(2)
    truth, scores = study(random, 0.0)
    two_way = TwoWay(resamples=50)
    two_way.add("seeds", "a", Lds(), truth, scores)
    two_way.add("seeds", "a", Lds(), truth, -scores)
    np.testing.assert_allclose(two_way.means()["seeds"], 0, atol=1e-12)


def test_blocks_do_not_change_the_result(monkeypatch):
    from attribench.statistics import two_way

    studies = [study(np.random.default_rng(3), 0.0)]
    whole = interval(studies, 100)
    monkeypatch.setattr(two_way, "AT_ONCE", 7 * Q * M)
    assert interval(studies, 100) == whole
