"""Gradients of many samples at once, as factors.

The gradient of one sample for a linear layer y = W x is a sum of outer products over the positions r of its rows
(timesteps, tokens, pixels):

    G = Σ_r  g_r x_rᵀ          g_r = ∂f/∂y_r [out],   x_r [in]

A factor keeps the x_r and g_r and contracts them with a projection from both sides, so that G [out, in] itself is
formed only when somebody asks for it. A bias is one more input that is always 1. A convolution is a linear layer
over patches, and projecting patches is a convolution. Rows of one sample lie next to each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from attribench.errors import MethodError


class Factor(ABC):
    """The gradients of n samples for one layer's parameters, seen as a matrix [out, in] (bias: the last column)."""

    n: int
    shape: tuple[int, int]

    @abstractmethod
    def two_sided(self, left: Tensor | None, right: Tensor | None) -> Tensor:
        """leftᵀ G right, [n, p, q], for left [out, p] and right [in, q]; None stands for the identity."""

    def matrix(self) -> Tensor:
        """G itself: [n, out, in]."""
        return self.two_sided(None, None)

    def inner(self, directions: Tensor) -> Tensor:
        """⟨G, D_q⟩ for every sample and each of the directions [Q, out, in]: [n, Q]."""
        return self.matrix().flatten(1) @ directions.flatten(1).T

    def positions(self) -> tuple[Tensor, Tensor]:
        """The x_r [n, R, in] (a bias: the last column, 1) and g_r [n, R, out]; a MatrixFactor knows none."""
        raise NotImplementedError


@dataclass(frozen=True)
class PositionsFactor(Factor):
    """A linear layer: inputs [n, R, in] and output gradients [n, R, out] at R positions."""

    inputs: Tensor
    gradients: Tensor
    bias: bool

    @property
    def n(self) -> int:
        return len(self.inputs)

    @property
    def shape(self) -> tuple[int, int]:
        return self.gradients.shape[2], self.inputs.shape[2] + self.bias

    def two_sided(self, left: Tensor | None, right: Tensor | None) -> Tensor:
        g = self.gradients if left is None else self.gradients @ left
        return g.transpose(1, 2) @ _project_inputs(self.inputs, right, self.bias)

    def inner(self, directions: Tensor) -> Tensor:
        if (q := len(directions)) * (r := self.inputs.shape[1]) > q + r:  # forming G takes fewer products then
            return super().inner(directions)
        moved = self.positions()[0][:, None] @ directions.transpose(1, 2)  # D_q x_r: [n, Q, R, out]
        return (moved * self.gradients[:, None]).sum(dim=(2, 3))

    def positions(self) -> tuple[Tensor, Tensor]:
        return _project_inputs(self.inputs, None, self.bias), self.gradients


@dataclass(frozen=True)
class ConvolutionFactor(Factor):
    """A convolution: inputs [n·K, C, H, W] and output gradients [n·K, out, H', W'], K rows to a sample."""

    inputs: Tensor
    gradients: Tensor
    layer: nn.Conv2d
    rows: int

    @property
    def n(self) -> int:
        return len(self.inputs) // self.rows

    @property
    def shape(self) -> tuple[int, int]:
        return self.layer.out_channels, self.layer.weight[0].numel() + (self.layer.bias is not None)

    def two_sided(self, left: Tensor | None, right: Tensor | None) -> Tensor:
        g = self.gradients.flatten(2)  # [n·K, out, P]
        g = g if left is None else left.T @ g
        if right is None:
            x = _project_inputs(_patches(self.layer, self.inputs), None, self.layer.bias is not None)
        else:  # projecting patches = convolving with the projection as kernels
            kernels, bias = (right[:-1], right[-1]) if self.layer.bias is not None else (right, None)
            kernels = kernels.T.reshape(-1, *self.layer.weight.shape[1:])
            layer = self.layer
            x = functional.conv2d(self.inputs, kernels, bias, layer.stride, layer.padding, layer.dilation)
            x = x.flatten(2).transpose(1, 2)  # [n·K, P, q]
        product = g @ x  # [n·K, p, q]: smaller than the rows joined to one long position axis
        return product.unflatten(0, (self.n, self.rows)).sum(dim=1)

    def positions(self) -> tuple[Tensor, Tensor]:
        x = _project_inputs(_patches(self.layer, self.inputs), None, self.layer.bias is not None)
        g = self.gradients.flatten(2).transpose(1, 2)
        return tuple(each.reshape(self.n, -1, each.shape[2]) for each in (x, g))


@dataclass(frozen=True)
class MatrixFactor(Factor):
    """Gradients that are small, or known no other way: values [n, out, in]."""

    values: Tensor

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[1], self.values.shape[2]

    def two_sided(self, left: Tensor | None, right: Tensor | None) -> Tensor:
        values = self.values if left is None else left.T @ self.values
        return values if right is None else values @ right


def _project_inputs(inputs: Tensor, right: Tensor | None, bias: bool) -> Tensor:
    """[x, 1] right for inputs [n, R, in]: [n, R, q]; the 1 only with a bias."""
    if right is None:
        return torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=-1) if bias else inputs
    return inputs @ right[:-1] + right[-1] if bias else inputs @ right


