"""The code of the pages on adding things is run as it stands there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from attribench import conformance, plugins
from attribench.editions import open_dataset
from attribench.measurement import Truth

QUICK = {"identity", "needs", "shape", "sign", "batches"}
"""The checks that the second method of the page goes through; the first goes through all."""


def plugin(path, kind):
    return next(found for found in plugins.add_file(path) if found.kind == kind).load()


def test_the_method_of_the_page_passes_the_command_of_the_page(files_of, attribench, shipped_world_store):
    files_of("add-a-method.md")
    done = attribench("check", "phash", "--plugin", "phash.py", "--json", "--store", str(shipped_world_store))
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(verdict["check"], verdict["status"]) for verdict in verdicts] == [(c.name, "passed") for c in conformance.CHECKS]


@pytest.fixture(scope="module")
def small_world(paper_folder, small_model_folder, tmp_path_factory) -> conformance.World:
    dataset = open_dataset("customconcept101", "paper", paper_folder)
    return conformance.World.open(tmp_path_factory.mktemp("world"), model=small_model_folder, dataset=dataset)


def test_the_method_that_reads_the_model_conforms(files_of, small_world):
    method = plugin(files_of("add-a-method.md") / "sign_agreement.py", "method")()
    subject = conformance.subject(method, small_world)
    verdicts = [check(subject) for check in conformance.CHECKS if check.name in QUICK]
    assert [str(verdict) for verdict in verdicts if verdict.status != "passed"] == []


@pytest.mark.parametrize("name", ["grad-dot", "grad-cos", "trak"])
def test_its_features_are_those_of_built_in_methods(name, files_of):
    """So that a run with both reads the model once."""
    method = plugin(files_of("add-a-method.md") / "sign_agreement.py", "method")()
    built_in = plugins.find("method", name).load()().resolve("mini")
    assert method.features() == built_in.features()


def test_the_metric_of_the_page_is_what_brute_force_says(files_of):
    metric = plugin(files_of("add-a-metric.md") / "reciprocal_rank.py", "metric")()
    assert plugins.find("metric", "reciprocal_rank").load() is type(metric)
    random = np.random.default_rng(0)
    relevant = random.random((40, 7)) < 0.3
    relevant[0] = False
    truth = Truth(tuple(map(str, range(40))), tuple("abcdefg"), relevant=relevant)
    scores = random.integers(0, 6, (40, 7)).astype(float)
    for row, hits, value in zip(scores, relevant, metric.values(scores, truth), strict=True):
        worst = sorted(range(7), key=lambda i, row=row, hits=hits: (-row[i], hits[i]))  # tied: the relevant ones come last
        first = next((place for place, i in enumerate(worst, start=1) if hits[i]), None)
        assert np.isnan(value) if first is None else value == 1 / first
    orders = [random.permuted(np.tile(np.arange(7.0), (40, 1)), axis=1) for _ in range(4000)]
    drawn = np.mean([metric.values(order, truth) for order in orders], axis=0)
    np.testing.assert_allclose(metric.chance(truth), drawn, atol=0.03)
    assert np.array_equal(metric.values(relevant * 1.0, truth), metric.ceiling(truth), equal_nan=True)
