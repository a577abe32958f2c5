"""Exact retrieval by cosine among more rows than memory holds: the nearest rows, and the ranks of given ones.

    s(q, x) = q · x / (‖q‖ ‖x‖),     0 where x = 0

What is exact: the result is that of s computed in float64 for every pair and sorted, ties included, whatever the
block size and the number of threads. Almost all pairs are decided by a float32 product, whose error is at most ε:

    s̃(q, x) > t + ε  ⇒  s(q, x) > t,        s̃(q, x) < t − ε  ⇒  s(q, x) < t

and the few within ε of a threshold t are computed again in float64. There a pair's value depends on its two rows
alone, so equal rows are tied. Tied rows are ordered by their number where an order is needed (`nearest`), and counted
apart where it is not (`ranks`).

Memory: a few blocks [rows, queries] in float32 for each thread, and the candidates for the nearest rows.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from attribench.errors import DatasetError, UsageError
from attribench.retrieval.rows import Rows

ROWS_AT_ONCE = 1024
"""Rows of a block. A block of 1,000 queries is then 4 MB, which stays near the processor between its passes."""
READ_AT_ONCE = 16
"""Blocks that are read together: disks like long reads."""
COUNTED_TOGETHER = 128
"""Rows whose hits are summed in a byte."""
FEW = 8
"""Columns are picked out of a block if they are fewer than one in so many: it is a slow copy."""
FRESH = 3
"""Candidates are thinned out when so many times k of them are new for a query on average."""


@dataclass(frozen=True)
class Nearest:
    """The k rows with the highest cosine for each query, best first; of equal ones the first in the file."""

    places: np.ndarray
    """[n_query, k] int64, numbers of rows; k is the number of rows if that is less."""
    scores: np.ndarray
    """[n_query, k] float64."""


@dataclass(frozen=True)
class Ranks:
    """Where each of a query's own rows would stand among the rows of the file."""

    above: tuple[np.ndarray, ...]
    """For each query [r] int64: rows of the file with a higher cosine than each of its r own rows."""
    tied: tuple[np.ndarray, ...]
    """For each query [r] int64: rows of the file with the same cosine."""
    scores: tuple[np.ndarray, ...]
    """For each query [r] float64: the cosines of its own rows."""


def nearest(queries: np.ndarray, rows: Rows, k: int, *, threads: int | None = None) -> Nearest:
    """The k nearest rows of each query [n_query, d]. Raises DatasetError for features that are not finite."""
    if k < 1:
        raise UsageError(f"k = {k}: ask for at least one row")
    unit = _unit_queries(queries, rows)
    k, margin = min(k, rows.n), _margin(rows.d)
    scans = _scan(unit, rows, lambda: _NearestScan(len(unit), k, margin), threads)
    (query, place, _), _ = _may_be_nearest([held for scan in scans for held in scan.held], len(unit), k, margin)
    distinct, number = np.unique(place, return_inverse=True)
    features = rows.take(distinct)
    places, scores = np.empty((len(unit), k), dtype=np.int64), np.empty((len(unit), k))
    starts = np.searchsorted(query, np.arange(len(unit) + 1))
    for q, (start, stop) in enumerate(itertools.pairwise(starts)):
        exact = exact_cosines(unit[q], features[number[start:stop]])
        best = np.lexsort((place[start:stop], -exact))[:k]
        places[q], scores[q] = place[start:stop][best], exact[best]
    return Nearest(places, scores)


def ranks(queries: np.ndarray, own: Sequence[np.ndarray], rows: Rows, *, threads: int | None = None) -> Ranks:
    """The ranks, among `rows`, of each query's own rows [r, d]. Raises DatasetError for features that are not finite."""
    unit = _unit_queries(queries, rows)
    if len(own) != len(unit) or any(block.ndim != 2 or block.shape[1] != rows.d for block in own):
        raise DatasetError(f"give each of {len(unit)} queries its own rows, [r, {rows.d}]")
    scores = tuple(exact_cosines(query, block) for query, block in zip(unit, own, strict=True))
    width = max((len(block) for block in own), default=0)
    thresholds = np.full((width, len(unit)), np.inf)
    for number, of_query in enumerate(scores):
        thresholds[: len(of_query), number] = of_query
    scans = _scan(unit, rows, lambda: _RankScan(unit, thresholds, _margin(rows.d)), threads)
    above, tied = sum(scan.above for scan in scans), sum(scan.tied for scan in scans)
    above, tied = (tuple(of[: len(own[q]), q] for q in range(len(own))) for of in (above, tied))
    return Ranks(above, tied, scores)


