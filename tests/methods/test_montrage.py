"""MONTRAGE from the table to scores, on a study whose table is written by hand."""

import dataclasses

import numpy as np
import pytest
from attribench.methods.clip_z import ClipZ
from attribench.methods.montrage import Montrage, tau

from attribench.data import Queries
from attribench.diffusion.monitor import ValueMonitor
from attribench.files.state import State

FIT = [("fit-0", "a <new1> cat", ("<new1>",)), ("fit-1", "art of <new1>", ("<new1>",)),
       ("fit-2", "a <new2> cat", ("<new2>",)), ("fit-3", "<new1> and <new2> together", ("<new1>", "<new2>")),
       ("fit-4", "a <new1> cat", ("<new1>",))]  # fmt: skip
UNSEEN = [("query-0", "photo of <new1>", ("<new1>",)), ("query-1", "photo of <new2>", ("<new2>",))]


@pytest.fixture
def scene(toy):
    """Six training images of two modifiers, five generations to learn from, two unseen; all pictures are noise."""
    images = [toy.train_image(f"train/{i}.png", f"photo of <new{1 + i // 3}>") for i in range(6)]
    fit = [toy.case(i, p, modifiers=m, role="fit") for i, p, m in FIT]
    unseen = [toy.case(i, p, modifiers=m) for i, p, m in UNSEEN]
    pictures = {image.id: toy.noise_picture(i) for i, image in enumerate(images)}
    pictures |= {c.id: toy.noise_picture(20 + i) for i, c in enumerate(fit + unseen)}
    prompts = sorted({c.prompt for c in fit + unseen})
    table = np.random.default_rng(0).uniform(1, 2, (6, len(prompts)))
    for j, prompt in enumerate(prompts):
        table[[i for i in range(6) if f"<new{1 + i // 3}>" in prompt], j] += 2
    study = toy.MemoryStudy(images, pictures, fit=Queries(fit, pictures.__getitem__), table=table)
    study.prompts = tuple(prompts)
    return study, Queries(fit, pictures.__getitem__), Queries(unseen, pictures.__getitem__), table, fit + unseen


def montrage(**fields) -> Montrage:
    """As the bench hands it on for a mini edition."""
    return Montrage(encoder="clip-tiny", **fields)


def fitted(method, study, folder):
    state = State(folder)
    method.fit(study, state)
    return state


def test_tau_columns_are_probabilities():
    table = np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 2.0]])
    np.testing.assert_allclose(tau(table), [[0.25, 0.5, 0.5], [0.75, 0.5, 0.5]])


def test_default_observer_is_the_plain_monitor_of_all_prompts(scene):
    study = scene[0]
    (observer,) = Montrage().observers(study.prompts)
    assert observer == ValueMonitor(prompts=study.prompts)
    changed = Montrage(tokens="words", correction="momentum").observers(study.prompts)[0]
    assert changed == ValueMonitor(prompts=study.prompts, tokens="words", correction="momentum")


def test_fit_asks_for_the_observation_it_ordered(scene, small_clip, tmp_path):
    study = scene[0]
    fitted(montrage(norm="l2"), study, tmp_path)
    assert tuple(study.observers) == montrage(norm="l2").observers(study.prompts)


def test_monitored_generations_are_attributed_by_the_table(scene, small_clip, tmp_path):
    study, monitored, _, table, _ = scene
    scores = montrage().score(study, fitted(montrage(), study, tmp_path), monitored)
    column = study.prompts.index("art of <new1>")
    np.testing.assert_allclose(scores.values[1], table[:, column] / table[:, column].sum(), rtol=1e-6)
    np.testing.assert_allclose(scores.values.sum(axis=1), 1, rtol=1e-6)


def test_equal_prompts_have_equal_attributions(scene, small_clip, tmp_path):
    study, monitored, _, _, _ = scene
    values = montrage().score(study, fitted(montrage(), study, tmp_path), monitored).values
    np.testing.assert_array_equal(values[0], values[4])  # "a <new1> cat" twice, from different noise


def test_the_table_alone_needs_no_encoder(scene, monkeypatch, tmp_path):
    from attribench import encoders

    monkeypatch.setattr(encoders, "available", lambda name: "not here")
    method = Montrage(attribution="table")
    study, _, unseen, table, _ = scene
    assert method.skip("mini") is None
    assert Montrage().skip("mini") == "not here"
    scores = method.score(study, fitted(method, study, tmp_path), unseen)
    column = table[:, study.prompts.index("photo of <new2>")]
    np.testing.assert_allclose(scores.values[1], column / column.sum(), rtol=1e-6)


