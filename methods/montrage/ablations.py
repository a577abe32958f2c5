"""MONTRAGE with one choice changed, to be run beside it: the ablations of its supplement, B.2.

Each is MONTRAGE with another default; `--method montrage --method montrage-triplet` compares the two in one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from . import Montrage


@dataclass(frozen=True, kw_only=True)
class MontrageTriplet(Montrage):
    """MONTRAGE whose attribution model is trained with the plain triplet loss (supplement Eq. 2 and Figure 3).

    Squared L2 distance of the unit embeddings and a margin of 1; the same table, pairs and schedule.
    """

    name: ClassVar[str] = "montrage-triplet"

    loss: Literal["adaptive", "triplet"] = "triplet"


@dataclass(frozen=True, kw_only=True)
class MontrageVit(Montrage):
    """MONTRAGE on the features of a ViT trained to classify ImageNet (supplement Figure 4).

    Which ViT is not stated; this is the base model at 224 pixels. Its weights come from the hub, once.
    """

    name: ClassVar[str] = "montrage-vit"

    encoder: str = "timm/vit_base_patch16_224"


@dataclass(frozen=True, kw_only=True)
class MontrageDino(Montrage):
    """MONTRAGE on the features of DINO (supplement Figure 4).

    Which DINO is not stated; this is the base model with patches of 16 pixels. Its weights come from the hub, once.
    """

    name: ClassVar[str] = "montrage-dino"

    encoder: str = "timm/vit_base_patch16_224.dino"
