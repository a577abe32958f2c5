"""Submissions whose truth is in retrained models: what a verifier keeps decides what is verified, and nothing is hidden in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attribench import __version__, plugins
from attribench.attribution.scores import ScoreTable
from attribench.interface import Scores
from attribench.measurement import Retrained, Truth
from attribench.measurement.arrays import arrays_of
from attribench.measurement.ordered_halves import ordered_halves
from attribench.report.record import Row
from attribench.run.experiment import Experiment, plan
from attribench.submissions.container import Refused, pack
from attribench.submissions.numbers import numbers, values
from attribench.submissions.pack import members_of
from attribench.submissions.parsing import safetensors_bytes
from attribench.submissions.statement import FORMAT, Method, Statement, Study
from attribench.submissions.truths import digest_of, merged, read_truth
from attribench.submissions.verify import verify

SMALL = {"images_per_concept": 4, "templates": 2, "fit_pictures": 1, "method_seeds": (4,)}
LDS = {"n_studies": 2, "n_concepts": 2, "n_subsets": 6, "n_dev_subsets": 4, "n_seeds": 2, "query_pictures.un-mixed": 1,
       "query_pictures.mixed": 1}  # fmt: skip
WITHIN = {"max_studies": 2, "pictures": 1, "etas": (0.6,)}


def experiment_of(protocol: str) -> Experiment:
    overrides = SMALL | (LDS if protocol == "lds" else WITHIN)
    return Experiment(
        dataset="customconcept101", edition="mini", protocol=protocol, preset="mini", overrides=overrides, model="sha256:none"
    )


class World:
    """Studies of a protocol with drawn losses, and submissions to it."""

    def __init__(self, protocol: str) -> None:
        self.experiment = experiment_of(protocol)
        self.planned = plan(self.experiment)
        random = np.random.default_rng(0)
        self.scores = {}
        for of in self.planned.plans:
            shape = (len(of.roles("query")), len(of.rows))
            for name in ("mine", "random", "constant"):
                seed = 4 if name == "random" else 0
                drawn = np.zeros(shape) if name == "constant" else random.random(shape)
                self.scores[name, of.id, seed] = drawn.astype(np.float32)
        self.truths = {of.id: self._truth(of, random) for of in self.planned.plans}

    def _truth(self, of, random: np.random.Generator) -> Truth:
        request = next((r for r in self.planned.protocol.retrainings(of) if r.role == "query"), None)
        if request is None:
            own = np.concatenate([own for (_, study, _), own in self.scores.items() if study == of.id])
            masks = np.unique([half for row in own for cut in ordered_halves(row) for half in cut], axis=0)
            seeds = (of.training.seed,)
        else:
            masks = np.zeros((len(request.subsets), len(of.rows)), dtype=bool)
            for mask, rows in zip(masks, request.subsets, strict=True):
                mask[list(rows)] = True
            seeds = request.seeds
        queries = of.roles("query")
        losses = random.random((len(queries), len(masks), len(seeds)))
        known = Retrained(masks, seeds, losses, losses.mean((1, 2)), of.training.seed)
        return Truth(tuple(case.id for case in queries), tuple(image.id for image in of.rows), retrained=known)

    def packed(self, truths: dict[str, Truth] | None = None) -> bytes:
        truths = truths or self.truths
        own = f"{plugins.OURS} {__version__}"
        methods = (
            Method(name="mine", params={}, control=False, plugin="mine 1.0", seeds=(0,)),
            Method(name="random", params={}, control=True, plugin=own, seeds=(4,)),
            Method(name="constant", params={}, control=True, plugin=own, seeds=(0,)),
        )
        found = values(self.planned, methods, self.scores, truths)
        said, origin = self.experiment, {method.name: method for method in methods}
        rows = [
            Row(
                **number | {"tuning": None}, params={}, control=origin[number["method"]].control,
                plugin=origin[number["method"]].plugin, dataset=said.dataset, edition=said.edition, protocol=said.protocol,
                split=said.split, seed=said.seed, device="cpu", status="ok",
            )
            for number in numbers(self.planned, found).to_dict("records")
        ]  # fmt: skip
        statement = Statement(
            format=FORMAT, attribench=__version__, finished="2026-11-22T12:00:00Z", seconds=1.0, experiment=said, methods=methods,
            studies={n: Study(plan=d, truth=digest_of(truths[n])) for n, d in self.planned.digests.items()},
            machine={}, packages={},
        )  # fmt: skip
        return pack(members_of(statement, rows, found.per_query, self.scores, truths))

    def changed(self, change) -> dict[str, Truth]:
        """The truths with other retrained models."""
        return {name: replace(truth, retrained=change(truth.retrained)) for name, truth in self.truths.items()}


@pytest.fixture(scope="module", params=["lds", "within-concept"])
def world(request) -> World:
    return World(request.param)


@pytest.fixture
def verdict(tmp_path, world):
    def run(data: bytes, kept: dict[str, Truth] | None = None):
        path = tmp_path / "a.submission.zip"
        path.write_bytes(data)
        return verify(path, known=[world.experiment], kept=kept)

    return run


def test_numbers_are_verified_by_whoever_keeps_the_same_truth_and_self_reported_elsewhere(world, verdict):
    alone, kept = verdict(world.packed()), verdict(world.packed(), world.truths)
    assert alone.reasons == kept.reasons == []
    every = {(row.variant, row.metric) for row in kept.rows}
    assert kept.verified == every
    needs_no_truth = {(variant, metric) for variant, metric in every if metric == "tied_cuts"}
    assert alone.verified == needs_no_truth


def test_another_loss_makes_it_self_reported(world, verdict):
    other = world.changed(lambda known: replace(known, losses=known.losses + 1e-6))
    found = verdict(world.packed(other), world.truths)
    assert found.reasons == [] and {metric for _, metric in found.verified} <= {"tied_cuts"}


def test_a_truth_that_knows_more_verifies_one_that_knows_less(world, verdict):
    """Halves depend on scores: a board's truth grows with the submissions whose truth it keeps."""
    if world.experiment.protocol == "lds":
        pytest.skip("the subsets of lds are drawn beforehand, and are the same for all")

    def more(known: Retrained) -> Retrained:
        further = np.zeros((1, known.masks.shape[1]), dtype=bool)
        further[0, 0] = True
        losses = np.concatenate([known.losses[:, :1], known.losses], axis=1)
        return replace(known, masks=np.concatenate([further, known.masks]), losses=losses)

    larger = world.changed(more)
    assert verdict(world.packed(), larger).verified == verdict(world.packed(), world.truths).verified
    for name, truth in world.truths.items():
        both = merged(larger[name], truth).retrained
        assert len(both.masks) == len(truth.retrained.masks) + 1 and np.array_equal(both.losses, larger[name].retrained.losses)


