"""How long the main command takes: with an empty store, again with everything cached, and `--help`.

    python benchmarks/main_command.py --dataset artchive

Whole processes, timed from outside. The issue asks for ≤ 6 minutes on two cores, ≤ 20 s cached, and ≤ 0.5 s
for `--help`. Then, from the record of the run: does MONTRAGE's recall beat every control with intervals
apart, and what is its rank? `--keep DIR` keeps store and run folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe
from rich.console import Console
from rich.table import Table

from attribench.report import record

HELP_RUNS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="artchive")
    parser.add_argument("--method", action="append", default=[])
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    console = Console(width=120)
    console.print(describe())
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        methods = [x for method in ["montrage", *options.method] for x in ("--method", method)]
        command = ["run", *methods, "--dataset", options.dataset, "--store", str(folder / "store")]
        table = Table("command", "seconds", "asked for", box=None)
        table.add_row("main command, empty store", f"{timed([*command, '--out', str(folder / 'first')]):.1f}", "≤ 360")
        table.add_row("the same, all cached", f"{timed([*command, '--out', str(folder / 'again')]):.1f}", "≤ 20")
        times = sorted(timed(["--help"]) for _ in range(HELP_RUNS))
        table.add_row(f"--help, median of {HELP_RUNS}", f"{times[HELP_RUNS // 2]:.2f}", "≤ 0.5")
        console.print(table)
        against_controls(record.read(folder / "first"), console)


def timed(arguments: list[str]) -> float:
    """Seconds that `attribench …` takes as a process of its own."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "attribench", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def against_controls(rows: list[record.Row], console: Console) -> None:
    """MONTRAGE's recall beside each control's, and its rank among all methods."""
    for variant in dict.fromkeys(row.variant for row in rows):
        recalls = {row.method: row for row in rows if row.variant == variant and row.metric.startswith("recall@")}
        ours = recalls["montrage"]
        controls = [row for row in recalls.values() if row.control and row.status == "ok"]
        apart = [row.method for row in controls if ours.low is not None and ours.low > (row.high or np.inf)]
        console.print(
            f"{variant} {ours.metric}: montrage {ours.value:.3f} [{ours.low:.3f}, {ours.high:.3f}], rank {ours.rank} of "
            f"{len(recalls)}; best possible {ours.ceiling:.3f}; intervals apart from {len(apart)} of {len(controls)} controls "
            f"({', '.join(f'{row.method} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]' for row in controls)})"
        )


if __name__ == "__main__":
    main()
