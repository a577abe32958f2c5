"""The attribution table on models whose change of V is known in closed form, and on a small real model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from attribench.diffusion import monitor as monitor_module
from attribench.diffusion.monitor import ValueMonitor
from attribench.errors import MethodError


class ToyModel:
    """One-hot words and linear value layers: V of a prompt is columns of W_v. "<s>" starts, "</s>" ends and pads."""

    words = ["<s>", "</s>", "a", "b", "<new1>", "<new2>"]

    def __init__(self, **layers: torch.Tensor) -> None:
        self.layers = {name: nn.Linear(6, len(w), bias=False) for name, w in layers.items()}
        for name, weight in layers.items():
            self.layers[name].weight.data.copy_(weight)
        self.table = torch.eye(6)
        self.modifiers = {w: nn.Parameter(self.table[self.words.index(w)].clone()) for w in ("<new1>", "<new2>")}
        self.tokenizer = SimpleNamespace(
            bos_token_id=0, eos_token_id=1, convert_tokens_to_ids=lambda ts: [self.words.index(t) for t in ts]
        )
        self.n_encoded = 0

    def value_layers(self):
        return self.layers

    def tokenize(self, prompts):
        rows = [[0, *(self.words.index(w) for w in prompt.split()), 1] for prompt in prompts]
        return torch.tensor([row + [1] * (5 - len(row)) for row in rows])

    def encode_prompts(self, ids):
        self.n_encoded += len(ids)
        states = self.table[ids]
        for token, vector in self.modifiers.items():
            states = torch.where((ids == self.words.index(token))[..., None], vector, states)
        return states


def one_layer() -> ToyModel:
    return ToyModel(**{"mid_block.attn2.to_v": torch.zeros(2, 6)})


def move(model: ToyModel, layer: int, change: torch.Tensor) -> None:
    with torch.no_grad():
        list(model.layers.values())[layer].weight.add_(change)


def change_of(columns: dict[str, tuple[float, ...]], width: int = 2) -> torch.Tensor:
    change = torch.zeros(width, 6)
    for word, values in columns.items():
        change[:, ToyModel.words.index(word)] = torch.tensor(values)
    return change


def table(model, steps, prompts=("a", "b", "a b"), n_train=2, **options) -> np.ndarray:
    """Run `steps`, a list of (rows, what the step does)."""
    watch = ValueMonitor(prompts=prompts, **options).start(model, n_train, len(steps))
    for rows, step in steps:
        step()
        watch.after_step(rows)
    return watch.finish()["table"]


A = change_of({"a": (3.0, -4.0)})
B = change_of({"b": (0.0, 2.0)})


def test_table_adds_the_l1_change_of_v_to_the_row_of_the_step():
    model = one_layer()
    m = table(model, [([0], lambda: move(model, 0, A)), ([1], lambda: move(model, 0, B)), ([1], lambda: move(model, 0, -A))])
    np.testing.assert_allclose(m, [[7, 0, 7], [7, 2, 9]])  # |3| + |-4| = 7 for prompts with "a", 2 for those with "b"


def test_l2_norm_is_over_everything():
    model = one_layer()
    m = table(model, [([0], lambda: move(model, 0, A + B))], n_train=1, norm="l2")
    np.testing.assert_allclose(m, [[5, 2, np.sqrt(29)]], rtol=1e-6)


def test_padding_tokens_count_each_time_they_stand_there():
    model = one_layer()
    end = change_of({"</s>": (1.0, 0.0)})
    m = table(model, [([0], lambda: move(model, 0, end))], n_train=1)
    np.testing.assert_allclose(m, [[3, 3, 2]])  # five positions less start and words


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [("all", 1 + 10 + 2 * 100 + 1000), ("no-bos", 10 + 2 * 100 + 1000), ("words", 10 + 1000), ("modifier", 1000)],
)
def test_token_masks(tokens, expected):
    model = one_layer()
    change = change_of({"<s>": (1, 0), "a": (10, 0), "</s>": (100, 0), "<new1>": (1000, 0)})
    m = table(model, [([0], lambda: move(model, 0, change))], prompts=("a <new1>",), n_train=1, tokens=tokens)
    np.testing.assert_allclose(m, [[expected]])


def test_first_delta_can_be_skipped_as_in_the_printed_algorithm():
    def run(first_delta):
        model = one_layer()
        steps = [([0], lambda: move(model, 0, A)), ([0], lambda: move(model, 0, A)), ([1], lambda: move(model, 0, B))]
        return table(model, steps, first_delta=first_delta)

    np.testing.assert_allclose(run("count"), [[14, 0, 14], [0, 2, 2]])
    np.testing.assert_allclose(run("skip"), [[7, 0, 7], [0, 2, 2]])


def test_every_image_of_a_batch_gets_the_whole_change_once():
    model = one_layer()
    m = table(model, [([0, 2, 2], lambda: move(model, 0, A))], prompts=("a",), n_train=3)
    np.testing.assert_allclose(m, [[7], [0], [7]])


def test_layer_mean_lets_a_narrow_layer_count_as_much_as_a_wide_one():
    def run(**options):
        model = ToyModel(**{"down_blocks.0": torch.zeros(1, 6), "up_blocks.0": torch.zeros(4, 6)})

        def step():
            move(model, 0, change_of({"a": (2.0,)}, width=1))
            move(model, 1, change_of({"a": (1.0, 1.0, 1.0, 1.0)}, width=4))

        return table(model, [([0], step)], prompts=("a",), n_train=1, **options).item()

    assert run() == 2 + 4
    np.testing.assert_allclose(run(reduction="layer-mean"), (2 / (5 * 1) + 4 / (5 * 4)) / 2)  # five tokens
    rms = (np.sqrt(4 / 5) + np.sqrt(4 / 20)) / 2
    np.testing.assert_allclose(run(reduction="layer-mean", norm="l2"), rms, rtol=1e-6)
    assert run(layers="down") == run(layers=("down_blocks.0",)) == 2
    assert run(layers="up") == 4
    with pytest.raises(MethodError, match="no value layer"):
        run(layers=("up_blocks.1",))
    with pytest.raises(MethodError, match="layers='mid'"):
        run(layers="mid")


def test_chunking_changes_nothing(monkeypatch):
    model = one_layer()
    whole = table(model, [([0], lambda: move(model, 0, A + B))], n_train=1)
    monkeypatch.setattr(monitor_module, "BLOCK_FLOATS", 1)
    monkeypatch.setattr(monitor_module, "ENCODED_AT_ONCE", 1)
    np.testing.assert_array_equal(table(model, [([0], lambda: move(model, 0, A + B))], n_train=1), whole)


def test_prompts_are_encoded_anew_only_when_their_modifier_moved():
    model = ToyModel(**{"mid": change_of({"<new1>": (1, 0), "<new2>": (0, 1), "a": (1, 1)})})
    watch = ValueMonitor(prompts=("a", "a <new1>", "a <new2>", "<new1> <new2>")).start(model, 1, n_steps=1)
    model.n_encoded = 0

    def nudge():
        with torch.no_grad():
            model.modifiers["<new1>"][ToyModel.words.index("a")] += 0.5

    watch.after_step([0])
    assert model.n_encoded == 0
    nudge()
    watch.after_step([0])
    assert model.n_encoded == 2
    np.testing.assert_allclose(watch.finish()["table"], [[0, 1, 0, 1]])  # 0.5 · W[:, a] = (0.5, 0.5)


def test_a_prompt_is_monitored_once():
    with pytest.raises(MethodError, match="twice"):
        ValueMonitor(prompts=("a", "b", "a"))
    with pytest.raises(MethodError, match="nothing to monitor"):
        ValueMonitor(prompts=())


# ------------------------------------------------------------------------------- optimizer leakage


def two_alternating_samples(optimizer_of, correction: str) -> np.ndarray:
    """Sample i trains only column i of W_v (word "a" or "b"); prompt j reads only column j."""
    model = one_layer()
    weight = model.layers["mid_block.attn2.to_v"].weight
    optimizer = optimizer_of([weight])
    watch = ValueMonitor(prompts=("a", "b"), correction=correction).start(model, 2, n_steps=1)
    for step in range(100):
        row = step % 2
        optimizer.zero_grad()
        (weight[:, 2 + row] - torch.tensor([5.0, -3.0])).square().sum().backward()
        optimizer.step()
        watch.after_step([row])
    m = watch.finish()["table"]
    return m / m.sum(axis=0)


def test_sgd_gives_the_perfect_table():
    np.testing.assert_allclose(two_alternating_samples(lambda p: torch.optim.SGD(p, lr=0.01), "none"), np.eye(2))


def test_adam_leaks_and_the_correction_restores_the_table():
    def adam(parameters):
        return torch.optim.Adam(parameters, lr=0.01, betas=(0.9, 0.99))

    leaked = two_alternating_samples(adam, "none")
    assert (np.abs(leaked - 0.5) < 0.1).all()  # almost even
    np.testing.assert_allclose(two_alternating_samples(adam, "momentum"), np.eye(2))


def test_the_correction_is_the_sgd_table_when_there_is_no_memory():
    def tables(correction):
        torch.manual_seed(0)
        model = ToyModel(**{"mid": torch.randn(3, 6)})
        parameters = [model.layers["mid"].weight, *model.modifiers.values()]
        optimizer = torch.optim.SGD(parameters, lr=1e-6)
        watch = ValueMonitor(prompts=("a <new1>", "<new2>"), correction=correction).start(model, 3, n_steps=1)
        for row, prompt in enumerate(("a <new1>", "b <new2>", "<new1>")):
            optimizer.zero_grad()
            values = model.encode_prompts(model.tokenize([prompt])) @ model.layers["mid"].weight.T
            values.square().sum().backward()
            optimizer.step()
            watch.after_step([row])
        return watch.finish()["table"]

    np.testing.assert_allclose(tables("none") / 1e-6, tables("momentum"), rtol=0.05)  # float32 cancels at 1e-6


def test_the_correction_says_when_gradients_are_gone():
    watch = ValueMonitor(prompts=("a",), correction="momentum").start(one_layer(), 1, n_steps=1)
    with pytest.raises(MethodError, match="before gradients are cleared"):
        watch.after_step([0])


# -------------------------------------------------------------------------------- a small real model

PROMPTS = ("a cat", "a <new1> cat", "<new2> and <new1> together", "photo of <new2>")
OPTIMIZERS = {
    "adam-loop": lambda p: torch.optim.Adam(p, lr=1e-2, foreach=False),
    "adam-foreach": lambda p: torch.optim.Adam(p, lr=1e-2, foreach=True),
    "adam-fused": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1.0),
}


def train(model, optimizer_of, watch=None, n_steps=5):
    weights = [layer.weight.requires_grad_(True) for layer in model.value_layers().values()]
    vectors = [vector.requires_grad_(True) for vector in model.modifiers.values()]
    optimizer = optimizer_of(weights + vectors)
    for step in range(n_steps):
        optimizer.zero_grad(set_to_none=True)
        states = model.encode_prompts([("photo of <new1> cat", "photo of <new2> dog")[step % 2]])
        sum((states @ w.T).square().mean() for w in weights).backward()
        optimizer.step()
        if watch is not None:
            watch(step)


@torch.no_grad()
def all_values(model) -> torch.Tensor:
    states = model.encode_prompts(PROMPTS).double()
    return torch.cat([states @ layer.weight.double().T for layer in model.value_layers().values()], dim=2)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_table_equals_encoding_every_prompt_at_every_step(small_model, optimizer):
    expected = np.zeros((2, len(PROMPTS)))
    before = all_values(small_model)
    watch = ValueMonitor(prompts=PROMPTS).start(small_model, 2, n_steps=1)

    def both(step):
        nonlocal before
        watch.after_step([step % 2])
        now = all_values(small_model)
        expected[step % 2] += (now - before).abs().sum(dim=(1, 2)).numpy()
        before = now

    train(small_model, OPTIMIZERS[optimizer], both)
    np.testing.assert_allclose(watch.finish()["table"], expected, rtol=1e-5)


@pytest.mark.parametrize("correction", ["none", "momentum"])
def test_observing_leaves_weights_gradients_and_random_numbers_alone(small_model_folder, correction):
    from attribench.diffusion.model import DiffusionModel

    def run(observed: bool):
        model = DiffusionModel.load(small_model_folder)
        model.add_modifiers({"<new1>": "cat", "<new2>": None})
        torch.manual_seed(7)
        watch = ValueMonitor(prompts=PROMPTS, correction=correction).start(model, 2, n_steps=1) if observed else None
        train(model, OPTIMIZERS["adam-loop"], watch and (lambda step: watch.after_step([step % 2])))
        gradients = [layer.weight.grad for layer in model.value_layers().values()]
        flags = [module.training for module in (*model.unet.modules(), *model.text_encoder.modules())]
        return model.trained_weights(), gradients, flags, torch.get_rng_state()

    weights, gradients, flags, state = run(observed=True)
    weights_alone, gradients_alone, flags_alone, state_alone = run(observed=False)
    assert all(torch.equal(weights[name], weights_alone[name]) for name in weights)
    assert all(torch.equal(a, b) for a, b in zip(gradients, gradients_alone, strict=True))
    assert flags == flags_alone
    assert torch.equal(state, state_alone)


def test_the_correction_is_the_derivative_along_the_gradient(small_model):
    """Against central differences of V for a small step along the gradient and back."""
    watch = ValueMonitor(prompts=PROMPTS, correction="momentum").start(small_model, 2, n_steps=1)
    step_size, seen = 1e-3, []

    @torch.no_grad()
    def compare(step):
        watch.after_step([step])
        parameters = [layer.weight for layer in small_model.value_layers().values()]
        parameters += [v for v in small_model.modifiers.values() if v.grad is not None]
        kept = [p.clone() for p in parameters]
        largest = max(p.grad.abs().max() for p in parameters)
        sides = []
        for sign in (1, -1):
            for p, start in zip(parameters, kept, strict=True):
                p.copy_(start + sign * step_size / largest * p.grad)
            sides.append(all_values(small_model))
        for p, start in zip(parameters, kept, strict=True):
            p.copy_(start)
        seen.append(((sides[0] - sides[1]).abs().sum(dim=(1, 2)) * largest / (2 * step_size)).numpy())

    train(small_model, OPTIMIZERS["adam-loop"], compare, n_steps=2)
    np.testing.assert_allclose(watch.finish()["table"], np.stack(seen), rtol=5e-3)
