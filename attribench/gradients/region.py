"""A query's box as a mask over latent cells, so that its loss counts there alone.

The model sees a picture's centre square at its own resolution, and its loss is over latent cells: a cell counts if the
box touches it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attribench.data import Queries
from attribench.data.region import Region
from attribench.diffusion.model import DiffusionModel
from attribench.errors import MethodError


def query_mask(queries: Queries, i: int, model: DiffusionModel) -> Tensor | None:
    """The mask of query i, [1, cells, cells]; None for one that is attributed as a whole."""
    region = queries.regions[i]
    return None if region is None else mask(region, queries[i].size, model.resolution, model.downscale)


def mask(region: Region, size: tuple[int, int], resolution: int, downscale: int) -> Tensor:
    """[1, cells, cells] float32: 1 where the box touches a latent cell of a picture of `size` (width, height).

    Raises UsageError for a box that leaves the picture, MethodError for one that the model does not see any of.
    """
    region.require_within(size)
    width, height = size
    edge, n_cells = min(width, height), resolution // downscale
    left, top = (width - edge) // 2, (height - edge) // 2  # as images.square cuts
    found = torch.zeros(1, n_cells, n_cells)
    rows, columns = _cells(region.y - top, region.height, edge, n_cells), _cells(region.x - left, region.width, edge, n_cells)
    found[:, rows, columns] = 1.0
    if not found.any():
        raise MethodError(
            f"the region {region} lies outside the centre square of {width} × {height} pixels, all that the model sees"
        )
    return found


def _cells(start: int, length: int, edge: int, n_cells: int) -> slice:
    """The cells that [start, start + length) of `edge` pixels touches; whole numbers, so that no cell is rounding's."""
    first, last = start * n_cells // edge, -(-(start + length) * n_cells // edge)
    return slice(max(first, 0), max(min(last, n_cells), 0))
