"""MONTRAGE with one choice changed, to be run beside it: the ablations of its supplement, B.2.

Each is MONTRAGE with another default; `--method montrage --method montrage-triplet` compares the two in one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from attribench import encoders
from attribench.interface import Edition

from . import Montrage
from .attribution_model import Head


@dataclass(frozen=True, kw_only=True)
class MontrageScaler(Montrage):
    """MONTRAGE whose head is the Scaler alone, as section 4.2 says it to the letter: a scale and a shift of each feature."""

    name: ClassVar[str] = "montrage-scaler"

    head: Head = "scaler"
    learning_rate: float = 1e-2


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

    Which ViT is not stated; this is that of the `vit` baseline. Its weights come from the hub, once.
    """

    name: ClassVar[str] = "montrage-vit"

    encoder: str = "vit_base_patch16_384"


@dataclass(frozen=True, kw_only=True)
class MontrageDino(Montrage):
    """MONTRAGE on the features of DINO (supplement Figure 4).

    Which DINO is not stated; this is that of the `dino` baseline, on a mini edition dino-tiny.
    """

    name: ClassVar[str] = "montrage-dino"
    embedders: ClassVar[Mapping[Edition, str]] = encoders.DINO
