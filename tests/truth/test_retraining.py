"""Models retrained on parts of a study are those trained alone, are never made twice, and survive a kill."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attribench.diffusion import noise
from attribench.diffusion.customization import customize
from attribench.diffusion.model import DiffusionModel
from attribench.engine.plan import make_plan
from attribench.engine.run import execute
from attribench.errors import MethodError, UsageError
from attribench.study.generated import generated
from attribench.study.retrainings import Look, LossMeasure, Part, Retrainings
from attribench.study.steps import WEIGHTS, load_trained
from attribench.study.training import Customization
from attribench.truth.losses import TakenLosses
from attribench.truth.retraining import retrain_steps

MEASURE = LossMeasure(timesteps=3, draws=2)
KEPT = ((0, 1), (1, 2, 3), (0, 3))
SEEDS = (7, 8)


def part(kept: tuple[int, ...], seed: int) -> Part:
    return Part.keeping(kept, 4, seed)


PARTS = [part(kept, seed) for kept in KEPT for seed in SEEDS]


@pytest.fixture
def request_for(plan):
    """What a protocol asks for: subsets with all queries of a role."""

    def of(kept=KEPT, seeds=SEEDS, role="query") -> Retrainings:
        return Retrainings.of_subsets(plan, role, kept, seeds, MEASURE)

    return of


def taken(study, store, *requests: Retrainings, run: bool = True) -> dict[str, TakenLosses]:
    found = TakenLosses.of_all(study, requests, store.has)
    if run:
        steps = [step for of_role in found.values() for step in of_role.steps]
        outcomes = execute(steps, store, workers=0)
        assert [outcome.reason for outcome in outcomes.values() if not outcome.ok] == []
    return found


def to_run(found: dict[str, TakenLosses], store) -> list[str]:
    return [step.name for step in make_plan([s for of_role in found.values() for s in of_role.steps], store).to_run]


@pytest.fixture
def study(study_of):
    return study_of()


def test_each_model_is_the_one_trained_alone(plan, bindings, study, store):
    made = retrain_steps(study, PARTS, store.has)
    assert {ref.step for ref in made.values()} == {made[PARTS[0]].step}
    execute([made[PARTS[0]].step], store, workers=0)
    for part, ref in made.items():
        model = DiffusionModel.load(bindings["model"])
        model.add_modifiers(dict(plan.training.modifiers))
        images = [plan.training.images[row] for row in part.rows(4)]
        customize(model, images, bindings["dataset"].load, plan.training.customization, seed=part.seed)
        found = load_file(store.path(ref.key) / WEIGHTS)
        for name, weight in model.trained_weights().items():
            assert torch.allclose(found[name], weight, atol=1e-5), (part, name)


def test_a_model_is_known_by_its_rows_and_seed_alone(study):
    def key(parts, one):
        return retrain_steps(study, parts, lambda key: False)[one].key

    one = part((0, 1), 7)
    alone = key([one], one)
    assert key(PARTS, one) == alone
    assert key(PARTS[::-1], one) == alone
    assert key([part((0, 1), 8)], part((0, 1), 8)) != alone
    assert key([part((0, 2), 7)], part((0, 2), 7)) != alone


def test_losses_are_the_mean_over_timesteps_and_draws_with_the_querys_own_noise(plan, bindings, study, store, request_for):
    known = taken(study, store, request_for())["query"].retrained(store.path)
    assert known.masks.tolist() == [[True, True, False, False], [False, True, True, True], [True, False, False, True]]
    assert known.losses.shape == (len(plan.roles("query")), 3, 2)
    ref = retrain_steps(study, [part((1, 2, 3), 8)], store.has)[part((1, 2, 3), 8)]
    own = store.path(study.trainings[0].keys["weights"])
    for folder, found in ((store.path(ref.key), known.losses[:, 1, 1]), (own, known.full)):
        model = load_trained(bindings["model"], folder, plan.training, "cpu")
        pictures = generated(plan, store.path(study.pictures.keys["pictures"]), "query")
        for row, case in enumerate(plan.roles("query")):
            latent = model.latent_moments(model.pixels([pictures[row]]))[0]
            losses = [
                model.loss(
                    latent, model.encode_prompts([case.prompt]), torch.tensor([t]),
                    noise.normal(model.latent_shape, "query", case.id, t, draw)[None],
                ).item()
                for t in (166, 500, 833) for draw in (0, 1)
            ]  # fmt: skip
            assert found[row] == pytest.approx(np.mean(losses), abs=1e-5)


def test_nothing_is_made_twice(study, store, request_for):
    """Whichever role or further request asks: models are trained once, losses taken once."""
    taken(study, store, request_for())
    assert to_run(taken(study, store, request_for(), run=False), store) == []
    found = taken(study, store, request_for(((0, 3), (2, 3)), (8,)), run=False)
    assert to_run(found, store) == ["retrain", "losses"]
    assert set(found["query"].models[part((2, 3), 8)].step.outputs) == {part((2, 3), 8).name}
    assert list(found["query"].found_before(store.has).values()) == [True, False]
    on_dev = request_for(role="fit")
    assert set(to_run(taken(study, store, on_dev, run=False), store)) == {"losses"}


def test_a_query_is_looked_at_under_the_models_that_were_asked_for_and_no_others(plan, study, store, request_for):
    """And what is found there is what is found when all queries are looked at together."""
    n = len(plan.roles("query"))
    assert n >= 2
    one, other = part((0, 1), 7), part((0, 3), 8)
    looks = (Look(one, (0,)), Look(other, (n - 1,)), Look(one, (0,)), Look(one, (1,)))
    request = Retrainings(role="query", n_train=4, looks=looks, measure=MEASURE)
    assert request.n_asked == 4 and request.parts == (one, other)
    known = taken(study, store, request)["query"].retrained(store.path)
    assert known.masks.tolist() == [[True, True, False, False], [True, False, False, True]]
    asked = np.zeros_like(known.losses, dtype=bool)
    asked[0, 0, 0] = asked[1, 0, 0] = asked[n - 1, 1, 1] = True
    np.testing.assert_array_equal(np.isfinite(known.losses), asked)
    np.testing.assert_array_equal(np.isfinite(known.full), asked.any(axis=(1, 2)))
    everything = taken(study, store, request_for())["query"].retrained(store.path)
    np.testing.assert_allclose(known.losses[0, 0, 0], everything.losses[0, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(known.losses[n - 1, 1, 1], everything.losses[n - 1, 2, 1], rtol=1e-5)
    more = Retrainings(role="query", n_train=4, looks=(*looks, Look(other, (0,))), measure=MEASURE)
    assert to_run(taken(study, store, more, run=False), store) == ["losses"]


def test_pictures_are_generated_again_from_the_same_noise_and_prompt(plan, bindings, study, store):
    """Under the very weights of the study the pictures come out as they were; under others they do not."""
    from attribench.encoders import load_encoder
    from attribench.study.steps import initial_noise
    from attribench.truth.regeneration import regenerated, squared_error

    look = Look(part((0, 1), 7), (0,))
    request = Retrainings(role="query", n_train=4, looks=(look,), measure=MEASURE, encoder="clip-tiny")
    found = taken(study, store, request)["query"]
    known = found.retrained(store.path)
    own = generated(plan, store.path(study.pictures.keys["pictures"]), "query")[0]
    (again,) = regenerated(store.path(found.pictures[look].key), 1)
    pixels = [np.asarray(picture, dtype=float) / 255 for picture in (own, again)]
    assert known.squared_errors[0, 0, 0] == pytest.approx(((pixels[0] - pixels[1]) ** 2).mean())
    assert known.squared_errors[0, 0, 0] > 0
    features = load_encoder("clip-tiny").encode_images([own, again])
    assert known.similarities[0, 0, 0] == pytest.approx(torch.cosine_similarity(*features, dim=0).item(), abs=1e-6)
    case = plan.roles("query")[0]
    model = load_trained(bindings["model"], store.path(study.trainings[0].keys["weights"]), plan.training, "cpu")
    noises = initial_noise(model, plan.training, case)[None]
    (same,) = model.sample([case.prompt], noises, steps=plan.sampling.steps, guidance=plan.sampling.guidance)
    assert squared_error(own, same) < 1e-5  # alone, and not in the generation's chunk


def test_losses_that_are_there_need_no_model(study, store, request_for):
    """As where the truth was imported."""
    import shutil

    found = taken(study, store, request_for())["query"]
    for ref in retrain_steps(study, PARTS, store.has).values():
        shutil.rmtree(store.path(ref.key))
    again = taken(study, store, request_for(), run=False)
    assert to_run(again, store) == []
    assert all(again["query"].found_before(store.has).values())
    more = request_for((*KEPT, (2, 3)), (7,))
    wider = taken(study, store, more)["query"]
    np.testing.assert_array_equal(wider.retrained(store.path).losses[:, :3, 0], found.retrained(store.path).losses[:, :, 0])
    gone = part((0, 1), 7)
    assert not store.has(retrain_steps(study, [gone], store.has)[gone].key)


def test_both_roles_share_the_models_and_steps_do_not_overlap(study, store, request_for):
    on_dev = request_for((*KEPT[1:], (2, 3)), role="fit")
    found = taken(study, store, request_for(), on_dev, run=False)
    steps = {ref.step for of_role in found.values() for losses in of_role.steps for ref in losses.inputs.values()}
    outputs = [key for step in steps if step.name == "retrain" for key in step.keys.values()]
    assert len(outputs) == len(set(outputs)) == 8


def test_after_a_kill_only_missing_models_are_trained(study, store, monkeypatch):
    """What a pass has finished is on disk, although the step is not."""
    from attribench.diffusion import stacked

    own = stacked.customize_in_turn
    trained: list[int] = []

    def two_at_once(model, jobs, *arguments, **options):
        for number, result in own(model, jobs, *arguments, **options | {"max_models": 2}):
            if len(trained) == killed_after:
                raise KeyboardInterrupt
            trained.append(number)
            yield number, result

    monkeypatch.setattr(stacked, "customize_in_turn", two_at_once)
    made = retrain_steps(study, PARTS, store.has)
    (step,) = {ref.step for ref in made.values()}
    killed_after = 3
    with pytest.raises(KeyboardInterrupt):
        execute([step], store, workers=0)
    assert not any(store.has(ref.key) for ref in made.values())
    trained.clear()
    killed_after = -1
    execute([step], store, workers=0)
    assert len(trained) == len(made) - 3
    assert all(store.has(ref.key) for ref in made.values())


def test_many_models_are_spread_over_steps_for_the_workers(study, monkeypatch):
    monkeypatch.setattr(Customization, "models_per_step", 4)
    made = retrain_steps(study, PARTS, lambda key: False)
    assert sorted(len(step.outputs) for step in {ref.step for ref in made.values()}) == [2, 4]


def test_requests_that_cannot_be_met_say_so(study, store, request_for):
    for rows in ((), (1, 0), (1, 1), (-1, 2)):
        with pytest.raises(UsageError, match="is no subset"):
            request_for((rows,))
    with pytest.raises(UsageError, match="no row 99"):
        request_for(((0, 99),))
    for rows in ((1, 0), (1, 1), (-1, 2)):
        with pytest.raises(UsageError, match="no rows to leave out"):
            Part(rows, 0)
    for left_out, said in (((99,), "no row 99"), ((0, 1, 2, 3), "nothing is left")):
        with pytest.raises(UsageError, match=said):
            retrain_steps(study, [Part(left_out, 0)], store.has)
    with pytest.raises(UsageError, match="ask for fewer"):
        LossMeasure(timesteps=2000).at(1000)
    known = taken(study, store, request_for())["query"].retrained(store.path)
    assert known.subset(known.masks[2]) == 2
    with pytest.raises(MethodError, match="must ask for the subset"):
        known.subset([False, False, True, True])
