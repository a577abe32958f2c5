"""What features of gradients cost, beside a plain backward pass and beside the trak package, in one run.

    python benchmarks/gradients.py                       # extraction, λ grid, memory: the tiny model, one thread
    python benchmarks/gradients.py --model ~/models/stable-diffusion-v1-4 --device cuda --precision bfloat16

Extraction with its projection over a plain batched forward and backward on the same rows: ≤ 1.3 for
cross-attention K and V at k = 2048 and ≤ 2 for all weights at k = 512 are asked, and ≥ 5 and ≥ 10 times faster than
trak's path (functorch gradients, then BasicProjector). CPU seconds of interleaved repetitions; the interval of a ratio comes
from scipy's bootstrap over repetitions. Features of all these paths are the same gradients: tests/gradients holds that.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe
from rich.console import Console
from rich.table import Table
from scipy import stats

from attribench.diffusion import noise
from attribench.diffusion.model import DiffusionModel
from attribench.engine.measure import measure
from attribench.files.state import State
from attribench.gradients.diffusion import GradientReader, Sample, timesteps_of
from attribench.gradients.kernels import LAMBDA_GRID, RidgeKernel
from attribench.gradients.projection import Projection
from attribench.gradients.store import FeatureRows, FeatureWriter
from attribench.run.places import tiny_model

TIMESTEPS = 10
EXTRACTIONS = (("cross-attention-kv", 2048, 1.3, 5.0), ("full", 512, 2.0, 10.0))
"""(group, k, most times plain, least times faster than trak), as the issue asks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--trak-pictures", type=int, default=2, help="pictures of trak's path, which is slow")
    parser.add_argument("--memory-of", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of is not None:
        print(peak_of_kernel(options.memory_of))
        return
    console = Console(width=130)
    console.print(describe() + f"; one thread, {options.device}, {options.precision}")
    console.print(extraction(options))
    console.print(grid())
    console.print(memory())


# --------------------------------------------------------------------------------------- extraction


def extraction(options: argparse.Namespace) -> Table:
    """Seconds a picture of the plain pass, of each projection and of trak's path."""
    model = DiffusionModel.load(options.model or tiny_model(), options.device)
    samples = _samples(model, options.pictures)
    table = Table(title=f"features of one picture, {TIMESTEPS} timesteps")
    for column in ("weights", "path", "ms a picture", "× plain [95 %]", "× faster than trak [95 %]"):
        table.add_column(column, justify="left" if column in ("weights", "path") else "right")
    for group, k, most, least in EXTRACTIONS:
        paths = _paths(model, group, k, samples, options)
        times: dict[str, list[float]] = {name: [] for name in paths}
        for repetition in range(options.repetitions + 1):
            for name, (run, n) in paths.items():
                if name.startswith("trak") and repetition > 2:
                    continue
                seconds = _timed(run, options.device) / n
                if repetition:  # the first warms up
                    times[name].append(seconds)
        for name in paths:
            plain = "" if name == "plain forward + backward" else _ratio(times[name], times["plain forward + backward"])
            faster = "" if name.startswith(("plain", "trak")) else _ratio(times["trak: functorch, BasicProjector"], times[name])
            table.add_row(f"{group}, k = {k}", name, f"{1000 * np.median(times[name]):.0f}", plain, faster)
        table.add_row("", "asked", "", f"≤ {most}", f"≥ {least:.0f}", style="dim")
        table.add_section()
    return table


def _paths(
    model: DiffusionModel, group: str, k: int, samples: list[Sample], options: argparse.Namespace
) -> dict[str, tuple[Callable[[], object], int]]:
    """Name -> (what to time, pictures in it)."""
    reader = GradientReader(model, group, "loss", precision=options.precision)
    normalized = GradientReader(model, group, "loss", precision=options.precision, normalize=True)
    oracle = GradientReader(model, group, "loss", precision=options.precision, vmap=True)
    parameters = [p for layer in reader.layers.values() for p in layer.parameters(recurse=False)]
    per_pass = max(1, reader.rows // TIMESTEPS)

    def plain() -> None:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for start in range(0, len(samples), per_pass):
            rows = reader._rows(samples[start : start + per_pass], slice(None))
            with reader._autocast():
                torch.autograd.grad(reader._values(model.unet, rows).sum(), parameters)
        for parameter in parameters:
            parameter.requires_grad_(False)

    def with_projection(which: GradientReader, kind: str) -> Callable[[], None]:
        projector = Projection(kind=kind, dim=k).projector(reader.shapes, options.device)

        def run() -> None:
            for _ in which.read(samples, projector):
                pass

        return run

    few = samples[: options.trak_pictures]
    trak = Projection(kind="trak", dim=k).projector(reader.shapes, options.device)
    return {
        "plain forward + backward": (plain, len(samples)),
        "ours, factored": (with_projection(reader, "factored"), len(samples)),
        "ours, factored, timesteps normalised": (with_projection(normalized, "factored"), len(samples)),
        "ours, sjlt": (with_projection(reader, "sjlt"), len(samples)),
        "trak: functorch, BasicProjector": (lambda: list(oracle.read(few, trak)), len(few)),
    }


def _samples(model: DiffusionModel, n: int) -> list[Sample]:
    steps = timesteps_of("uniform", TIMESTEPS, model.n_timesteps)
    return [
        Sample(
            id=str(i),
            prompt="a photo of a cat",
            latents=noise.normal(model.latent_shape, "latent", i).expand(TIMESTEPS, -1, -1, -1),
            timesteps=steps,
            noise=torch.stack([noise.normal(model.latent_shape, "noise", i, t) for t in steps]),
        )
        for i in range(n)
    ]


def _timed(run: Callable[[], object], device: str) -> float:
    """Seconds: of this process on the CPU, so that other work on the machine does not count; by the clock elsewhere."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - started


def _ratio(above: list[float], below: list[float]) -> str:
    """Ratio of medians with its bootstrap interval."""
    value = np.median(above) / np.median(below)
    found = stats.bootstrap(
        (above, below), lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        paired=False, n_resamples=1000, method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    return f"{value:.2f} [{found.low:.2f}, {found.high:.2f}]"


# ------------------------------------------------------------------------------------------ kernels


def grid() -> Table:
    """Seconds of fitting a kernel and scoring with 27 λ over those of one λ, at n = 4,000 and k = 2,048."""
    n, k, n_queries = 4000, 2048, 64
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n, k, generator=generator)
    queries = torch.randn(n_queries, k, generator=generator)
    times: dict[int, list[float]] = {1: [], len(LAMBDA_GRID): []}
    for _ in range(3):
        for count, found in times.items():
            found.append(
                _timed(lambda count=count: RidgeKernel.fit(features).scores(queries, features, LAMBDA_GRID[-count:]), "cpu")
            )
    table = Table(title=f"a kernel and its scores: {n} training images, k = {k}, {n_queries} queries")
    for column in ("λ", "seconds", "× one λ [95 %]", "asked"):
        table.add_column(column, justify="right")
    for count, found in times.items():
        table.add_row(
            str(count), f"{np.median(found):.2f}", _ratio(found, times[1]) if count > 1 else "", "≤ 1.2" if count > 1 else ""
        )
    return table


def memory() -> Table:
    """Peak memory of fitting a kernel and scoring over features on disk, each in a process of its own."""
    table = Table(title=f"memory of a kernel and its scores over features on disk, k = {MEMORY_K}, 16 queries")
    for column in ("training images", "features on disk", "peak above start"):
        table.add_column(column, justify="right")
    for n in (1_000, 4_000, 16_000):
        command = [sys.executable, __file__, "--memory-of", str(n)]
        peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        table.add_row(f"{n:,}", f"{4 * n * MEMORY_K / 1e6:.0f} MB", f"{peak / 1e6:.0f} MB")
    return table


MEMORY_K = 1024


def peak_of_kernel(n: int) -> int:
    """Bytes that this process grew by, at most, while it wrote n features, fitted their kernel and scored 16 queries."""
    generator = torch.Generator().manual_seed(0)
    torch.linalg.eigh(torch.eye(64, dtype=torch.float64))  # libraries loaded
    with tempfile.TemporaryDirectory() as folder, measure("cpu") as cost:
        state = State(Path(folder))
        ids = [str(i) for i in range(n)]
        writer = FeatureWriter(state, "features", ids, MEMORY_K, identity="benchmark")
        for start in range(0, n, 64):
            writer.append(torch.randn(min(64, n - start), MEMORY_K, generator=generator))
        rows = FeatureRows(state, "features", "benchmark")
        kernel = RidgeKernel.fit(rows)
        for _ in kernel.score_blocks(torch.randn(16, MEMORY_K, generator=generator), rows, [1.0]):
            pass
    return cost.peak_bytes


if __name__ == "__main__":
    main()