def exact_cosines(query: np.ndarray, block: np.ndarray) -> np.ndarray:
    """[n] float64 cosines of a unit query [d] with rows [n, d], each computed from its own row alone."""
    block = block.astype(np.float64)
    norms = np.sqrt((block * block).sum(axis=1))
    return (block * query).sum(axis=1) / np.where(norms > 0, norms, 1)


def _margin(d: int) -> float:
    """ε: a bound on the float32 product's error for unit vectors: (d + 8) roundings, and as much for making them units."""
    return 2 * (d + 8) * 2.0**-24


def _unit_queries(queries: np.ndarray, rows: Rows) -> np.ndarray:
    """[n_query, d] float64, each of length 1 (or 0)."""
    if queries.ndim != 2 or queries.shape[1] != rows.d:
        raise DatasetError(
            f"queries have shape {queries.shape}, and the rows of {rows.path.name} {rows.d} numbers: they are of other encoders"
        )
    queries = queries.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(queries).all(axis=1))
    if len(bad):
        raise DatasetError(f"the features of {len(bad)} queries are not finite (the first is query {bad[0]}); make them again")
    norms = np.sqrt((queries * queries).sum(axis=1, keepdims=True))
    return queries / np.where(norms > 0, norms, 1)


# ---------------------------------------------------------------------------------------- scanning


def _scan(unit: np.ndarray, rows: Rows, start: Callable[[], Scan], threads: int | None) -> list[Scan]:
    """Have every block seen by one of the scans that `start` makes, one for each thread.

    A scan sees the `product` [rows, n_query] float32 of the rows `block` [rows, d], the first of which is row `first`.
    """
    threads = threads or os.cpu_count() or 1
    right = torch.from_numpy(unit.astype(np.float32)).T.contiguous()  # [d, n_query]
    step = ROWS_AT_ONCE * READ_AT_ONCE
    pieces = iter(range(0, rows.n, step))  # drawn by all threads; an iterator of a range is safe for that

    def work() -> Scan:
        scan, product = start(), torch.empty(ROWS_AT_ONCE, right.shape[1])
        for first in pieces:
            read = rows.read(first, min(first + step, rows.n))
            for at in range(0, len(read), ROWS_AT_ONCE):
                block = read[at : at + ROWS_AT_ONCE]
                left = _unit_rows(block, first + at, rows)
                scan.see(torch.mm(left, right, out=product[: len(left)]).numpy(), block, first + at)
        return scan

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # blocks run side by side, each product on one thread
    try:
        with ThreadPoolExecutor(threads) as pool:
            return [job.result() for job in [pool.submit(work) for _ in range(threads)]]
    finally:
        torch.set_num_threads(before)


def _unit_rows(block: np.ndarray, first: int, rows: Rows) -> Tensor:
    """[n, d] float32, each of length 1 (or 0)."""
    values = torch.from_numpy(block).to(torch.float32)
    norms = torch.linalg.vector_norm(values, dim=1)
    if not bool(torch.isfinite(norms).all()):
        row = first + int(torch.isfinite(norms).logical_not().nonzero()[0])
        raise DatasetError(f"{rows.path}: row {row} is not finite; make the features again")
    return values.mul_(torch.where(norms > 0, 1 / norms, 0)[:, None])


class _RankScan:
    """Counts rows above and at thresholds [width, n_query] float64, padded with infinity."""

    def __init__(self, unit: np.ndarray, thresholds: np.ndarray, margin: float) -> None:
        self.unit, self.thresholds = unit, thresholds
        self.low = (thresholds - margin).astype(np.float32)
        self.high = (thresholds + margin).astype(np.float32)
        self.above = np.zeros(thresholds.shape, dtype=np.int64)
        self.tied = np.zeros(thresholds.shape, dtype=np.int64)

    def see(self, product: np.ndarray, block: np.ndarray, first: int) -> None:
        highest = product.max(axis=0)
        for number, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            queries = np.flatnonzero(highest >= low)
            if len(queries):
                of, queries = _columns(product, queries)
                surely, maybe = of > high[queries], of >= low[queries]
                self.above[number, queries] += _counts(surely)
                if (close := maybe ^ surely).any():
                    self._decide(number, queries, close, block)

    def _decide(self, number: int, queries: np.ndarray, close: np.ndarray, block: np.ndarray) -> None:
        """Compare the pairs [rows, queries] that are too close to tell in float32 once more, in float64."""
        for column in np.flatnonzero(close.any(axis=0)):
            query = queries[column]
            exact = exact_cosines(self.unit[query], block[close[:, column]])
            self.above[number, query] += int((exact > self.thresholds[number, query]).sum())
            self.tied[number, query] += int((exact == self.thresholds[number, query]).sum())


