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
from attribench.study import retraining
from attribench.study.generated import generated
from attribench.study.losses import TakenLosses
from attribench.study.retraining import LossMeasure, Part, Retrainings, retrain_steps
from attribench.study.steps import WEIGHTS, load_trained

MEASURE = LossMeasure(timesteps=3, draws=2)
REQUEST = Retrainings(role="query", subsets=((0, 1), (1, 2, 3), (0, 3)), seeds=(7, 8), measure=MEASURE)


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
    parts = REQUEST.parts
    made = retrain_steps(plan, parts, bindings, store.has)
    assert {ref.step for ref in made.values()} == {made[parts[0]].step}
    execute([made[parts[0]].step], store, workers=0)
    for part, ref in made.items():
        model = DiffusionModel.load(bindings["model"])
        model.add_modifiers(dict(plan.training.modifiers))
        images = [plan.training.images[row] for row in part.rows]
        customize(model, images, bindings["dataset"].load, plan.training.customization, seed=part.seed)
        found = load_file(store.path(ref.key) / WEIGHTS)
        for name, weight in model.customized_weights().items():
            assert torch.allclose(found[name], weight, atol=1e-5), (part, name)


def test_a_model_is_known_by_its_rows_and_seed_alone(plan, bindings):
    def key(parts, part, plan=plan):
        return retrain_steps(plan, parts, bindings, lambda key: False)[part].key

    part = Part((0, 1), 7)
    alone = key([part], part)
    assert key(REQUEST.parts, part) == alone
    assert key(REQUEST.parts[::-1], part) == alone
    assert key([Part((0, 1), 8)], Part((0, 1), 8)) != alone
    assert key([Part((0, 2), 7)], Part((0, 2), 7)) != alone


def test_losses_are_the_mean_over_timesteps_and_draws_with_the_querys_own_noise(plan, bindings, study, store):
    known = taken(study, store, REQUEST)["query"].retrained(store.path)
    assert known.masks.tolist() == [[True, True, False, False], [False, True, True, True], [True, False, False, True]]
    assert known.losses.shape == (len(plan.roles("query")), 3, 2)
    ref = retrain_steps(plan, [Part((1, 2, 3), 8)], bindings, store.has)[Part((1, 2, 3), 8)]
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


def test_nothing_is_made_twice(study, store):
    """Whichever role or further request asks: models are trained once, losses taken once."""
    taken(study, store, REQUEST)
    assert to_run(taken(study, store, REQUEST, run=False), store) == []
    more = Retrainings(role="query", subsets=((0, 3), (2, 3)), seeds=(8,), measure=MEASURE)
    found = taken(study, store, more, run=False)
    assert to_run(found, store) == ["retrain", "losses"]
    new = Part((2, 3), 8)
    assert set(found["query"].parts[new].step.outputs) == {new.name}
    on_dev = Retrainings(role="fit", subsets=REQUEST.subsets, seeds=(7, 8), measure=MEASURE)
    assert set(to_run(taken(study, store, on_dev, run=False), store)) == {"losses"}


def test_losses_that_are_there_need_no_model(study, store):
    """As where the truth was imported."""
    import shutil

    found = taken(study, store, REQUEST)["query"]
    for ref in retrain_steps(study.plan, REQUEST.parts, study.bindings, store.has).values():
        shutil.rmtree(store.path(ref.key))
    again = taken(study, store, REQUEST, run=False)
    assert to_run(again, store) == []
    more = Retrainings(role="query", subsets=(*REQUEST.subsets, (2, 3)), seeds=(7,), measure=MEASURE)
    wider = taken(study, store, more)["query"]
    np.testing.assert_array_equal(
        wider.retrained(store.path).losses[:, :3, 0], found.retrained(store.path).losses[:, :, 0]
    )
    assert not store.has(retrain_steps(study.plan, [Part((0, 1), 7)], study.bindings, store.has)[Part((0, 1), 7)].key)


def test_both_roles_share_the_models_and_steps_do_not_overlap(study, store):
    on_dev = Retrainings(role="fit", subsets=REQUEST.subsets[1:] + ((2, 3),), seeds=(7, 8), measure=MEASURE)
    found = taken(study, store, REQUEST, on_dev, run=False)
    steps = {ref.step for of_role in found.values() for losses in of_role.steps for ref in losses.inputs.values()}
    outputs = [key for step in steps if step.name == "retrain" for key in step.keys.values()]
    assert len(outputs) == len(set(outputs)) == 8


def test_after_a_kill_only_missing_models_are_trained(plan, bindings, store, monkeypatch):
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
    made = retrain_steps(plan, REQUEST.parts, bindings, store.has)
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


def test_many_models_are_spread_over_steps_for_the_workers(plan, bindings, monkeypatch):
    monkeypatch.setattr(retraining, "MODELS_PER_STEP", 4)
    made = retrain_steps(plan, REQUEST.parts, bindings, lambda key: False)
    assert sorted(len(step.outputs) for step in {ref.step for ref in made.values()}) == [2, 4]


def test_requests_that_cannot_be_met_say_so(plan, study, store):
    for rows in ((), (1, 0), (1, 1), (-1, 2)):
        with pytest.raises(UsageError, match="is no subset"):
            Retrainings(role="query", subsets=(rows,), seeds=(0,), measure=MEASURE)
    beyond = Retrainings(role="query", subsets=((0, 99),), seeds=(0,), measure=MEASURE)
    with pytest.raises(UsageError, match="no row 99"):
        taken(study, store, beyond)
    with pytest.raises(UsageError, match="ask for fewer"):
        LossMeasure(timesteps=2000).at(1000)
    known = taken(study, store, REQUEST)["query"].retrained(store.path)
    assert known.subset(known.masks[2]) == 2
    with pytest.raises(MethodError, match="must ask for the subset"):
        known.subset([False, False, True, True])
