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

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from attribench.errors import MethodError, Unavailable
from attribench.gradients.factors import Factor
from attribench.gradients.random_matrices import Distribution, Sketch, side_matrix

Kind = Literal["none", "trak", "sjlt", "factored", "layerwise"]
Device = str | torch.device
Shapes = Mapping[str, tuple[int, int]]
"""(out, in) of each layer, in the order in which gradients are flattened."""


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
        return make_projector(
            self.kind, shapes, self.dim, seed=self.seed, device=device,
            factor_dim=self.factor_dim, sparsity=self.sparsity, distribution=self.distribution,
        )  # fmt: skip


def make_projector(
    kind: Kind, shapes: Shapes, dim: int | None, *, seed: int, device: Device,
    factor_dim: int = 128, sparsity: int = 1, distribution: Distribution | None = None,
) -> Projector:  # fmt: skip
    """A projector from gradients of layers with these shapes to `dim` numbers; see `Projection` for the rest."""
    if kind not in get_args(Kind):
        raise MethodError(f"no projection is called {kind!r}; use one of {', '.join(get_args(Kind))}")
    if not shapes:
        raise MethodError("there are no layers to project the gradients of; name a parameter group that the model has")
    if kind in ("none", "layerwise"):
        if dim is not None:
            raise MethodError(f"projection {kind!r} has the dimension of its layers, yet dim={dim} is asked; set dim to None")
    elif dim is None or dim < 1:
        raise MethodError(f"projection {kind!r} needs a dimension of at least 1, not {dim}; 2048 is usual")
    if factor_dim < 1:
        raise MethodError(f"factor_dim must be at least 1, not {factor_dim}; 64 is usual")
    if kind in ("sjlt", "factored") and not 1 <= sparsity <= dim:
        raise MethodError(f"sparsity must lie between 1 and dim={dim}, not {sparsity}; 1 is usual")
    if distribution is not None and distribution not in get_args(Distribution):
        raise MethodError(f"no distribution is called {distribution!r}; use one of {', '.join(get_args(Distribution))}")
    two_sided = (factor_dim, distribution or "orthogonal")
    match kind:
        case "none":
            return Exact(shapes, device)
        case "trak":
            return Trak(shapes, device, dim, seed, distribution)
        case "sjlt":
            return Sparse(shapes, device, dim, seed, sparsity)
        case "factored":
            return Factored(shapes, device, dim, seed, sparsity, *two_sided)
    return Layerwise(shapes, device, seed, *two_sided)


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

    def _keep_apart(self, sizes: Mapping[str, int]) -> None:
        ends = dict(zip(sizes, np.cumsum(list(sizes.values())).tolist(), strict=True))
        self.blocks = {name: slice(ends[name] - size, ends[name]) for name, size in sizes.items()}
        self.dim = sum(sizes.values())


class RandomPerLayer(Projector):
    """A projector that draws something for each layer. One model's draws are kept: models are read one by one."""

    _kept: tuple[int, dict[str, Any]] | None = None

    @abstractmethod
    def draw(self, name: str, shape: tuple[int, int], model_id: int) -> Any:
        """What is random about one layer, on `device`."""

    def drawn(self, model_id: int) -> dict[str, Any]:
        """What was drawn for this model, by layer."""
        if self._kept is None or self._kept[0] != model_id:
            self._kept = None  # first let go of the other model's
            self._kept = model_id, {name: self.draw(name, shape, model_id) for name, shape in self.shapes.items()}
        return self._kept[1]


def _flat(factors: Mapping[str, Factor]) -> Tensor:
    """The exact gradients [n, parameters] float32, layer after layer."""
    return torch.cat([factor.matrix().flatten(1).float() for factor in factors.values()], dim=1)


class Exact(Projector):
    def __init__(self, shapes: Shapes, device: Device) -> None:
        super().__init__(shapes, device)
        self._keep_apart({name: out * columns for name, (out, columns) in self.shapes.items()})

    def _project(self, factors: dict[str, Factor], model_id: int) -> Tensor:
        return _flat(factors)


class Trak(Projector):
    """trak 0.3.2's projectors, made as TRAKer(use_half_precision=False).init_projector makes them."""

    def __init__(self, shapes: Shapes, device: Device, dim: int, seed: int, distribution: Distribution | None) -> None:
        super().__init__(shapes, device)
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
        if not self._chunked:
            return self._projector.project(_flat(factors), model_id=model_id)
        layers = {name: factor.matrix().float() for name, factor in factors.items()}
        n = next(iter(layers.values())).shape[0]  # its input buffer holds MAX_BATCH samples and cuts off the rest
        batches = ({name: g[i : i + MAX_BATCH] for name, g in layers.items()} for i in range(0, n, MAX_BATCH))
        return torch.cat([self._projector.project(batch, model_id=model_id) for batch in batches])


MAX_BATCH = 32
"""TRAKer's default `proj_max_batch_size`; it decides how parameters are cut into chunks."""


class Sparse(RandomPerLayer):
    def __init__(self, shapes: Shapes, device: Device, dim: int, seed: int, sparsity: int) -> None:
        super().__init__(shapes, device)
        self.dim, self._seed, self._sparsity = dim, seed, sparsity

    def draw(self, name: str, shape: tuple[int, int], model_id: int) -> Sketch:
        key = ("sjlt", self._seed, name, model_id)
        return Sketch(shape[0] * shape[1], self.dim, self._sparsity, self.device, *key)

    def _project(self, factors: dict[str, Factor], model_id: int) -> Tensor:
        out = torch.zeros(next(iter(factors.values())).n, self.dim, device=self.device)
        for name, sketch in self.drawn(model_id).items():
            sketch.add(factors[name].matrix().flatten(1), out)
        return out


class Layerwise(RandomPerLayer):
    def __init__(self, shapes: Shapes, device: Device, seed: int, factor_dim: int, distribution: Distribution) -> None:
        super().__init__(shapes, device)
        self._seed, self._factor_dim, self._distribution = seed, factor_dim, distribution
        self._keep_apart({name: min(out, factor_dim) * min(columns, factor_dim) for name, (out, columns) in self.shapes.items()})

    def draw(self, name: str, shape: tuple[int, int], model_id: int) -> tuple[Tensor | None, Tensor | None]:
        return tuple(
            None  # a side that is short enough is kept exactly
            if length <= self._factor_dim
            else side_matrix(length, self._factor_dim, self._distribution, self._seed, name, side, model_id).to(self.device)
            for length, side in zip(shape, ("left", "right"), strict=True)
        )

    def _project(self, factors: dict[str, Factor], model_id: int) -> Tensor:
        sides = self.drawn(model_id)
        return torch.cat([factor.two_sided(*sides[name]).flatten(1).float() for name, factor in factors.items()], dim=1)


class Factored(Projector):
    def __init__(self, shapes: Shapes, device: Device, dim: int, seed: int, sparsity: int, *two_sided: Any) -> None:
        super().__init__(shapes, device)
        self.dim = dim
        self._layerwise = Layerwise(shapes, device, seed, *two_sided)
        small = {name: (1, block.stop - block.start) for name, block in self._layerwise.blocks.items()}
        self._mix = Sparse(small, device, dim, seed, sparsity)

    def _project(self, factors: dict[str, Factor], model_id: int) -> Tensor:
        sides, mix = self._layerwise.drawn(model_id), self._mix.drawn(model_id)
        out = torch.zeros(next(iter(factors.values())).n, self.dim, device=self.device)
        for name, factor in factors.items():
            mix[name].add(factor.two_sided(*sides[name]).flatten(1), out)
        return out
