"""Boxes meet the queries that there are, and enter what scores them but not what generates them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from attribench.methods.grad_cos import GradCos

from attribench.attribution.method_run import MethodRun
from attribench.data import Queries
from attribench.data.region import Region
from attribench.errors import UsageError
from attribench.run.regions import QueryRegion, restrict
from attribench.study.study_steps import StudySteps


def test_one_box_is_every_querys_and_a_named_one_only_its_own(plan):
    (everywhere,) = restrict([plan], "0,0,16,32", (), 32)
    assert dict(everywhere.regions) == {case.id: Region(0, 0, 16, 32) for case in plan.cases}
    query = plan.roles("query")[0].id
    (named,) = restrict([plan], None, [QueryRegion(query=query, region="8,0,8,8")], 32)
    assert named.regions_of("query") == {query: Region(8, 0, 8, 8)} and named.regions_of("fit") == {}
    assert Queries(plan.roles("query"), None, dict(named.regions)).regions[:2] == (Region(8, 0, 8, 8), None)


def test_a_box_is_part_of_what_scores_are_and_of_nothing_else(plan, bindings):
    method = GradCos(timesteps=2, projection_dim=64)
    boxes = [restrict([plan], box, (), 32)[0] for box in ("0,0,16,32", "0,0,32,16")]
    plain, left, top = (StudySteps.of(of, [method], bindings) for of in (plan, *boxes))
    assert plain.trainings == left.trainings and plain.pictures == left.pictures
    runs = [MethodRun.of(study, method, 0) for study in (plain, left, top)]
    assert len({run.fit for run in runs}) == 1 and len({run.features for run in runs}) == 1
    assert len({run.score for run in runs}) == 3 and len({run.query_features for run in runs}) == 3


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"query": "ID", "region": "20,0,16,32"}, "20,0,16,32 reaches beyond the picture of 32 × 32 pixels.*the query"),
        ({"query": "IDx", "region": "0,0,8,8"}, "no study has a query .* did you mean 'un-mixed/.*per_query.parquet"),
        ({"query": "ID", "region": "0,0,8,8", "study": "custom"}, "no study is called 'custom'"),
        ({"query": "zzz", "region": "0,0,8,8", "study": "STUDY"}, "STUDY has no query 'zzz'"),
        ({"query": "ID", "region": "1;2", "study": "STUDY"}, "is not x,y,w,h"),
    ],
)
def test_a_box_that_cannot_be_is_told_before_anything_is_trained(plan, entry, said):
    query = next(case.id for case in plan.roles("query") if case.variant == "un-mixed")
    names = {"ID": query, "IDx": query + "x", "STUDY": plan.id}
    with pytest.raises(UsageError, match=said.replace("STUDY", plan.id)) as error:
        restrict([plan], None, [QueryRegion(**{key: names.get(value, value) for key, value in entry.items()})], 32)
    assert "\n" not in str(error.value)


def test_a_query_has_one_box(plan):
    query = plan.roles("query")[0].id
    twice = [QueryRegion(query=query, region="0,0,8,8"), QueryRegion(query=query, region="0,0,8,8", study=plan.id)]
    with pytest.raises(UsageError, match="two regions"):
        restrict([plan, replace(plan, id="other")], None, twice, None)