def _patches(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """What each output pixel of a convolution sees: [n, P, C·kh·kw]."""
    unfolded = functional.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return unfolded.transpose(1, 2)


# ------------------------------------------------------------------------------- watching a backward


@dataclass(frozen=True)
class Recorded:
    """What one layer saw in a pass over N rows: its input [N, …] and ∂(Σ f)/∂(its output) [N, …]."""

    layer: nn.Module
    input: Tensor
    gradient: Tensor

    def squared_norms(self) -> Tensor:
        """‖G‖² of every row, [N].

        From the factors, ‖GᵀX‖² = Σ (GGᵀ) ∘ (XXᵀ), where there are fewer positions than inputs or outputs;
        otherwise from the matrix.
        """
        factor = self.factor(1)
        if not isinstance(factor, MatrixFactor):
            x, g = factor.positions()
            if x.shape[1] < min(factor.shape):
                return ((x @ x.mT) * (g @ g.mT)).sum(dim=(1, 2))
        return factor.matrix().square().sum(dim=(1, 2))

    def factor(self, rows: int, weights: Tensor | None = None, same_input: bool = False) -> Factor:
        """The gradients of samples of `rows` rows each, every row counted by its weight [N] (1 if None).

        `same_input`: the rows of a sample saw one and the same input, so that only their output gradients are
        summed. It holds for cross-attention keys and values, whose input is the prompt.
        """
        g = self.gradient
        if weights is not None:
            g = g * weights.reshape(-1, *[1] * (g.dim() - 1))
        if isinstance(self.layer, nn.Conv2d):
            return ConvolutionFactor(self.input, g, self.layer, rows)
        if isinstance(self.layer, nn.Linear):
            x, g = (side.reshape(len(side) // rows, rows, -1, side.shape[-1]) for side in (self.input, g))  # [n, K, positions, …]
            x, g = (x[:, 0], g.sum(dim=1)) if same_input else (x.flatten(1, 2), g.flatten(1, 2))
            return PositionsFactor(x, g, self.layer.bias is not None)
        return MatrixFactor(_normalization_gradient(self.layer, self.input, g).unflatten(0, (-1, rows)).sum(dim=1))


def _normalization_gradient(layer: nn.Module, inputs: Tensor, g: Tensor) -> Tensor:
    """[N, C, 2] (or 1 without a bias): gradients of the scale, Σ g x̂, and of the shift, Σ g."""
    if isinstance(layer, nn.GroupNorm):
        normalized = functional.group_norm(inputs, layer.num_groups, eps=layer.eps)
        over = tuple(range(2, inputs.dim()))
    else:
        normalized = functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
        over = tuple(range(1, inputs.dim() - 1))
    columns = [g * normalized] if layer.bias is None else [g * normalized, g]
    return torch.stack([column.sum(dim=over) if over else column for column in columns], dim=2)


def is_supported(layer: nn.Module) -> bool:
    """Whether factors are known for this kind of layer; the others need `by_vmap`."""
    match layer:
        case nn.Linear() | nn.GroupNorm():
            return True
        case nn.LayerNorm():
            return len(layer.normalized_shape) == 1
        case nn.Conv2d():
            return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return False


def record(layers: Mapping[str, nn.Module], run: Callable[[], Tensor]) -> dict[str, Recorded]:
    """Run the model forward and backward, watching `layers`; the rows' values [N] are what `run` returns.

    The first dimension of what passes through a layer must be the rows, and a row's value must depend on that
    row alone (no batch statistics). No parameter gets a gradient, and none needs to ask for one.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook_of(name: str) -> Callable:
        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> Tensor:
            if name in seen:
                raise MethodError(f"the layer {name} is used twice in one pass, which factors do not cover: use group=…")
            if not result.requires_grad:  # the first layer of the group: what comes before needs no backward
                result.requires_grad_()
            seen[name] = (inputs[0].detach(), result)
            return result

        return hook

    handles = [layer.register_forward_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            values = run()
            results = [result for _, result in seen.values()]
            gradients = torch.autograd.grad(values.sum(), results, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: Recorded(layers[name], seen[name][0], torch.zeros_like(result) if g is None else g)
        for (name, (_, result)), g in zip(seen.items(), gradients, strict=True)
    }


# ---------------------------------------------------------------------------------- row by row

Values = Callable[[Callable[..., Tensor], Sequence[Tensor]], Tensor]
"""(module or a functional form of it, row tensors [N, …]) -> values [N], each row's value from that row alone."""


def by_vmap(
    module: nn.Module, layers: Mapping[str, nn.Module], values: Values, rows: Sequence[Tensor], weights: Tensor, k: int
) -> dict[str, Factor]:
    """The exact gradients of samples of `k` rows each, row n counted by weights [N]; layer by layer [n, out, in (+1)].

    For any module: the oracle that factors are held against, and their fallback. Memory: one gradient of all layers per
    row. Raises what torch.func raises for a module it cannot transform.
    """
    own = {name: dict(layer.named_parameters(recurse=False)) for name, layer in layers.items()}
    parameters = {f"{name}.{part}": p.detach() for name, parts in own.items() for part, p in parts.items()}

    def value(parameters: Mapping[str, Tensor], *row: Tensor) -> Tensor:
        def call(*args: Tensor, **kwargs: Tensor) -> Tensor:
            return functional_call(module, parameters, args, kwargs)

        return values(call, [tensor[None] for tensor in row])[0]

    per_row = vmap(grad(value), in_dims=(None, *[0] * len(rows)))(parameters, *rows)

    def summed(name: str, parameter: Tensor) -> Tensor:
        weighted = per_row[name].flatten(1) * weights[:, None]
        return weighted.unflatten(0, (-1, k)).sum(dim=1).unflatten(1, (len(parameter), -1))

    return {
        name: MatrixFactor(torch.cat([summed(f"{name}.{part}", parameter) for part, parameter in parts.items()], dim=2))
        for name, parts in own.items()
    }