def test_unseen_generations_are_attributed_by_the_model(scene, small_clip, tmp_path):
    study, monitored, unseen, _, _ = scene
    state = fitted(montrage(), study, tmp_path)
    by_model = montrage(attribution="model").score(study, state, monitored).values
    values = montrage().score(study, state, unseen).values
    assert values.shape == (2, 6)
    assert ((values >= 0) & (values <= 1)).all()
    assert not np.allclose(by_model, montrage().score(study, state, monitored).values)


def test_columns_of_held_out_queries_are_not_learned_from(scene, small_clip, tmp_path):
    study, _, unseen, table, _ = scene
    before = montrage().score(study, fitted(montrage(), study, tmp_path / "a"), unseen).values
    for case in UNSEEN:
        table[:, study.prompts.index(case[1])] = np.arange(6)
    after = montrage().score(study, fitted(montrage(), study, tmp_path / "b"), unseen).values
    np.testing.assert_array_equal(before, after)


def test_training_brings_the_model_closer_to_the_table(scene, small_clip, tmp_path):
    study, monitored, _, _, _ = scene
    target = montrage(attribution="table").score(study, fitted(montrage(attribution="table"), study, tmp_path), monitored)
    least, most = target.values.min(axis=1, keepdims=True), target.values.max(axis=1, keepdims=True)
    target = (target.values - least) / (most - least)

    def error(steps, head):
        method = montrage(attribution="model", steps=steps, head=head, learning_rate=0.01, plateau_patience=1000)
        values = method.score(study, fitted(method, study, tmp_path / f"{head}{steps}"), monitored).values
        return np.abs(values - target).mean()

    for head in ("scaler", "linear"):
        assert error(200, head) < 0.8 * error(0, head)


def test_without_training_it_is_standardized_clip(scene, small_clip, tmp_path):
    """The control that its claim is a difference from, to the last digits; and training changes scores and ranks."""
    study, _, unseen, _, _ = scene
    control = ClipZ().resolve("mini")
    bare = control.score(study, fitted(control, study, tmp_path / "z"), unseen).values
    untrained = montrage(steps=0).score(study, fitted(montrage(steps=0), study, tmp_path / "0"), unseen).values
    np.testing.assert_allclose(untrained, (1 + bare) / 2, atol=1e-6)
    trained = montrage().score(study, fitted(montrage(), study, tmp_path / "t"), unseen).values
    assert np.abs(trained - untrained).mean() > 0.02


@pytest.mark.parametrize("target_scale", ["none", "max", "minmax"])
def test_targets_keep_the_order_of_a_column(target_scale):
    columns = np.array([[0.1, 0.3, 0.2, 0.4], [0.25, 0.25, 0.25, 0.25]])
    found = montrage(target_scale=target_scale)._targets(columns).numpy()
    assert (np.argsort(found[0]) == np.argsort(columns[0])).all()
    expected = {"none": [0.1, 0.4, 0.25], "max": [0.25, 1.0, 1.0], "minmax": [0.0, 1.0, 0.5]}[target_scale]
    np.testing.assert_allclose([found[0].min(), found[0].max(), found[1, 0]], expected, rtol=1e-6)


def test_the_seed_is_the_only_randomness(scene, small_clip, tmp_path):
    study, _, unseen, _, _ = scene

    def run(folder, seed):
        study.seed = seed
        return montrage().score(study, fitted(montrage(), study, tmp_path / folder), unseen).values

    np.testing.assert_array_equal(run("a", 4), run("b", 4))
    assert not np.array_equal(run("c", 16), run("d", 4))


def test_batches_of_one_score_the_same(scene, small_clip, tmp_path):
    study, monitored, unseen, _, cases = scene
    method = montrage(attribution="model")
    state = fitted(method, study, tmp_path)
    alone = [method.score(study, state, Queries([case], unseen._load)).values[0] for case in cases[5:]]
    np.testing.assert_allclose(method.score(study, state, unseen).values, alone, atol=1e-5)


def test_auto_is_made_concrete_by_edition():
    assert Montrage().resolve("mini").encoder == "clip-tiny"
    assert Montrage().resolve("paper").encoder == "ViT-B-32/openai"
    assert Montrage(encoder="RN50/openai").resolve("mini").encoder == "RN50/openai"


def test_the_monitor_options_are_the_methods_options():
    own = {field.name for field in dataclasses.fields(ValueMonitor)} - {"prompts"}
    assert own <= {field.name for field in dataclasses.fields(Montrage)}
    assert all(getattr(Montrage(), name) == getattr(ValueMonitor(prompts=("a",)), name) for name in own)
