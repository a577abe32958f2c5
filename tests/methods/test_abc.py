"""AbC: its heads, the loss they learn by, its calibrator, and files that are not what they should be."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attribench.methods import abc
from attribench.methods.abc import Abc, AbcDino
from attribench.methods.abc.calibrator import Calibrator, calibration_loss
from attribench.methods.abc.heads import Heads, drawn_heads, head, load_heads
from attribench.methods.abc.in_study import AbcStudy
from attribench.methods.abc.training import Group, Schedule, nt_xent, off_orthogonality, train_heads
from attribench.methods.clip import ClipImage
from safetensors.torch import save_file
from scipy import stats
from torch.nn.functional import cosine_similarity

from attribench.data import Queries
from attribench.diffusion.loading import LOADING
from attribench.errors import MethodError, UsageError
from attribench.files.state import State

SCHEDULE = Schedule(temperature=0.2, orthogonality=0.1, epochs=30, batch_size=16, learning_rate=1e-2)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(rows):
    return torch.nn.functional.normalize(rows, dim=1)


# --------------------------------------------------------------------------------------------- heads


def test_heads_are_drawn_while_no_other_thread_loads_a_model():
    """transformers puts functions that do nothing in place of torch's initialisers while it loads one."""
    from transformers.initialization import no_init_weights

    expected = drawn_heads("mlp", 4, seed=3).state_dict()
    found = {}
    thread = threading.Thread(target=lambda: found.update(drawn_heads("mlp", 4, seed=3).state_dict()))
    with LOADING, no_init_weights():
        thread.start()
        thread.join(0.5)
        assert not found, "they were drawn all the same"
    thread.join()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("shape", ["linear", "channel"])
def test_heads_at_their_start_are_the_raw_cosine(shape):
    queries, train = random(5, 16), random(9, 16, seed=1)
    expected = unit(queries) @ unit(train).T
    assert torch.equal(Heads(shape, 16).similarity(queries, train), expected)


def test_training_images_and_queries_have_heads_of_their_own():
    heads = Heads("linear", 8)
    with torch.no_grad():
        heads.real_mapper.weight.copy_(random(8, 8))
        heads.synth_mapper.bias.copy_(random(8, seed=1))
    queries, train = random(3, 8, seed=2), random(4, 8, seed=3)
    one = cosine_similarity(queries[1] + heads.synth_mapper.bias, heads.real_mapper.weight @ train[2], dim=0)
    assert heads.similarity(queries, train)[1, 2].item() == pytest.approx(one.item(), abs=1e-6)


def test_an_mlp_head_is_two_layers_normalised_over_the_batch():
    torch.manual_seed(0)
    mapper, x = head("mlp", 6), random(10, 6).double()
    mapper = mapper.double()
    names = {name: tuple(value.shape) for name, value in mapper.state_dict().items()}
    assert names["0.weight"] == (512, 6) and names["4.weight"] == (256, 512) and "5.weight" not in names
    hidden = x @ mapper[0].weight.T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    out = hidden.clamp(min=0) @ mapper[4].weight.T
    out = (out - out.mean(0)) / (out.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(mapper.train()(x), out)


@pytest.mark.parametrize("shape", ["linear", "channel", "mlp"])
@pytest.mark.parametrize("form", ["the authors' file", "safetensors"])
def test_published_heads_load(shape, form, tmp_path):
    torch.manual_seed(1)
    heads = Heads(shape, 12)
    with torch.no_grad():
        for number, weight in enumerate(heads.parameters()):
            weight.copy_(random(*weight.shape, seed=number))
    path = tmp_path / ("heads.pth" if form == "the authors' file" else "heads.safetensors")
    if path.suffix == ".pth":
        torch.save({name: getattr(heads, name).state_dict() for name in ("real_mapper", "synth_mapper")}, path)
    else:
        save_file(heads.state_dict(), path)
    loaded = load_heads(path, 12, "clip")
    assert loaded.shape == shape
    assert torch.equal(loaded.similarity(random(3, 12), random(4, 12)), heads.eval().similarity(random(3, 12), random(4, 12)))


def test_heads_of_another_width_are_one_line(tmp_path):
    save_file(Heads("linear", 512).state_dict(), tmp_path / "clip_tuned.safetensors")
    with pytest.raises(UsageError, match=r"take features of width 512, but clip-tiny gives 256; take heads that") as raised:
        load_heads(tmp_path / "clip_tuned.safetensors", 256, "clip-tiny")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"real_mapper": {"weight": torch.eye(4), "bias": torch.zeros(4)}}, "holds no synth_mapper"),
        ({"real_mapper": {"scale": torch.eye(4)}, "synth_mapper": {"scale": torch.eye(4)}}, "none of the shapes"),
        ({"real_mapper": {"weight": torch.eye(4)}, "synth_mapper": {"weight": torch.eye(4)}}, "lacks bias"),
        (
            {"real_mapper": {"weight": torch.eye(4), "bias": torch.zeros(4)},
             "synth_mapper": {"weight": torch.ones(3, 4), "bias": torch.zeros(4)}},
            "weight is 3 × 4, not 4 × 4",
        ),
        ({"real_mapper": {"weight": "four"}, "synth_mapper": {"weight": torch.eye(4)}}, "none of the shapes"),
    ],
)  # fmt: skip
def test_a_file_without_heads_is_one_line(tmp_path, content, said):
    torch.save(content, tmp_path / "heads.pth")
    with pytest.raises(UsageError, match=said) as raised:
        load_heads(tmp_path / "heads.pth", 4, "clip")
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------------------------------- training


