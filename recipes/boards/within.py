"""What of a board's LDS is attribution, and what is the number of each concept's images: the board's own scores, measured again.

    python recipes/boards/within.py                            # leaderboards/, customconcept101-mini.lds.v1

Nothing is trained: `lds` and `lds_within` are taken of the submitted scores and the kept truth, for each method and for a label
oracle (1 for the images of the prompt's concepts, else 0), which is what labels alone are worth. Means over studies with Student's
t interval; methods by `lds_within`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from attribench.boards.board import Leaderboards
from attribench.metrics.lds import Lds, LdsWithin
from attribench.run.measured import by_variant
from attribench.statistics.intervals import LEVEL
from attribench.study.plan import StudyPlan
from attribench.submissions.verify import verify

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "leaderboards")
    parser.add_argument("--board", default="customconcept101-mini.lds.v1")
    options = parser.parse_args()
    board = next(b for b in Leaderboards(options.folder).boards if b.name == options.board)
    console = Console(width=110)
    for path in board.submissions:
        verdict = verify(path, known=[board.experiment], kept=board.kept(board.planned()))
        if not verdict.accepted:
            raise SystemExit(f"{path.name}: {verdict.reasons[0]}")
        for variant in dict.fromkeys(case.variant for of in verdict.planned.plans for case in of.roles("query")):
            console.print(table_of(verdict, variant))


def table_of(verdict, variant: str) -> Table:
    """One line for each method, its name, and its two numbers."""
    plans = [of for of in verdict.planned.plans if variant in by_variant(of)]
    truths = [verdict.truths[of.id].of_queries(by_variant(of)[variant]) for of in plans]
    named = {"label oracle": [labels_of(of, variant) for of in plans]}
    for method in verdict.statement.methods:
        named[method.name] = [
            np.stack([verdict.scores[method.name, of.id, seed][by_variant(of)[variant]] for seed in method.seeds]) for of in plans
        ]
    metrics = (Lds(), LdsWithin())
    rows = [(name, *(interval_of(metric, tables, truths) for metric in metrics)) for name, tables in named.items()]
    ceilings = [np.nanmean([np.nanmean(metric.ceiling(truth)) for truth in truths]) for metric in metrics]
    table = Table("method", "lds [95 %]", "lds_within [95 %]", title=f"{variant}, {len(plans)} studies", box=None, title_justify="left")
    for name, *found in sorted(rows, key=lambda row: -row[2][0]):
        table.add_row(name, *(f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in found))
    table.add_row("ceiling", *(f"{ceiling:.3f}" for ceiling in ceilings), style="dim")
    return table


def labels_of(of: StudyPlan, variant: str) -> np.ndarray:
    """[n_query, n_train] 1.0 for the images of the concepts of the prompt."""
    cases = [of.roles("query")[number] for number in by_variant(of)[variant]]
    return np.array([[float(image.concept in case.concepts) for image in of.rows] for case in cases])


def interval_of(metric, tables, truths) -> tuple[float, float, float]:
    """The mean over studies of the mean over queries and seeds, and its Student's t interval."""
    means = [
        np.nanmean([metric.values(scores, truth) for scores in (found if found.ndim == 3 else found[None])])
        for found, truth in zip(tables, truths, strict=True)
    ]
    half = stats.t.ppf((1 + LEVEL) / 2, len(means) - 1) * np.std(means, ddof=1) / np.sqrt(len(means))
    return float(np.mean(means)), float(np.mean(means) - half), float(np.mean(means) + half)


if __name__ == "__main__":
    main()
