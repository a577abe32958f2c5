"""Intervals, differences and ranks against cases whose answer is known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from attribench.statistics.intervals import bootstrap, compare, estimate, most_coverage, ranks
from attribench.statistics.summary import summary


def clustered(rng, n_studies: int, n_queries: int, mean=0.0, study_sd=0.1, query_sd=0.2):
    """Values [n_query] with a common shift per study, and the study of each."""
    values = mean + rng.normal(0, study_sd, (n_studies, 1)) + rng.normal(0, query_sd, (n_studies, n_queries))
    return values.ravel(), np.arange(n_studies).repeat(n_queries)


def test_the_interval_is_the_clustered_standard_error_wide_when_studies_are_many():
    values, studies = clustered(np.random.default_rng(0), 80, 10)
    found = estimate(values, studies, seed=1)
    study_means = values.reshape(80, 10).mean(axis=1)
    standard_error = study_means.std(ddof=1) / math.sqrt(80)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.99 * standard_error, rel=0.08)


def test_studies_with_more_queries_weigh_more():
    values = np.array([0.0] * 30 + [1.0] * 10)
    found = estimate(values, ["a"] * 30 + ["b"] * 10)
    assert (found.value, found.low, found.high) == (0.25, 0.0, 1.0)


@pytest.mark.parametrize(("n_studies", "at_least"), [(4, 0.82), (12, 0.91)])
def test_intervals_cover_the_truth(n_studies, at_least):
    rng, inside = np.random.default_rng(2), 0
    for repeat in range(200):
        values, studies = clustered(rng, n_studies, 8, mean=0.5)
        found = estimate(values, studies, resamples=400, seed=repeat)
        inside += found.low <= 0.5 <= found.high
    assert at_least <= inside / 200 <= 0.99


def test_one_study_has_a_value_but_no_interval():
    found = estimate([0.1, 0.3], ["s", "s"])
    assert found.value == pytest.approx(0.2)
    assert math.isnan(found.low) and math.isnan(found.high) and not found.has_interval


def test_an_undefined_query_is_left_out():
    found = estimate([0.2, math.nan, 0.4], ["a", "a", "b"])
    assert found.value == pytest.approx(0.3)
    assert (found.n_queries, found.n_studies) == (2, 2)


def test_no_defined_query_has_no_value():
    found = estimate([math.nan, math.nan], ["a", "b"])
    assert math.isnan(found.value) and (found.n_queries, found.n_studies) == (0, 0)


def test_equal_values_lie_in_their_own_interval():
    found = estimate([0.1] * 21, list("abc") * 7)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(("passed", "n"), [(8, 8), (0, 5), (3, 8)])
def test_a_share_of_studies_has_the_exact_binomial_interval(passed, n):
    found = estimate([1.0] * passed + [0.0] * (n - passed), [f"study {i}" for i in range(n)])
    assert found.value == passed / n
    low = 0.0 if passed == 0 else beta.ppf(0.025, passed, n - passed + 1)  # Clopper and Pearson by the beta distribution
    high = 1.0 if passed == n else beta.ppf(0.975, passed + 1, n - passed)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.low < found.high


def test_values_of_several_queries_a_study_are_no_share_of_studies():
    found = estimate([1.0, 1.0, 1.0, 1.0], ["a", "a", "b", "b"])
    assert (found.low, found.high) == (1.0, 1.0)


def test_shares_are_compared_by_the_studies_that_only_one_method_passed():
    studies = list("abcdefgh")
    methods = {"good": [1.0] * 8, "bad": [0.0] * 8, "twin": [1.0] * 8, "half": [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]}
    p = {(d.first, d.second): d.p for d in compare(methods, studies)}
    assert p["good", "bad"] == pytest.approx(2 * 0.5**8)
    assert p["good", "half"] == pytest.approx(2 * 0.5**4)
    assert p["good", "twin"] == 1.0
    four = compare({"good": [1.0] * 4, "bad": [0.0] * 4}, list("abcd"))
    assert ranks(["good", "bad"], four) == {"good": 1, "bad": 1}  # four coins can all show heads


def test_the_same_seed_gives_the_same_numbers():
    values, studies = clustered(np.random.default_rng(3), 6, 5)
    assert estimate(values, studies, seed=4) == estimate(values, studies, seed=4)


def test_a_constant_gap_is_certain_however_much_the_studies_differ():
    values, studies = clustered(np.random.default_rng(4), 4, 10, study_sd=5.0)
    (found,) = compare({"a": values + 0.01, "b": values}, studies)
    assert found.value == pytest.approx(found.low) == pytest.approx(found.high) == pytest.approx(0.01)
    assert found.p_holm < 1e-6


def test_identical_methods_share_a_rank_and_a_clear_gap_does_not():
    rng = np.random.default_rng(5)
    values, studies = clustered(rng, 6, 20)
    worse = values - 0.5 + rng.normal(0, 0.05, values.size)
    methods = {"twin": values, "worse": worse, "other twin": values.copy()}
    differences = compare(methods, studies)
    assert ranks(methods, differences) == {"twin": 1, "other twin": 1, "worse": 3}
    assert ranks(methods, differences, higher_is_better=False) == {"worse": 1, "twin": 2, "other twin": 2}
    assert next(d for d in differences if {d.first, d.second} == {"twin", "other twin"}).p == 1.0


def test_two_equal_methods_are_told_apart_once_in_twenty():
    rng, apart = np.random.default_rng(6), 0
    for repeat in range(400):
        _, studies = clustered(rng, 4, 6)
        methods = {name: clustered(rng, 4, 6)[0] for name in "ab"}
        apart += set(ranks(methods, compare(methods, studies, resamples=300, seed=repeat)).values()) != {1}
    assert apart / 400 <= 0.075


def test_who_else_entered_does_not_decide_which_of_two_methods_is_better():
    rng = np.random.default_rng(8)
    values, studies = clustered(rng, 4, 6)
    two = {"a": values + 0.2, "b": values + rng.normal(0, 0.15, values.size)}
    many = two | {f"noise {i}": values - 1 + rng.normal(0, 0.5, values.size) for i in range(30)}
    among_two, among_many = (ranks(methods, compare(methods, studies)) for methods in (two, many))
    assert among_two == {"a": 1, "b": 2} == {name: among_many[name] for name in "ab"}
    assert next(d for d in compare(many, studies) if (d.first, d.second) == ("a", "b")).p_holm > 0.05


def test_rank_counts_the_methods_that_are_told_apart_as_better_even_without_transitivity():
    steps = np.tile([0.0, 0.02, -0.02, 0.01, -0.01, 0.0], 4)
    studies = np.arange(4).repeat(6)
    wobble = np.array([-0.3, 0.2, 0.35, -0.15]).repeat(6)
    methods = {"a": steps + 0.4, "b": steps + 0.2 + wobble, "c": steps}
    assert ranks(methods, compare(methods, studies)) == {"a": 1, "b": 1, "c": 2}


def test_over_one_study_no_method_has_a_rank():
    methods = {"a": [0.1, 0.2], "b": [0.5, 0.6]}
    assert ranks(methods, compare(methods, ["s", "s"])) == {"a": None, "b": None}


def test_a_method_alone_is_first():
    assert ranks(["a"], compare({"a": [0.1, 0.2]}, ["s", "t"])) == {"a": 1}


def test_holm_multiplies_the_smallest_by_the_number_of_pairs_and_never_falls():
    rng = np.random.default_rng(7)
    values, studies = clustered(rng, 8, 10)
    methods = {f"m{i}": values + rng.normal(0.03 * i, 0.2, values.size) for i in range(4)}
    found = sorted(compare(methods, studies), key=lambda d: d.p)
    assert found[0].p_holm == pytest.approx(min(1, found[0].p * 6))
    adjusted = [d.p_holm for d in found]
    assert adjusted == sorted(adjusted) and max(adjusted) <= 1
    assert all(d.p_holm >= d.p for d in found)


def test_a_pair_is_compared_on_the_queries_that_both_have_whatever_others_lack():
    values = {"a": [1.0, math.nan, 3.0, 4.0], "b": [0.0, 9.0, math.nan, 3.0]}
    (found,) = compare(values, list("abcd"))
    assert found.value == 1.0
    (again, *_) = compare(values | {"c": [math.nan, math.nan, math.nan, 1.0]}, list("abcd"))
    assert (again.value, again.low, again.high, again.p) == (found.value, found.low, found.high, found.p)


def test_a_method_without_values_has_no_rank_and_takes_none_from_others():
    values = {"a": [1.0, 1.1, 1.2, 0.9], "b": [0.1, 0.2, 0.1, 0.0], "c": [math.nan, math.nan, math.nan, 5.0]}
    assert ranks(values, compare(values, list("abcd"))) == {"a": 1, "b": 2, "c": None}


@pytest.mark.parametrize("n", [3, 4])
def test_over_few_studies_an_interval_covers_no_more_than_it_is_said_to(n):
    """Normal effects of the studies; the share of intervals that hold their centre, 0, of 2,000."""
    values = np.random.default_rng(n).normal(size=(2000, n))
    found = bootstrap(values, np.array([f"s{i}" for i in range(n)]), 500, 0)
    assert ((found.low <= 0) & (found.high >= 0)).mean() == pytest.approx(most_coverage(n), abs=0.02)


def test_summary_averages_over_method_seeds_first(per_query: pd.DataFrame):
    numbers = summary(per_query).set_index(["method", "variant", "metric"])
    assert len(numbers) == 5 * 2 * 4
    row = numbers.loc[("random", "mixed", "recall@10")]
    of_row = per_query.query("method == 'random' and variant == 'mixed' and metric == 'recall@10'")
    assert row["n_queries"] == 80 and row["n_studies"] == 4 and len(of_row) == 160
    assert row["value"] == pytest.approx(of_row["value"].mean())
    assert row["chance"] == pytest.approx(0.125)


def test_summary_ranks_every_metric_and_knows_which_way_is_better(per_query: pd.DataFrame):
    numbers = summary(per_query, lower_is_better=["recall@5"]).set_index(["metric", "method"])
    un_mixed = numbers[numbers["variant"] == "un-mixed"]
    assert un_mixed.loc[("precision@5", "montrage"), "rank"] == 1
    assert un_mixed.loc[("recall@5", "montrage"), "rank"] > 1


def test_a_metric_that_is_nowhere_defined_has_neither_value_nor_rank():
    frame = pd.DataFrame(
        [(m, "", "v", "x", s, "q", 0, math.nan, math.nan, math.nan) for m in "ab" for s in "st"],
        columns=["method", "tuning", "variant", "metric", "study", "query_id", "method_seed", "value", "chance", "ceiling"],
    )
    numbers = summary(frame)
    assert numbers[["value", "low", "high", "chance", "rank"]].isna().all(axis=None)
    assert numbers["n_queries"].tolist() == [0, 0]


def test_default_and_oracle_change_no_rank_and_have_none(per_query: pd.DataFrame):
    best = per_query[per_query["method"] == "montrage"]
    beside = [best.assign(tuning=t, value=best["value"] + shift) for t, shift in (("default", -0.2), ("oracle", 0.2))]
    as_tuned = per_query.assign(tuning=per_query["tuning"].where(per_query["method"] != "montrage", "tuned"))
    alone, found = (summary(frame).set_index(["method", "tuning", "variant", "metric"])
                    for frame in (as_tuned, pd.concat([as_tuned, *beside])))  # fmt: skip
    assert len(found) == len(alone) + 2 * 2 * 4
    pd.testing.assert_frame_equal(found.loc[alone.index], alone)
    untuned = found[found.index.get_level_values("tuning").isin(["default", "oracle"])]
    assert untuned["rank"].isna().all() and untuned["low"].notna().all()