def test_queries_that_are_left_out_of_the_truth_are_missed(world, verdict):
    """Saying that nobody looked where the method was wrong gives better numbers, but not verified ones."""

    def forgetful(known: Retrained) -> Retrained:
        losses = known.losses.copy()
        losses[0] = np.nan
        return replace(known, losses=losses)

    found = verdict(world.packed(world.changed(forgetful)), world.truths)
    if world.experiment.protocol == "lds":
        assert "lacks losses that lds asks for" in found.reasons[0]
    else:
        assert found.reasons == [] and {metric for _, metric in found.verified} == {"tied_cuts"}


def test_subsets_seeds_and_models_are_those_of_the_protocol(world, verdict):
    def fewer(known: Retrained) -> Retrained:
        return known.of_subsets(np.arange(len(known.masks) - 1))

    def twice(known: Retrained) -> Retrained:
        return replace(known, masks=np.concatenate([known.masks, known.masks[:1]]),
                       losses=np.concatenate([known.losses, known.losses[:, :1]], axis=1))  # fmt: skip

    (reason,) = verdict(world.packed(world.changed(twice))).reasons
    assert "holds a subset or a seed twice" in reason
    (reason,) = verdict(world.packed(world.changed(lambda known: replace(known, own_seed=7)))).reasons
    assert "is of a model trained with seed 7" in reason
    if world.experiment.protocol == "lds":
        (reason,) = verdict(world.packed(world.changed(fewer))).reasons
        assert "has other subsets than lds draws" in reason


def test_methods_may_be_retrained_for_with_more_seeds_than_the_random_curve_has():
    """In leave-k-out a truth holds the curve, and models by further seeds that scores asked for; it may not lack the curve's."""
    counts = {"n_studies": 1, "n_images": 8, "queries": 2, "k": (2,), "curve": (0, 2), "draws": 1, "n_seeds": 2}
    planned = plan(Experiment(
        dataset="mscoco", edition="mini", protocol="leave-k-out", preset="mini", overrides=counts, model="sha256:none"
    ))  # fmt: skip
    (of,) = planned.plans
    queries, images = tuple(case.id for case in of.roles("query")), tuple(image.id for image in of.rows)
    scores = Scores(np.random.default_rng(0).random((2, 8)), queries, images)
    table = ScoreTable(method="mine", seed=0, candidate=None, role="query", scores=scores)
    (request,) = planned.protocol.further_retrainings(of, [table])
    masks = np.ones((len(request.left_out), 8), dtype=bool)
    for mask, left_out in zip(masks, request.left_out, strict=True):
        mask[list(left_out)] = False
    losses = np.full((2, len(masks), len(request.seeds)), np.nan)
    for look in request.looks:
        losses[list(look.queries), request.left_out.index(look.part.left_out), request.seeds.index(look.part.seed)] = 1.0
    known = Retrained(masks, request.seeds, losses, np.ones(2), of.training.seed, drawn=planned.protocol.drawn(of, masks))
    truth = Truth(queries, images, retrained=known)
    assert len(known.seeds) == 2 and known.drawn.sum() == 2 < len(masks)
    again = read_truth(safetensors_bytes(*arrays_of(truth)), planned, of)
    np.testing.assert_array_equal(again.retrained.losses, losses)
    without = replace(known, seeds=known.seeds[1:], losses=losses[:, :, 1:])
    with pytest.raises(Refused, match="has other seeds than leave-k-out asks for"):
        read_truth(safetensors_bytes(*arrays_of(replace(truth, retrained=without))), planned, of)