def test_nt_xent_is_the_formula_pair_by_pair():
    a, b, temperature = unit(random(6, 5).double()), unit(random(6, 5, seed=1).double()), 0.3
    total = 0.0
    for i in range(6):
        right = torch.exp(a[i] @ b[i] / temperature)
        to_synthesized = sum(torch.exp(a[i] @ b[j] / temperature) for j in range(6))
        to_exemplars = sum(torch.exp(a[j] @ b[i] / temperature) for j in range(6))
        total += -torch.log(right / to_synthesized) - torch.log(right / to_exemplars)
    torch.testing.assert_close(nt_xent(a, b, temperature), total / 12)


def test_the_pull_is_towards_orthogonal_maps():
    heads = Heads("linear", 4)
    rotation = torch.linalg.qr(random(4, 4)).Q
    with torch.no_grad():
        heads.real_mapper.weight.copy_(rotation)
        heads.synth_mapper.weight.mul_(2)
    assert off_orthogonality(heads).item() == pytest.approx(4 * (4 - 1) ** 2 / 4, rel=1e-5)  # ‖4I − I‖² / d of the other
    channel = Heads("channel", 3)
    with torch.no_grad():
        channel.real_mapper.weights.copy_(torch.tensor([[1.0, -1.0, 3.0]]))
    assert off_orthogonality(channel).item() == pytest.approx(64 / 3)
    assert off_orthogonality(Heads("mlp", 3)).item() == 0


def world(n_models, dimension=16, seed=0, turned=0.8):
    """Models whose pictures are their exemplars turned half of the way by one fixed rotation, with noise."""
    rotation = torch.matrix_exp(turned * (lambda m: m - m.T)(random(dimension, dimension, seed=99)) / 2)
    groups = []
    for number in range(n_models):
        centre = random(dimension, seed=1000 * seed + number + 1)
        exemplars = centre + 0.5 * random(3, dimension, seed=2000 * seed + number)
        made = centre @ rotation.T + 0.5 * random(8, dimension, seed=3000 * seed + number)
        groups.append(Group(exemplars, made))
    return groups


def average_precisions(heads, groups):
    """One value for each synthesized picture, among the exemplars of all models."""
    pool = torch.cat([group.exemplars for group in groups])
    owner = torch.arange(len(groups)).repeat_interleave(3)
    values = []
    for number, group in enumerate(groups):
        order = heads.eval().similarity(group.synthesized, pool).argsort(dim=1, descending=True)
        for row in owner[order] == number:
            ranks = row.nonzero()[:, 0] + 1
            values.append((torch.arange(1, 4) / ranks).mean().item())
    return np.array(values)


def test_a_planted_rotation_is_found_and_beats_the_raw_features_on_other_models():
    learned, raw = Heads("linear", 16), Heads("linear", 16)
    losses = train_heads(learned, world(60), SCHEDULE, seed=0)
    held_out = world(30, seed=7)
    gain = average_precisions(learned, held_out) - average_precisions(raw, held_out)
    interval = stats.bootstrap((gain,), np.mean, rng=0).confidence_interval
    assert losses[-1] < 0.6 * losses[0]
    assert interval.low > 0.2


def test_heads_that_have_nothing_to_learn_stay_near_the_identity():
    heads = Heads("linear", 16)
    groups = world(60, turned=0.0)
    train_heads(heads, groups, Schedule(**{**vars(SCHEDULE), "orthogonality": 10.0}), seed=0)
    assert off_orthogonality(heads) < 0.1


def test_training_is_the_seeds_alone_and_one_model_teaches_nothing():
    def trained(seed, groups):
        heads = Heads("linear", 16)
        train_heads(heads, groups, Schedule(**{**vars(SCHEDULE), "epochs": 2}), seed)
        return heads.real_mapper.weight

    assert torch.equal(trained(1, world(5)), trained(1, world(5)))
    assert not torch.equal(trained(1, world(5)), trained(2, world(5)))
    assert torch.equal(trained(1, world(1)), torch.eye(16))


