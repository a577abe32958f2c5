"""Equations 8 and 9 and the triplet loss on numbers worked out by hand."""

import pytest
import torch
from attribench.methods.montrage.adaptive_loss import adaptive_dml_loss, adaptive_triplet_loss, triplet_loss

P_AP = torch.tensor([0.9, 0.5, 0.6])
P_NP = torch.tensor([0.2, 0.4, 0.7])
GT_AP = torch.tensor([0.8, 0.9, 0.5])
GT_NP = torch.tensor([0.3, 0.1, 0.5])
# margins m = 0.5, 0.8, 0.0; P_np + m - P_ap = -0.2, 0.7, 0.1


def test_adaptive_triplet_loss_is_equation_8():
    assert adaptive_triplet_loss(P_AP, P_NP, GT_AP, GT_NP).item() == pytest.approx((0 + 0.7 + 0.1) / 3)


def test_adaptive_dml_loss_is_equation_9():
    positive = (0.1 + 0.4 + 0.1) / 3
    negative = (0.1 + 0.3 + 0.2) / 3
    assert adaptive_dml_loss(P_AP, P_NP, GT_AP, GT_NP).item() == pytest.approx(positive + negative + 0.8 / 3)


def test_a_perfect_prediction_costs_nothing():
    assert adaptive_dml_loss(GT_AP, GT_NP, GT_AP, GT_NP).item() == pytest.approx(0, abs=1e-7)


def test_triplet_loss_uses_squared_distances_and_margin_one():
    anchor = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    positive = torch.tensor([[1.0, 0.0], [1.0, 1.0]])  # squared distances 1 and 2
    negative = torch.tensor([[2.0, 0.0], [1.0, 0.0]])  # squared distances 4 and 1
    assert triplet_loss(anchor, positive, negative).item() == pytest.approx((0 + 2) / 2)
