"""Random projections of per-sample gradients: from millions of parameters to a few thousand numbers.

All but "trak" keep inner products on average, E⟨Px, Py⟩ = ⟨x, y⟩. With k = dim and d parameters:

    none        the gradients themselves
    trak        the trak package's dense projector, entry by entry; E⟨Px, Py⟩ = k⟨x, y⟩, since its entries have unit
                variance. TRAKer then divides by √d (`normalize_factor`); whoever wants TRAK's features does the same.
    sjlt        sparse Johnson–Lindenstrauss: each coordinate goes to `sparsity` of the k sums with a random sign
                (Kane and Nelson 2014, arXiv 1012.1577, the block construction)
    factored    LᵀGR per layer, `factor_dim` per side, then the sparse mix of all layers to k (the two-sided form is
                LoGra's, Choe et al. 2024, arXiv 2405.13954)
    layerwise   LᵀGR alone: the layers stay apart

What is drawn depends on (seed, layer, side, model_id) alone, is drawn on the CPU, and is never written to disk.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from attribench.diffusion.noise import seed_of
from attribench.errors import MethodError, Unavailable
from attribench.gradients.factors import Factor

Kind = Literal["none", "trak", "sjlt", "factored", "layerwise"]
Distribution = Literal["normal", "rademacher", "orthogonal"]
Device = str | torch.device
Shapes = Mapping[str, tuple[int, int]]
"""(out, in) of each layer, in the order in which gradients are flattened."""

MAX_BATCH = 32
"""TRAKer's default `proj_max_batch_size`; it decides how parameters are cut into chunks."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Which projection; the fields are its identity. `dim` is None for "none" and "layerwise", which follow the layers."""

    kind: Kind = "factored"
    dim: int | None = 2048
    seed: int = 0
    factor_dim: int = 128
    """Longest side of a layer after the two-sided projection."""
    sparsity: int = 1
    """Sums that each coordinate goes to."""
    distribution: Distribution | None = None
    """Of "trak" and the two-sided matrices. None: TRAKer's choice (normal on CPU, Rademacher elsewhere); orthogonal."""

    def projector(self, shapes: Shapes, device: Device) -> Projector:
        """The projector for layers of these shapes. Raises MethodError for fields that cannot be."""
        kind, dim = self.kind, self.dim
        if kind not in get_args(Kind):
            raise MethodError(f"no projection is called {kind!r}; use one of {', '.join(get_args(Kind))}")
        if not shapes:
            raise MethodError("there are no layers to project the gradients of; name a parameter group that the model has")
        if kind in ("none", "layerwise"):
            if dim is not None:
                raise MethodError(f"projection {kind!r} has the dimension of its layers, yet dim={dim} is asked; set dim to None")
        elif dim is None or dim < 1:
            raise MethodError(f"projection {kind!r} needs a dimension of at least 1, not {dim}; 2048 is usual")
        if self.factor_dim < 1:
            raise MethodError(f"factor_dim must be at least 1, not {self.factor_dim}; 64 is usual")
        if kind in ("sjlt", "factored") and not 1 <= self.sparsity <= dim:
            raise MethodError(f"sparsity must lie between 1 and dim={dim}, not {self.sparsity}; 1 is usual")
        if self.distribution is not None and self.distribution not in get_args(Distribution):
            names = ", ".join(get_args(Distribution))
            raise MethodError(f"no distribution is called {self.distribution!r}; use one of {names}")
        classes = {"trak": Trak, "sjlt": Mixed, "factored": Mixed, "none": Layerwise, "layerwise": Layerwise}
        return classes[kind](shapes, device, self)


class Projector(ABC):
    """Maps the gradients of n samples to features [n, dim] float32."""

    dim: int
    blocks: Mapping[str, slice] | None = None
    """The columns of each layer, where layers stay apart."""

    def __init__(self, shapes: Shapes, device: Device) -> None:
        self.shapes = {name: (int(out), int(columns)) for name, (out, columns) in shapes.items()}
        self.device = torch.device(device)

    def __call__(self, factors: Mapping[str, Factor], model_id: int = 0) -> Tensor:
        """Features [n, dim] float32. Another `model_id` means another random matrix, for the models of an ensemble."""
        found = {name: tuple(factor.shape) for name, factor in factors.items()}
        if found != self.shapes:
            odd = next(name for name in {**self.shapes, **found} if found.get(name) != self.shapes.get(name))
            raise MethodError(
                f"layer {odd!r} has gradients of shape {found.get(odd)}, the projector expects {self.shapes.get(odd)}; "
                "make the projector from the layers of this model"
            )
        return self._project({name: factors[name] for name in self.shapes}, model_id)

    @abstractmethod
    def _project(self, factors: dict[str, Factor], model_id: int) -> Tensor: ...


