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

from attribench.errors import MethodError, Unavailable
from attribench.gradients.curvature import Curvature, Identity, Kind
from attribench.gradients.diffusion import GradientReader
from attribench.gradients.fisher import Fisher
from attribench.gradients.groups import Group
from attribench.interface import Access, AttributionMethod, Edition, Features, Queries, Scores, State, Study

from ..gradient import Positive, best_version
from .newton import Ascent
from .published import LAION, published
from .sweep import Sweep, keep_latents

STEP_SIZES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Tried by "tuned": rises of the query's loss, relative to it."""
STEPS = 1
"""Where it is left open in the mini edition."""
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
    takes_regions: ClassVar[bool] = True
    rise: ClassVar[float] = 1.0
    """What step_size=None means in the mini edition: docs/unlearning.md says how it was chosen."""

    group: Group = "cross-attention-kv"
    """The weights that unlearn. The paper's best; full, attention and cross-attention are its ablations."""
    curvature: Kind = "diagonal"
    fisher_of: Literal["study", "base"] = "study"
    """study: F of the trained model over its own training images. base: F of the base model over pictures that no study
    is about, made once for all studies of a data set, as the paper reuses Stable Diffusion's."""
    damping: Annotated[float, Ge(0)] | None = None
    """Times a layer's mean curvature, added to each entry. None: 0 for diagonal as in the paper, 0.1 for ekfac."""
    steps: Positive | None = None
    """None: what is published, or else one."""
    step_size: Annotated[float, Gt(0)] | Literal["tuned", "published"] | None = None
    """published: the paper's α and N for these weights and steps, of a customized model or of one trained from scratch.
    tuned: each of five relative sizes is a candidate. None: `rise` (relative) for mini, published for paper."""
    step_unit: Literal["relative", "absolute"] = "relative"
    """relative: the rise of the query's loss that all steps together are to cause to first order, as part of that loss,
    so that a value means the same for any model, group and curvature. absolute: α of the paper."""
    dataset_size: Positive | None = None
    """N of absolute steps: α/N for diagonal, α/N² for ekfac (its published gain), α for identity. None: n_train."""
    fisher_draws: Positive | None = None
    """(caption, timestep, noise) draws of each image and version. None: 20 for mini, 5 for paper (MSCOCO's epochs); of
    fisher_of=base 5 and 20."""
    query_timesteps: Positive | None = None
    """Of the query's gradient, in each step, one in each of as many parts of the schedule. None: 40 mini, 400 paper."""
    sweep: Literal["losses", "first-order"] = "losses"
    timesteps: Positive | None = None
    """Strided, of a training image's loss. None: 10 for mini, 20 for paper (10 for its customized models)."""

    def __post_init__(self) -> None:
        if self.step_unit == "absolute" and not isinstance(self.step_size, float):
            raise MethodError("step_unit=absolute needs step_size=NUMBER; docs/unlearning.md lists the published ones")
        if self.sweep == "first-order" and self.step_size == "tuned" and (self.steps or STEPS) == 1:
            raise MethodError("the step size scales first-order scores and changes no order; give step_size a number")

    def resolve(self, edition: Edition) -> Self:
        """Counts that were left open; the steps of a published size stay so, since they depend on how a study was trained."""
        mini = edition == "mini"
        size = self.step_size or (self.rise if mini else "published")
        draws = {"study": (20, 5), "base": (5, 20)}[self.fisher_of]
        return dataclasses.replace(
            self,
            damping=(0.1 if self.curvature == "ekfac" else 0.0) if self.damping is None else self.damping,
            steps=self.steps or (None if size == "published" else STEPS),
            step_size=size,
            fisher_draws=self.fisher_draws or draws[0 if mini else 1],
            query_timesteps=self.query_timesteps or (40 if mini else 400),
            timesteps=self.timesteps or (10 if mini else 20),
        )

    def skip_models(self, *, customized: bool) -> str | None:
        """For models of which the papers name no step size for these weights, this curvature and these steps."""
        try:
            if self.step_size == "published":
                self._published(customized)
        except Unavailable as error:
            return str(error)
        return None

    def candidates(self) -> tuple[Self, ...]:
        if self.step_size != "tuned":
            return ()
        return tuple(dataclasses.replace(self, step_size=size) for size in STEP_SIZES)

    def default_candidate(self) -> int:
        return STEP_SIZES.index(self.rise)

    def features(self) -> tuple[Features, ...]:
        if self.curvature == "identity":
            return ()
        draws = self.resolve("mini").fisher_draws
        return (Fisher(kind=self.curvature, group=self.group, draws=draws, of=self.fisher_of),)

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
        ascent = own._ascent(study, reader)
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

    def _ascent(self, study: Study, reader: GradientReader) -> Ascent:
        return Ascent(reader, self._curvature(study, reader), *self._step(study), self.query_timesteps)

    def _step(self, study: Study) -> tuple[int, float, float | None]:
        """How many steps, their size, and what it is divided by; None for a relative size."""
        steps, size, divisor, n = self.steps, self.step_size, None, self.dataset_size or len(study.train)
        if size == "published":
            customized = bool(study.model.modifiers)
            steps, size = self._published(customized)
            n = self.dataset_size or (LAION if customized else n)
        if self.step_size == "published" or self.step_unit == "absolute":
            divisor = {"identity": 1.0, "diagonal": float(n), "ekfac": float(n) ** 2}[self.curvature]
        return steps, size, divisor

    def _published(self, customized: bool) -> tuple[int, float]:
        return published("customized" if customized else "from scratch", self.curvature, self.group, self.steps)

    def _curvature(self, study: Study, reader: GradientReader) -> Curvature:
        if not self.features():
            return Identity()
        (fisher,) = self.features()
        return fisher.curvature(study.features(fisher), reader, self.damping)
