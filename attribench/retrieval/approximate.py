"""Approximate retrieval by cosine with faiss (an extra: pip install 'attribench-diffusion[faiss]').

An inverted file: rows are put into the cell of their nearest centre, and a query looks into the cells of its
`n_probe` nearest centres alone. What it misses is measured against the exact search (`share_found`), never assumed.
"""

from __future__ import annotations

import numpy as np

from attribench.errors import Unavailable
from attribench.retrieval.exact import Nearest
from attribench.retrieval.rows import Rows

BLOCK = 65_536
TRAINING_ROWS_PER_CELL = 64
"""faiss asks for 39 at least."""


class ApproximateIndex:
    """An inverted file over all rows, in float16, in memory: 2 d + 8 bytes a row."""

    def __init__(self, rows: Rows, *, n_cells: int, seed: int = 0) -> None:
        """Centres are learned from a sample of the rows by k-means. Raises Unavailable without faiss."""
        try:
            import faiss
        except ImportError as error:
            raise Unavailable("approximate retrieval needs faiss; pip install 'attribench-diffusion[faiss]'") from error
        self.n_cells = min(n_cells, rows.n)
        quantizer = faiss.IndexFlatIP(rows.d)
        self.index = faiss.IndexIVFScalarQuantizer(
            quantizer, rows.d, self.n_cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self.index.cp.seed = seed + 1
        wanted = min(rows.n, TRAINING_ROWS_PER_CELL * self.n_cells)
        sample = np.sort(np.random.default_rng(seed).choice(rows.n, wanted, replace=False))
        self.index.train(_units(rows.take(sample)))
        for start in range(0, rows.n, BLOCK):
            self.index.add(_units(rows.read(start, min(start + BLOCK, rows.n))))

    def nearest(self, queries: np.ndarray, k: int, *, n_probe: int) -> Nearest:
        """The k rows found for each query [n_query, d], best first; place -1 and score -inf where fewer were found."""
        self.index.nprobe = min(n_probe, self.n_cells)
        scores, places = self.index.search(_units(queries), k)
        return Nearest(places, np.where(places < 0, -np.inf, scores.astype(np.float64)))


def share_found(approximate: Nearest, exact: Nearest) -> np.ndarray:
    """[n_query]: the share of the exact search's rows that the approximate one found too (recall@k against exact)."""
    pairs = zip(approximate.places, exact.places, strict=True)
    return np.array([np.isin(of_exact, found).mean() for found, of_exact in pairs])


def _units(values: np.ndarray) -> np.ndarray:
    """[n, d] float32, each row of length 1 (or 0)."""
    values = values.astype(np.float32)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.ascontiguousarray(values / np.where(norms > 0, norms, 1))