# ------------------------------------------------------------------------------------------ calibrator


def test_influence_is_the_formula():
    s = random(2, 5).double()
    found = Calibrator(inv_tau=3.0, bias=-100.0).influence(s)
    for row in range(2):
        e = [max(np.exp(3.0 * (s[row, i] - s[row].max()).item()) - 0.1, 0) for i in range(5)]
        np.testing.assert_allclose(found[row], np.array(e) / sum(e))
    assert (found == 0).any() and torch.allclose(found.sum(dim=1), torch.ones(2).double())


def test_the_calibration_loss_is_the_formula():
    s, exemplars = random(3, 6).double(), torch.tensor([[1, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).bool()
    total = 0.0
    for row in range(3):
        e = np.exp(4.0 * (s[row] - s[row].max()).numpy())
        soft = np.log1p(np.exp(100 * (e - 0.02))) / 100
        total += np.log(soft.sum()) - np.log(soft[exemplars[row].numpy()]).mean()
    assert calibration_loss(s, exemplars, 4.0, -20.0).item() == pytest.approx(total / 3, rel=1e-9)


def test_the_fitted_scalars_are_those_of_least_loss():
    s = random(40, 12).double()
    exemplars = torch.zeros(40, 12, dtype=torch.bool)
    exemplars[torch.arange(40), s.argmax(dim=1)] = True
    exemplars[::4] = exemplars[::4].roll(1, dims=1)  # sometimes the nearest one is wrong
    fitted = Calibrator.fit(s, exemplars)
    least = calibration_loss(s, exemplars, fitted.inv_tau, fitted.bias)
    for inv_tau in np.geomspace(0.05, 50, 25):
        for bias in np.linspace(-900, 900, 25):
            assert calibration_loss(s, exemplars, inv_tau, bias) >= least - 1e-6


def test_a_calibrator_file_is_read_or_refused_in_one_line(tmp_path):
    torch.save({"inv_tau": torch.tensor(20.0), "bias": torch.tensor(-3.0)}, tmp_path / "good.pth")
    assert Calibrator.load(tmp_path / "good.pth") == Calibrator(20.0, -3.0)
    for number, content in enumerate([{"bias": torch.zeros(())}, {"inv_tau": torch.tensor(-1.0), "bias": torch.zeros(())},
                                      {"inv_tau": torch.zeros(3), "bias": torch.zeros(())}]):  # fmt: skip
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(UsageError, match="inv_tau"):
            Calibrator.load(tmp_path / f"{number}.pth")


# ------------------------------------------------------------------------------------------- methods


@pytest.fixture
def scene(toy):
    """Nine training images of three modifiers; eight generations to learn from; six queries."""
    images = [toy.train_image(f"train/{i}.png", f"photo of <new{1 + i // 3}>") for i in range(9)]
    fit = [toy.case(f"fit-{i}", modifiers=(f"<new{1 + i % 3}>",), role="fit") for i in range(6)]
    fit += [toy.case(f"fit-{i}", modifiers=("<new1>", "<new2>"), role="fit") for i in (6, 7)]
    queries = [toy.case(f"query-{i}", modifiers=(f"<new{1 + i % 3}>",)) for i in range(6)]
    pictures = {item.id: toy.noise_picture(i) for i, item in enumerate([*images, *fit, *queries])}
    study = toy.MemoryStudy(images, pictures, fit=Queries(fit, pictures.__getitem__))
    return study, Queries(queries, pictures.__getitem__)


def scores(method, study, queries, folder):
    state = State(folder)
    method.fit(study, state)
    return method.score(study, state, queries).values


def test_abc_with_heads_at_their_start_is_clip_image(scene, small_clip, tmp_path):
    save_file(Heads("linear", 16).state_dict(), tmp_path / "heads.safetensors")
    own = Abc(heads=str(tmp_path / "heads.safetensors")).resolve("mini")
    values = scores(own, *scene, tmp_path / "abc")
    np.testing.assert_array_equal(values, scores(ClipImage().resolve("mini"), *scene, tmp_path / "clip"))


def test_influence_sums_to_one_and_keeps_the_order(scene, small_clip, tmp_path):
    save_file(Heads("linear", 16).state_dict(), tmp_path / "heads.safetensors")
    torch.save({"inv_tau": torch.tensor(5.0), "bias": torch.tensor(0.0)}, tmp_path / "calibrator.pth")
    given = {"heads": str(tmp_path / "heads.safetensors"), "calibrator": str(tmp_path / "calibrator.pth")}
    similarity = scores(Abc(**given).resolve("mini"), *scene, tmp_path / "s")
    influence = scores(Abc(**given, output="influence").resolve("mini"), *scene, tmp_path / "a")
    np.testing.assert_allclose(influence.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(influence.argsort(axis=1), similarity.argsort(axis=1))
    with pytest.raises(UsageError, match="needs the calibrator too: -p abc.calibrator=PATH"):
        Abc(heads=given["heads"], output="influence").resolve("mini").assets()


def test_heads_are_part_of_what_the_scores_depend_on(tmp_path):
    known = []
    for scale in (1.0, 2.0):
        path = tmp_path / f"heads-{scale}.safetensors"
        save_file({name: scale * value for name, value in Heads("linear", 4).state_dict().items()}, path)
        known.append(Abc(heads=str(path)).resolve("mini").assets())
    assert known[0] != known[1]


def test_without_heads_abc_is_a_row_with_a_reason(monkeypatch, tmp_path):
    assert "-p abc.heads=PATH" in Abc().skip("paper")
    assert "-p abc-dino.heads=PATH" in AbcDino().skip("paper")
    monkeypatch.setattr(abc, "ASSETS", tmp_path)
    assert "abc-tiny has no heads for clip-tiny" in Abc().skip("mini")


def test_heads_learned_in_a_study_are_its_seeds_alone_and_no_query_is_learned_from(scene, small_clip, tmp_path):
    study, queries = scene
    method = AbcStudy(epochs=3, learning_rate=0.01).resolve("mini")

    def run(folder, seed):
        study.seed = seed
        return scores(method, study, queries, tmp_path / folder)

    first = run("a", 4)
    np.testing.assert_array_equal(first, run("b", 4))
    assert not np.array_equal(first, run("c", 16))
    assert not np.allclose(first, scores(ClipImage().resolve("mini"), study, queries, tmp_path / "clip"))
    alone = [method.score(study, State(tmp_path / "c"), Queries([case], queries._load)).values[0] for case in cases_of(queries)]
    np.testing.assert_allclose(run("c", 16), alone, atol=1e-5)


def cases_of(queries):
    from attribench.data import GenerationCase

    return [
        GenerationCase(id=i, prompt=p, plain_prompt=p, seed=0, concepts=(), modifiers=m, variant="", role="query")
        for i, p, m in zip(queries.ids, queries.prompts, queries.modifiers, strict=True)
    ]


def test_heads_learned_in_a_study_tell_its_concepts_apart_better(toy, small_clip, tmp_path):
    """The generations are negatives of the training images: raw features cannot know, heads can learn it."""
    from PIL import ImageOps

    near = SimpleNamespace(picture=lambda concept, i: ImageOps.posterize(toy.noise_picture(concept), 3 + i % 3).rotate(5 * i))
    images = [toy.train_image(f"t{i}", f"photo of <new{1 + i % 4}>") for i in range(16)]
    cases = [toy.case(f"g{i}", modifiers=(f"<new{1 + i % 4}>",), role="fit" if i < 24 else "query") for i in range(32)]
    pictures = {f"t{i}": near.picture(i % 4, i) for i in range(16)}
    pictures |= {f"g{i}": ImageOps.invert(near.picture(i % 4, i)) for i in range(32)}
    study = toy.MemoryStudy(images, pictures, fit=Queries(cases[:24], pictures.__getitem__))
    queries = Queries(cases[24:], pictures.__getitem__)
    truth = np.arange(8)[:, None] % 4 == np.arange(16) % 4

    def separation(method, folder):
        values = scores(method.resolve("mini"), study, queries, tmp_path / folder)
        return np.mean([stats.mannwhitneyu(v[t], v[~t]).statistic / (4 * 12) for v, t in zip(values, truth, strict=True)])

    learned = separation(AbcStudy(epochs=40, learning_rate=0.01, orthogonality=0.0), "abc")
    assert learned > separation(ClipImage(), "clip") + 0.1


def test_a_study_without_unmixed_generations_is_told(scene, small_clip, tmp_path, toy):
    study, _ = scene
    study._fit = Queries([toy.case("fit-6", modifiers=("<new1>", "<new2>"), role="fit")], study._fit._load)
    with pytest.raises(MethodError, match="finds no generation whose prompt has one modifier"):
        AbcStudy().resolve("mini").fit(study, State(tmp_path))


def test_the_shipped_heads_fit_their_encoder(toy, tmp_path):
    method = Abc().resolve("mini")
    assert method.skip("mini") is None
    images = [toy.train_image(f"{i}.png") for i in range(3)]
    study = toy.MemoryStudy(images, {f"{i}.png": toy.noise_picture(i) for i in range(3)})
    queries = Queries([toy.case("q")], lambda name: toy.noise_picture(9))
    similarity = scores(method, study, queries, tmp_path / "s")
    influence = scores(Abc(output="influence").resolve("mini"), study, queries, tmp_path / "a")
    assert (np.abs(similarity) <= 1).all() and influence.sum() == pytest.approx(1, abs=1e-5)
