"""Gradients of every row for any module, by torch.func: the oracle that factors are held against, and their fallback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from attribench.gradients.factors import Factor, MatrixFactor

Values = Callable[[Callable[..., Tensor], Sequence[Tensor]], Tensor]
"""(module or a functional form of it, row tensors [N, …]) -> values [N], each row's value from that row alone."""


def by_vmap(
    module: nn.Module, layers: Mapping[str, nn.Module], values: Values, rows: Sequence[Tensor], weights: Tensor, k: int
) -> dict[str, Factor]:
    """The exact gradients of samples of `k` rows each, row n counted by weights [N]; layer by layer [n, out, in (+1)].

    Memory: one gradient of all layers per row. Raises what torch.func raises for a module it cannot transform.
    """
    names = {
        f"{layer}.{parameter}": (layer, parameter)
        for layer, module_ in layers.items()
        for parameter, _ in module_.named_parameters(recurse=False)
    }
    parameters = {name: module.get_parameter(name).detach() for name in names}

    def value(parameters: Mapping[str, Tensor], *row: Tensor) -> Tensor:
        def call(*args: Tensor, **kwargs: Tensor) -> Tensor:
            return functional_call(module, parameters, args, kwargs)

        return values(call, [tensor[None] for tensor in row])[0]

    per_row = vmap(grad(value), in_dims=(None, *[0] * len(rows)))(parameters, *rows)
    per_sample: dict[str, dict[str, Tensor]] = {layer: {} for layer in layers}
    for name, (layer, parameter) in names.items():
        weighted = per_row[name].flatten(1) * weights[:, None]
        summed = weighted.unflatten(0, (-1, k)).sum(dim=1)
        out = layers[layer].get_parameter(parameter).shape[0]
        per_sample[layer][parameter] = summed.reshape(len(summed), out, -1)
    return {layer: MatrixFactor(torch.cat(list(parts.values()), dim=2)) for layer, parts in per_sample.items()}
