"""The attribution table as it grows, for each batch size: MONTRAGE's supplement, Figure 2.

left     recall of the table's columns over the epochs: K is the number of images of the prompt's concept
right    the tables of the first study at some of these epochs, rows = training images, columns = monitored prompts
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from attribench.report.figures.drawing import COLOURS, RED, axes_at, missing_glyphs_as_boxes, save, style_of, wrapped, write_at
from attribench.statistics.intervals import Estimate, estimate

# All lengths are inches.
HEAD, CURVES, HEIGHT, LEFT, FOOT, TILE, GAP, ROWS_GAP = 1.15, 4.2, 3.4, 0.75, 0.7, 1.35, 0.15, 0.45
SHOWN_MOMENTS = 4


@dataclass(frozen=True)
class GrownTable:
    """What became of one training's table."""

    batch_size: int
    study: tuple[str, ...]
    """The concepts; trainings of the same concepts differ in their batch size alone."""
    relevant: np.ndarray
    """[n_query, n_train] bool: the image shows the prompt's concept."""
    tables: Mapping[float, np.ndarray]
    """Epoch -> the columns of M [n_query, n_train], in rising order of the epochs."""


def recall_at_relevant(table: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """[n_query] share of a query's R relevant images that are among the R highest of its column [n_query, n_train].

    The expectation over all orders of tied images, so that a column of zeros has the value of chance, R / N.
    """
    wanted = relevant.sum(axis=1, keepdims=True)
    first, last = (rankdata(-np.asarray(table), method=method, axis=1) for method in ("min", "max"))
    retrieved = np.clip((wanted - first + 1) / (last - first + 1), 0, 1)
    return np.where(relevant, retrieved, 0).sum(axis=1) / wanted[:, 0]


def recall_over_epochs(grown: Sequence[GrownTable], *, seed: int = 0) -> dict[int, dict[float, Estimate]]:
    """Batch size -> epoch -> mean recall with its interval, clustered by study; a prompt counts once.

    Pictures of one prompt share their column of M, so that only the first of equal columns is taken.
    """
    found: dict[int, dict[float, Estimate]] = {}
    for size in dict.fromkeys(table.batch_size for table in grown):
        own = [table for table in grown if table.batch_size == size]
        found[size] = {}
        for epoch in own[0].tables:
            values = [recall_at_relevant(t.tables[epoch], t.relevant)[_distinct(t)] for t in own]
            studies = np.concatenate([[" ".join(t.study)] * len(v) for t, v in zip(own, values, strict=True)])
            found[size][epoch] = estimate(np.concatenate(values), studies, seed=seed)
    return found


def _distinct(grown: GrownTable) -> np.ndarray:
    """Numbers of the queries whose final column no earlier query has."""
    last = next(reversed(grown.tables.values()))
    return np.sort(np.unique(last, axis=0, return_index=True)[1])


@missing_glyphs_as_boxes()
def table_plot(path: Path, grown: Sequence[GrownTable], *, seed: int = 0) -> None:
    """Write the PNG. Raises StoreError if it cannot be written."""
    recalls = recall_over_epochs(grown, seed=seed)
    first = [table for table in grown if table.study == grown[0].study] if grown else []
    columns = min(SHOWN_MOMENTS, len(first[0].tables)) if first else 0
    tiles_left = LEFT + CURVES + 0.95
    width = tiles_left + max(columns, 1) * (TILE + GAP) + 0.15
    height = HEAD + max(HEIGHT, len(first) * (TILE + ROWS_GAP)) + FOOT
    figure = Figure(figsize=(width, height), facecolor="white")
    write_at(figure, 0.2, 0.28, "The attribution table over the epochs, by batch size", size=12, weight="bold")
    _curves(axes_at(figure, LEFT, FOOT, CURVES, height - HEAD - FOOT), recalls, grown)
    for row, table in enumerate(first):
        top = HEAD + row * (TILE + ROWS_GAP)
        write_at(figure, tiles_left - 0.3, top + TILE / 2, f"batch {table.batch_size}", size=9.5, rotation=90, ha="center")
        epochs = list(table.tables)
        chosen = [epochs[round(i)] for i in np.linspace(0, len(epochs) - 1, columns)]
        for column, epoch in enumerate(chosen):
            left = tiles_left + column * (TILE + GAP)
            axes = figure.add_axes((left / width, 1 - (top + TILE) / height, TILE / width, TILE / height))
            taken = table.tables[epoch][_distinct(table)].T
            relative = taken / np.maximum(taken.max(axis=0), 1e-300)
            axes.imshow(relative, aspect="auto", cmap="viridis", interpolation="nearest", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"epoch {epoch:g}", size=8.5, pad=3)
    if first:
        concepts = ", ".join(first[0].study)
        text = f"table of the first study ({concepts}): rows training images, columns prompts, each by its largest entry"
        for number, line in enumerate(wrapped(text, width - tiles_left + 0.45, 2, size=8.5)):
            write_at(figure, tiles_left - 0.4, 0.58 + 0.17 * number, line, size=8.5)
    save(figure, path)


def _curves(axes: Axes, recalls: Mapping[int, Mapping[float, Estimate]], grown: Sequence[GrownTable]) -> None:
    for place, (size, by_epoch) in enumerate(recalls.items()):
        colour, epochs = COLOURS[place % len(COLOURS)], list(by_epoch)
        axes.plot(epochs, [by_epoch[e].value for e in epochs], "o-", color=colour, markersize=4, label=f"batch size {size}")
        if all(by_epoch[e].has_interval for e in epochs):
            low, high = ([getattr(by_epoch[e], side) for e in epochs] for side in ("low", "high"))
            axes.fill_between(epochs, low, high, color=colour, alpha=0.13, linewidth=0)
    if grown:
        chance = np.mean([table.relevant.mean() for table in grown])
        axes.axhline(chance, color=RED, linestyle=(0, (4, 3)), linewidth=1.2, label="chance")
        axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    axes.set(ylim=(0, 1.03))
    axes.set_xlim(left=0)
    axes.set_xlabel("epoch", size=9)
    n_studies = len({table.study for table in grown})
    over = f"{n_studies} studies, mean with 95 % interval" if n_studies > 1 else "one study, hence no interval"
    axes.set_title(f"recall of the images of a prompt's concept\n{over}", size=9.5, loc="left")
    style_of(axes, "y")
