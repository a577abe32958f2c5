"""Attribution by unlearning with one choice changed, to be run beside it: the ablations of the paper's appendix.

Each is `unlearning` with another default. `attribench run --protocol leave-k-out --preset ablation -d mscoco` compares them in
one table, and so do the presets of lds and exemplar-retrieval by that name; or -m unlearning -m unlearning-full … under any
protocol. In the mini edition the step sizes are relative and the same for all of them, but for ten plain steps, which need a
smaller one; in the paper edition they are those that the papers name (`published`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from attribench.gradients.curvature import Kind
from attribench.gradients.groups import Group

from ..gradient import Positive
from . import Unlearning


@dataclass(frozen=True, kw_only=True)
class UnlearningFull(Unlearning):
    """Unlearning with all weights of the UNet (appendix, weight groups)."""

    name: ClassVar[str] = "unlearning-full"
    checked_with: ClassVar[Mapping[str, int]] = {"query_timesteps": 4, "timesteps": 4, "fisher_draws": 4}

    group: Group = "full"


@dataclass(frozen=True, kw_only=True)
class UnlearningAttention(Unlearning):
    """Unlearning with the weights of all attention layers (appendix, weight groups)."""

    name: ClassVar[str] = "unlearning-attention"

    group: Group = "attention"


@dataclass(frozen=True, kw_only=True)
class UnlearningCrossAttention(Unlearning):
    """Unlearning with all weights of cross-attention, queries and outputs included (appendix, weight groups)."""

    name: ClassVar[str] = "unlearning-cross-attention"

    group: Group = "cross-attention"


@dataclass(frozen=True, kw_only=True)
class UnlearningSgd(Unlearning):
    """Unlearning by plain gradient steps, without the Fisher matrix that holds on to the rest (appendix, SGD)."""

    name: ClassVar[str] = "unlearning-sgd"

    curvature: Kind = "identity"


@dataclass(frozen=True, kw_only=True)
class UnlearningSgdTenSteps(UnlearningSgd):
    """Unlearning by ten plain gradient steps in place of one (appendix, SGD of the model that is trained from scratch)."""

    name: ClassVar[str] = "unlearning-sgd-ten-steps"
    checked_with: ClassVar[Mapping[str, int]] = {"query_timesteps": 8, "timesteps": 4}
    rise: ClassVar[float] = 0.1
    """The gradient grows on the way and nothing holds it back: of 1, ten steps lose a planted duplicate among the rest."""

    steps: Positive | None = 10


@dataclass(frozen=True, kw_only=True)
class UnlearningOneStep(Unlearning):
    """Unlearning in a single Newton step (appendix, number of steps)."""

    name: ClassVar[str] = "unlearning-one-step"

    steps: Positive | None = 1


@dataclass(frozen=True, kw_only=True)
class UnlearningManySteps(Unlearning):
    """Unlearning in a hundred Newton steps, as the paper does for customized models (appendix, number of steps)."""

    name: ClassVar[str] = "unlearning-many-steps"
    checked_with: ClassVar[Mapping[str, int]] = {"steps": 10, "query_timesteps": 4, "timesteps": 4, "fisher_draws": 8}

    steps: Positive | None = 100


@dataclass(frozen=True, kw_only=True)
class UnlearningEkfac(Unlearning):
    """Unlearning with an eigenvalue-corrected Kronecker curvature in place of the diagonal, as its successor does."""

    name: ClassVar[str] = "unlearning-ekfac"

    curvature: Kind = "ekfac"
