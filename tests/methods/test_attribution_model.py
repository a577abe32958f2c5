"""The siamese head: cosine before training, a planted table after it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attribench.methods.montrage.attribution_model import AttributionModel, shifted_cosine
from attribench.methods.montrage.training import Pairs, Schedule, train
from scipy.stats import spearmanr

PAPER = Schedule(
    loss="adaptive", steps=60, batch_size=128, optimizer="adamw", learning_rate=1e-3, weight_decay=0.0,
    plateau_factor=0.1, plateau_patience=2, negatives_per_positive=1, validation_share=0.1,
)  # fmt: skip
HEADS = ["scaler", "linear"]


def test_shifted_cosine_by_hand():
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    b = torch.tensor([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [4.0, 3.0]])
    torch.testing.assert_close(shifted_cosine(a, b), torch.tensor([1.0, 0.5, 0.0, (1 + 24 / 25) / 2]))


@pytest.mark.parametrize("head", HEADS)
def test_untrained_model_is_the_shifted_cosine_of_the_features(head):
    torch.manual_seed(0)
    generations, images = torch.randn(5, 8), torch.randn(7, 8)
    model, pairs = AttributionModel(8, head), [(g, i) for g in generations.numpy() for i in images.numpy()]
    cosines = [np.dot(g, i) / np.linalg.norm(g) / np.linalg.norm(i) for g, i in pairs]
    expected = (1 + np.reshape(cosines, (5, 7))) / 2
    np.testing.assert_allclose(model.attributions(generations, images).detach(), expected, atol=1e-6)
    np.testing.assert_allclose(model(generations, images[:5]).detach(), np.diag(expected), atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_starts_from_features_of_zero_mean_and_unit_variance(head):
    torch.manual_seed(0)
    features = 3 + 2 * torch.randn(50, 4)
    model = AttributionModel(4, head)
    model.standardize(features)
    expected = torch.nn.functional.normalize((features - features.mean(dim=0)) / features.std(dim=0, correction=0), dim=1)
    torch.testing.assert_close(model.embed(features).detach(), expected)


@pytest.mark.parametrize("head", HEADS)
def test_a_rate_means_the_same_whatever_the_unit_of_the_features(head):
    """Multiplied and moved features give the same model: steps are in units of their spread."""

    def trained(scale, offset):
        pairs, _, _ = planted()
        moved = replace(pairs, generations=scale * pairs.generations + offset, train=scale * pairs.train + offset)
        model = AttributionModel(16, head)
        model.standardize(torch.cat([moved.train, moved.generations]))
        train(model, moved, PAPER, seed=4)
        return model.attributions(moved.generations, moved.train).detach()

    torch.testing.assert_close(trained(1, 0), trained(50, 7), atol=1e-3, rtol=0)


def test_weight_decay_pulls_the_linear_head_back_to_the_features():
    def change(decay):
        pairs, _, _ = planted()
        model = AttributionModel(16, "linear")
        train(model, pairs, replace(PAPER, learning_rate=1e-2, weight_decay=decay), seed=4)
        return model.head.change.detach().norm()

    assert change(10.0) < 0.7 * change(0.0)


def planted(seed: int = 0, n_generations: int = 60) -> tuple[Pairs, torch.Tensor, torch.Tensor]:
    """Two concepts in features of which only the first four of sixteen matter to the attributions.

    The others are a large offset and noise, so that the plain cosine says little.
    """
    random = torch.Generator().manual_seed(seed)
    which = torch.arange(20) % 2
    images = torch.randn(20, 16, generator=random)
    images[:, :4] += 2 * (1 - 2 * which[:, None])
    images[:, 4:] = 2 * images[:, 4:] + 5
    concept = torch.arange(n_generations) % 2
    generations = torch.randn(n_generations, 16, generator=random)
    generations[:, :4] += 2 * (1 - 2 * concept[:, None])
    generations[:, 4:] = 2 * generations[:, 4:] + 5
    hidden = shifted_cosine(generations[:, None, :4], images[None, :, :4])
    truth = hidden**2 / (hidden**2).max(dim=1, keepdim=True).values
    positive = concept[:, None] == which[None]
    prompts = [f"prompt {i // 2} of {i % 2}" for i in range(n_generations)]
    return Pairs(generations=generations, train=images, truth=truth, positive=positive, prompts=prompts), concept, which


def rank_agreement(model: AttributionModel, pairs: Pairs) -> float:
    predicted = model.attributions(pairs.generations, pairs.train).detach().numpy()
    return float(np.mean([spearmanr(p, t).statistic for p, t in zip(predicted, pairs.truth.numpy(), strict=True)]))


@pytest.mark.parametrize("loss", ["adaptive", "triplet"])
@pytest.mark.parametrize("head", HEADS)
def test_training_recovers_a_planted_table_on_unseen_generations(loss, head):
    pairs, _, _ = planted()
    keep = slice(0, 40)
    seen = Pairs(
        generations=pairs.generations[keep], train=pairs.train, truth=pairs.truth[keep],
        positive=pairs.positive[keep], prompts=pairs.prompts[keep],
    )  # fmt: skip
    unseen = Pairs(
        generations=pairs.generations[40:], train=pairs.train, truth=pairs.truth[40:],
        positive=pairs.positive[40:], prompts=pairs.prompts[40:],
    )  # fmt: skip
    model = AttributionModel(16, head)
    model.standardize(torch.cat([seen.train, seen.generations]))
    before = rank_agreement(model, unseen)
    schedule = Schedule(**{**vars(PAPER), "loss": loss, "steps": 200, "learning_rate": 1e-2})
    history = train(model, seen, schedule, seed=4)
    assert len(history) == 10 and history[-1] < 0.7 * history[0]
    assert rank_agreement(model, unseen) > (before + 0.15 if loss == "adaptive" else before + 0.1)


def test_training_is_a_function_of_the_seed():
    def run(seed):
        pairs, _, _ = planted()
        model = AttributionModel(16, "scaler")
        torch.manual_seed(int(torch.randint(2**30, ())))  # the global generator must not matter
        train(model, pairs, PAPER, seed)
        return model.head.log_scale.detach()

    assert torch.equal(run(4), run(4))
    assert not torch.equal(run(4), run(16))


def test_the_rate_falls_on_a_plateau():
    def last_losses(factor):
        pairs, _, _ = planted()
        stuck = {**vars(PAPER), "learning_rate": 1.0, "steps": 400, "plateau_patience": 0, "plateau_factor": factor}
        return train(AttributionModel(16, "linear"), pairs, Schedule(**stuck), seed=4)[-3:]

    assert np.ptp(last_losses(1e-7)) < 1e-6  # nothing moves any more
    assert np.ptp(last_losses(0.999)) > 1e-4


def test_one_concept_has_no_negatives_and_leaves_the_model_as_it_is():
    pairs, _, _ = planted()
    one = Pairs(
        generations=pairs.generations, train=pairs.train, truth=pairs.truth,
        positive=torch.ones_like(pairs.positive), prompts=pairs.prompts,
    )  # fmt: skip
    model = AttributionModel(16, "scaler")
    assert train(model, one, PAPER, seed=4) == []
    assert torch.equal(model.head.log_scale, torch.zeros(16))
