"""Attribution by unlearning: forget the generated picture, and see which training images go with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from attribench.errors import MethodError
from attribench.gradients.curvature import Curvature, Identity, Kind
from attribench.gradients.diffusion import GradientReader
from attribench.gradients.fisher import Fisher
from attribench.gradients.groups import Group
from attribench.gradients.region import Region
from attribench.interface import Access, AttributionMethod, Edition, Features, Queries, Scores, State, Study

from ..gradient import Positive, best_version
from .newton import Ascent
from .sweep import Sweep, keep_latents

STEP_SIZES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Tried by "tuned": rises of the query's loss, relative to it."""
RISE = 1.0
CHANGES = 2**30
"""Bytes of changed weights held at a time: that many queries are swept together."""


@dataclass(frozen=True, kw_only=True)
class Unlearning(AttributionMethod):
    """Raise the loss of the generated picture by Newton steps; a training image scores by how much its loss rises too.

        θ ← θ + (α/N) F⁻¹ ∇L(q, θ),    τ(q, i) = L(i, θ) − L(i, θ_0)    with the same noise in both     (equations 5, 6)

    Wang et al., "Data attribution for text-to-image models by unlearning synthesized images", NeurIPS 2024; with
    curvature=ekfac as its successor. F is the Fisher matrix of the training loss, which holds on to what the query does
    not need. curvature=identity is its ablation without F (SGD). The sweep may be replaced by its first-order term
    ⟨∇L(i), θ − θ_0⟩, the influence function (appendix A.3), one pass of gradients for all queries. Needs the trained
    model; `fisher_draws` backward passes an image for F, then for every query `timesteps` forward passes an image.
    """

    name: ClassVar[str] = "unlearning"
    needs: ClassVar[Access] = Access.GRADIENTS

    group: Group = "cross-attention-kv"
    """The weights that unlearn. The paper's best; full, attention and cross-attention are its ablations."""
    curvature: Kind = "diagonal"
    damping: Annotated[float, Ge(0)] | None = None
    """Times a layer's mean curvature, added to each entry. None: 0 for diagonal as in the paper, 0.1 for ekfac."""
    steps: Positive = 1
    step_size: Annotated[float, Gt(0)] | Literal["tuned"] | None = None
    """None: 1 in relative units. "tuned": each of five relative sizes is a candidate. See docs/unlearning.md."""
    step_unit: Literal["relative", "absolute"] = "relative"
    """relative: the rise of the query's loss that all steps together are to cause to first order, as part of that loss,
    so that a value means the same for any model, group and curvature. absolute: α of the paper."""
    dataset_size: Positive | None = None
    """N of absolute steps: α/N for diagonal, α/N² for ekfac (its published gain), α for identity. None: n_train."""
    fisher_draws: Positive | None = None
    """(timestep, noise) draws of each training image and version. None: 20 for mini, 5 for paper (MSCOCO's epochs)."""
    query_timesteps: Positive | None = None
    """Of the query's gradient, in each step, one in each of as many parts of the schedule. None: 40 mini, 400 paper."""
    sweep: Literal["losses", "first-order"] = "losses"
    timesteps: Positive | None = None
    """Strided, of a training image's loss. None: 10 for mini, 20 for paper (10 for its customized models)."""
    region: str | None = None
    """"x,y,w,h" in pixels of the generated picture: unlearn this box alone."""

    def __post_init__(self) -> None:
        if self.region is not None:
            Region.parse(self.region)
        if self.step_unit == "absolute" and not isinstance(self.step_size, float):
            raise MethodError("step_unit=absolute needs step_size=NUMBER; docs/unlearning.md lists the published ones")
        if self.sweep == "first-order" and self.step_size == "tuned" and self.steps == 1:
            raise MethodError("the step size scales first-order scores and changes no order; give step_size a number")

    def resolve(self, edition: Edition) -> Self:
        """Counts that were left open."""
        mini = edition == "mini"
        return dataclasses.replace(
            self,
            damping=(0.1 if self.curvature == "ekfac" else 0.0) if self.damping is None else self.damping,
            step_size=self.step_size or RISE,
            fisher_draws=self.fisher_draws or (20 if mini else 5),
            query_timesteps=self.query_timesteps or (40 if mini else 400),
            timesteps=self.timesteps or (10 if mini else 20),
        )

    def candidates(self) -> tuple[Self, ...]:
        if self.step_size != "tuned":
            return ()
        return tuple(dataclasses.replace(self, step_size=size) for size in STEP_SIZES)

    def default_candidate(self) -> int:
        return STEP_SIZES.index(RISE)

    def features(self) -> tuple[Features, ...]:
        if self.curvature == "identity":
            return ()
        return (Fisher(kind=self.curvature, group=self.group, draws=self.resolve("mini").fisher_draws),)

    # ------------------------------------------------------------------------------------ scoring

    def fit(self, study: Study, state: State) -> None:
        """The latents of the training images, and their losses before any unlearning: once for all queries."""
        keep_latents(study, state)
        sweep = self._sweep(study, state)
        base = state.create("base", (sweep.rows,), "float64")
        start = int((base[:] != 0).sum())  # a loss that is there is not 0
        for rows, losses in sweep.losses([{}], start):
            base[rows] = losses[0].cpu().numpy()
            base.flush()

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        if self.step_size == "tuned":
            raise MethodError("unlearning has no step size of its own: score its candidates, or give step_size a number")
        own = self.resolve("mini")  # what a bench has resolved stays as it is
        reader = GradientReader(study.model, own.group, "loss")
        ascent = Ascent(
            reader=reader,
            curvature=own._curvature(study, reader),
            steps=own.steps,
            step_size=own.step_size,
            divisor=None if own.step_unit == "relative" else own._divisor(study),
            timesteps=own.query_timesteps,
            region=None if own.region is None else Region.parse(own.region),
        )
        sweep = own._sweep(study, state)
        values = np.empty((len(queries), sweep.rows))
        together = max(1, CHANGES // (reader.n_parameters * study.model.unet.dtype.itemsize))
        for start in range(0, len(queries), together):
            some = range(start, min(start + together, len(queries)))
            changes = [ascent.change(queries, i) for i in some]
            values[start : some.stop] = own._rises(sweep, state, changes, [queries.ids[i] for i in some])
        return Scores.of(queries, study.train, best_version(values, study))

    def _rises(self, sweep: Sweep, state: State, changes: list[dict[str, Tensor]], ids: list[str]) -> np.ndarray:
        """[Q, rows]: how much the loss of each training image and version rises under each change of weights."""
        parts = sweep.first_order(changes) if self.sweep == "first-order" else sweep.losses(changes)
        rises = torch.cat([part for _, part in parts], dim=1).double().cpu().numpy()
        if self.sweep == "losses":
            rises = rises - state["base"]
        for query_id, row in zip(ids, rises, strict=True):
            if not np.isfinite(row).all():
                raise MethodError(
                    f"unlearning {query_id!r} diverged: {int((~np.isfinite(row)).sum())} of {row.size} training losses are "
                    f"not finite after it; take a smaller step_size than {self.step_size}"
                )
        return rises

    def _sweep(self, study: Study, state: Mapping[str, np.ndarray]) -> Sweep:
        return Sweep(study, state["latents"], self.resolve("mini").timesteps, self.group)

    def _curvature(self, study: Study, reader: GradientReader) -> Curvature:
        if not self.features():
            return Identity()
        (fisher,) = self.features()
        return fisher.curvature(study.features(fisher), reader, self.damping)

    def _divisor(self, study: Study) -> float:
        n = float(self.dataset_size or len(study.train))
        return {"identity": 1.0, "diagonal": n, "ekfac": n * n}[self.curvature]