class Trak(Projector):
    """trak 0.3.2's projectors, made as TRAKer(use_half_precision=False).init_projector makes them."""

    def __init__(self, shapes: Shapes, device: Device, projection: Projection) -> None:
        super().__init__(shapes, device)
        dim, seed, distribution = projection.dim, projection.seed, projection.distribution
        if distribution == "orthogonal":
            raise MethodError("the trak projector draws 'normal' or 'rademacher' numbers, not 'orthogonal'; choose one of these")
        try:
            from trak import projectors
            from trak.utils import get_parameter_chunk_sizes
        except ImportError as error:
            raise Unavailable("projection 'trak' needs the trak package; run pip install traker, or choose 'sjlt'") from error
        self.dim = dim
        kind = projectors.ProjectionType(distribution or ("normal" if self.device.type == "cpu" else "rademacher"))
        parameters = sum(out * columns for out, columns in self.shapes.values())
        common = {"proj_dim": dim, "proj_type": kind, "max_batch_size": MAX_BATCH, "dtype": torch.float32, "device": self.device}
        self._chunked = False
        if self.device.type == "cpu" or find_spec("fast_jl") is None:
            self._projector = projectors.BasicProjector(grad_dim=parameters, seed=seed, **common)
            return
        layers = torch.nn.ParameterList(torch.empty(shape, device="meta") for shape in self.shapes.values())
        largest, sizes = get_parameter_chunk_sizes(layers, MAX_BATCH)
        self._chunked = len(sizes) > 1
        if not self._chunked:
            self._projector = projectors.CudaProjector(grad_dim=parameters, seed=seed, **common)
            return
        seeds = np.random.default_rng(seed).integers(low=0, high=500, size=len(sizes))  # as TRAKer seeds its chunks
        parts = [projectors.CudaProjector(grad_dim=size, seed=int(s), **common) for size, s in zip(sizes, seeds, strict=True)]
        self._projector = projectors.ChunkedCudaProjector(parts, largest, sizes, MAX_BATCH, self.device, torch.float32)

    def _project(self, factors: dict[str, Factor], model_id: int) -> Tensor:
        layers = {name: factor.matrix().float() for name, factor in factors.items()}
        if not self._chunked:
            return self._projector.project(torch.cat([g.flatten(1) for g in layers.values()], dim=1), model_id=model_id)
        n = next(iter(layers.values())).shape[0]  # its input buffer holds MAX_BATCH samples and cuts off the rest
        batches = ({name: g[i : i + MAX_BATCH] for name, g in layers.items()} for i in range(0, n, MAX_BATCH))
        return torch.cat([self._projector.project(batch, model_id=model_id) for batch in batches])


class Layerwise(Projector):
    """LᵀGR of each layer, where a side that is short enough is kept exactly: for "none" each is."""

    def __init__(self, shapes: Shapes, device: Device, projection: Projection) -> None:
        super().__init__(shapes, device)
        self._projection, self._kept = projection, None
        self._longest = projection.factor_dim if projection.kind in ("layerwise", "factored") else math.inf
        self._sizes = {name: math.prod(min(side, self._longest) for side in shape) for name, shape in self.shapes.items()}
        ends = accumulate(self._sizes.values())
        self.blocks = {name: slice(end - size, end) for (name, size), end in zip(self._sizes.items(), ends, strict=True)}
        self.dim = sum(self._sizes.values())

    def drawn(self, model_id: int) -> dict[str, tuple]:
        """What is random about each layer, on `device`. One model's draws are kept: models are read one by one."""
        if self._kept is None or self._kept[0] != model_id:
            self._kept = None  # first let go of the other model's
            self._kept = model_id, {name: self._draw(name, model_id) for name in self.shapes}
        return self._kept[1]

    def _draw(self, name: str, model_id: int) -> tuple:
        of, longest = self._projection, self._longest
        return tuple(
            None
            if length <= longest
            else side_matrix(length, longest, of.distribution or "orthogonal", of.seed, name, side, model_id).to(self.device)
            for length, side in zip(self.shapes[name], ("left", "right"), strict=True)
        )

    def _project(self, factors: dict[str, Factor], model_id: int) -> Tensor:
        sides = self.drawn(model_id)
        return torch.cat([factor.two_sided(*sides[name]).flatten(1).float() for name, factor in factors.items()], dim=1)