def _counts(hits: np.ndarray) -> np.ndarray:
    """[n_query] int64 sums of bool [rows, n_query] along its rows, in bytes first."""
    whole = len(hits) // COUNTED_TOGETHER * COUNTED_TOGETHER
    parts = hits[:whole].view(np.uint8).reshape(-1, COUNTED_TOGETHER, hits.shape[1])
    return parts.sum(axis=1, dtype=np.uint8).sum(axis=0, dtype=np.int64) + hits[whole:].sum(axis=0, dtype=np.int64)


Held = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Pairs: numbers of queries [n], numbers of rows [n], float32 cosines [n]."""
NONE_HELD = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)


class _NearestScan:
    """Holds every pair of which the row may still be among the k nearest of the query."""

    def __init__(self, n_query: int, k: int, margin: float) -> None:
        self.k, self.margin = k, margin
        self.least = np.full(n_query, -np.inf, dtype=np.float32)
        """[n_query]: below this a row cannot be among the k nearest."""
        self.held: list[Held] = []
        self.n_fresh = 0

    def see(self, product: np.ndarray, block: np.ndarray, first: int) -> None:
        if not self.held and len(product) >= self.k:
            self.least = np.partition(product, -self.k, axis=0)[-self.k] - 2 * self.margin
        queries = np.flatnonzero(product.max(axis=0) >= self.least)
        if len(queries):
            of, queries = _columns(product, queries)
            row, column = np.divmod(np.flatnonzero(of >= self.least[queries]), len(queries))
            self.held.append((queries[column], first + row, of[row, column]))
            self.n_fresh += len(row)
            if self.n_fresh > FRESH * self.k * len(self.least):  # thinned out
                kept, least = _may_be_nearest(self.held, len(self.least), self.k, self.margin)
                self.least = np.maximum(self.least, least)
                self.held, self.n_fresh = [kept], 0


Scan = TypeVar("Scan", _RankScan, _NearestScan)


def _may_be_nearest(pairs: Sequence[Held], n_query: int, k: int, margin: float) -> tuple[Held, np.ndarray]:
    """The pairs whose row may be among the k nearest, sorted by query, then falling score; and each query's least score.

    k rows have a cosine of at least s̃ₖ − ε, where s̃ₖ is the k-th highest of the float32 cosines: so a row with
    s̃ < s̃ₖ − 2ε is none of them.
    """
    query, place, score = (np.concatenate(part) for part in zip(NONE_HELD, *pairs, strict=True))
    order = np.lexsort((-score, query))
    query, place, score = query[order], place[order], score[order]
    starts = np.searchsorted(query, np.arange(n_query + 1))
    least = np.full(n_query, -np.inf, dtype=np.float32)
    full = np.diff(starts) >= k
    least[full] = score[starts[:-1][full] + k - 1] - 2 * margin
    kept = score >= least[query]
    return (query[kept], place[kept], score[kept]), least


def _columns(product: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The columns of these queries and their numbers, or all of them where picking them out would take longer."""
    if FEW * len(queries) < product.shape[1]:
        return product[:, queries], queries
    return product, np.arange(product.shape[1])


def recall(ranks: Ranks, k: int) -> np.ndarray:
    """[n_query]: the share of a query's own rows that are among the first K of them and the pool; NaN without own rows."""
    values = []
    for above, tied, scores in zip(ranks.above, ranks.tied, ranks.scores, strict=True):
        first = above + (scores[None] > scores[:, None]).sum(axis=1)
        size = tied + (scores[None] == scores[:, None]).sum(axis=1)
        values.append(np.clip((k - first) / size, 0.0, 1.0).mean() if len(scores) else np.nan)
    return np.array(values)


def average_precision(ranks: Ranks) -> np.ndarray:
    """[n_query]: the mean over a query's own rows of the precision at the place of each; NaN without own rows."""
    return np.array([_average_precision(*of) for of in zip(ranks.above, ranks.tied, ranks.scores, strict=True)])


def _average_precision(above: np.ndarray, tied: np.ndarray, scores: np.ndarray) -> float:
    """Group by group of equal scores; the formula is in `attribench.metrics.retrieval.AveragePrecision`."""
    total = 0.0
    for score, number, own in zip(*np.unique(scores, return_index=True, return_counts=True), strict=True):
        own_before = int((scores > score).sum())
        size, before = own + int(tied[number]), own_before + int(above[number])
        place = np.arange(1, size + 1)
        tied_before = (place - 1) * (own - 1) / max(size - 1, 1)
        total += (own / size * (own_before + tied_before + 1) / (before + place)).sum()
    return total / len(scores) if len(scores) else float("nan")
