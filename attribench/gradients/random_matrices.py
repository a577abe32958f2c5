"""The random matrices of the projections, drawn on the CPU from a key and nothing else."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from attribench.diffusion.noise import seed_of

Distribution = Literal["normal", "rademacher", "orthogonal"]


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