class Mixed(Layerwise):
    """The same, all layers mixed to `dim` sums."""

    def __init__(self, shapes: Shapes, device: Device, projection: Projection) -> None:
        super().__init__(shapes, device, projection)
        self.blocks, self.dim = None, projection.dim

    def _draw(self, name: str, model_id: int) -> tuple:
        of = self._projection
        sketch = Sketch(self._sizes[name], self.dim, of.sparsity, self.device, "sjlt", of.seed, name, model_id)
        return *super()._draw(name, model_id), sketch

    def _project(self, factors: dict[str, Factor], model_id: int) -> Tensor:
        out = torch.zeros(next(iter(factors.values())).n, self.dim, device=self.device)
        for name, (left, right, sketch) in self.drawn(model_id).items():
            sketch.add(factors[name].two_sided(left, right).flatten(1), out)
        return out


# ------------------------------------------------------------------------------- random matrices


def side_matrix(length: int, dim: int, distribution: Distribution, *key: str | int) -> Tensor:
    """A random matrix R [length, dim] float32 with E[RRᵀ] = I, on the CPU.

    "orthogonal" takes a random subspace, scaled: its variance is that of "normal" times about 1 - dim/length.
    """
    generator = torch.Generator().manual_seed(seed_of("two-sided", distribution, *key))
    if distribution == "rademacher":
        return (torch.randint(0, 2, (length, dim), generator=generator).float() * 2 - 1) / math.sqrt(dim)
    normal = torch.randn(length, dim, generator=generator, dtype=torch.float64)
    if distribution == "normal":
        return (normal / math.sqrt(dim)).float()
    return (torch.linalg.qr(normal).Q * math.sqrt(length / dim)).float()


class Sketch:
    """A sparse ±1/√s matrix S [size, dim] with s non-zeros per row, kept as indices and signs: 5·s·size bytes.

    The dim sums are cut into s ranges, and each range gets every coordinate once. Within a range, coordinates are
    taken in windows; a window is permuted at random, signed, and cut into rows that are added up. So two coordinates
    meet within a range with probability at most s/dim, as when each is hashed on its own, and the variance of an
    inner product is no larger: (‖x‖²‖y‖² + ⟨x,y⟩²)/dim at most, whatever s. Unlike adding by index this needs no
    atomic additions, hence is deterministic on CUDA, and it reads memory in windows that fit the cache.
    """

    WINDOW = 2**15

    def __init__(self, size: int, dim: int, sparsity: int, device: torch.device, *key: str | int) -> None:
        edges = [dim * i // sparsity for i in range(sparsity + 1)]
        self.scale = 1 / math.sqrt(sparsity)
        self.parts: list[tuple[int, int, Tensor, Tensor]] = []
        for number, (start, stop) in enumerate(zip(edges, edges[1:], strict=False)):
            generator = torch.Generator().manual_seed(seed_of(*key, number))
            width = stop - start
            slots = math.ceil(size / width) * width
            window = max(1, self.WINDOW // width) * width
            order = torch.empty(slots, dtype=torch.int32)
            for i in range(0, slots, window):
                order[i : i + window] = i + torch.randperm(min(window, slots - i), generator=generator, dtype=torch.int32)
            sign = torch.randint(0, 2, (slots,), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
            sign[order >= size] = 0  # slots without a coordinate
            self.parts.append((start, width, order.clamp_(max=size - 1).to(device), sign.to(device)))

    def add(self, x: Tensor, out: Tensor) -> None:
        """out [n, dim] += x S for x [n, size]."""
        at_once = self.WINDOW if x.device.type == "cpu" else 128 * self.WINDOW  # few kernel launches
        for start, width, order, sign in self.parts:
            step = max(1, at_once // width) * width
            for i in range(0, len(order), step):
                rows = x.index_select(1, order[i : i + step]).float().unflatten(1, (-1, width))
                out[:, start : start + width].add_(rows.mul_(sign[i : i + step].view(-1, width)).sum(1), alpha=self.scale)
