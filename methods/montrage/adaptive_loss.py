"""The adaptive DML loss of MONTRAGE (Eq. 8 and 9) and the triplet loss it is compared with (supplement, Eq. 2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import l1_loss

TRIPLET_MARGIN = 1.0


def adaptive_triplet_loss(p_ap: Tensor, p_np: Tensor, gt_ap: Tensor, gt_np: Tensor) -> Tensor:
    """Eq. 8: mean over the batch of max(P_np + m − P_ap, 0), with the margin m = GT_ap − GT_np of each pair.

    All arguments [B]: predictions and true attributions of the anchor's positive (ap) and negative (np) pair.
    """
    margins = gt_ap - gt_np
    return (p_np + margins - p_ap).clamp(min=0).mean()


def adaptive_dml_loss(p_ap: Tensor, p_np: Tensor, gt_ap: Tensor, gt_np: Tensor) -> Tensor:
    """Eq. 9: L1(P_ap, GT_ap) + L1(P_np, GT_np) + Eq. 8. The L1 terms are means over the batch."""
    return l1_loss(p_ap, gt_ap) + l1_loss(p_np, gt_np) + adaptive_triplet_loss(p_ap, p_np, gt_ap, gt_np)


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = TRIPLET_MARGIN) -> Tensor:
    """Mean over the batch of max(0, ||a − p||² − ||a − n||² + margin) for embeddings [B, d]."""
    to_positive = (anchor - positive).square().sum(dim=1)
    to_negative = (anchor - negative).square().sum(dim=1)
    return (to_positive - to_negative + margin).clamp(min=0).mean()
