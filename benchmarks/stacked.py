"""What training many models at once costs, beside one model with as many rows and beside one model after another.

    python benchmarks/stacked.py [--threads 2] [--rounds 16]

The tiny model. Three trainings take their steps in turn, so that what else the machine does falls on all of them: one
model with batch S, S models stacked with batch 1 each, and one model with batch 1. Steps of the first epoch, in which
latents are encoded once, do not count. The ratios are taken within a round of steps; shown are their median and its
95 % bootstrap interval over rounds. On one thread times are CPU seconds, on more they are wall seconds. The issue asks
for a stacked step of ≤ 1.15 × the step of one model with batch 16, and for 16 models ≥ 3 × faster than one after
another on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import describe
from rich.console import Console
from rich.table import Table
from scipy import stats

from attribench.diffusion import noise
from attribench.diffusion.customization import customize
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.stacked import StackedJob, customize_in_turn, memory_per_model, stacked_losses
from attribench.editions import open_dataset
from attribench.protocols.between_concepts import BetweenConcepts
from attribench.run.places import tiny_model

IMAGES = 8
"""Training images of each model, hence steps of an epoch at batch 1."""


class Bench:
    """The tiny model, and what it is customized on."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.threads = threads
        self.clock = time.process_time if threads == 1 else time.perf_counter
        self.dataset = open_dataset("customconcept101")
        plan = BetweenConcepts.with_preset("mini", {}).plans(self.dataset, model="benchmark", split="test", seed=0, limit=None)[0]
        self.images, self.modifiers = plan.training.images, dict(plan.training.modifiers)
        self.config = replace(plan.training.customization, batch_size=1)

    def model(self) -> DiffusionModel:
        model = DiffusionModel.load(tiny_model())
        model.add_modifiers(self.modifiers)
        return model

    def jobs(self, n_models: int, one_seed: bool = False) -> list[StackedJob]:
        """Each with its own images and, unless they share `one_seed`, its own seed: no two models share a sample."""
        places = [noise.draws("benchmark", number).permutation(len(self.images))[:IMAGES] for number in range(n_models)]
        return [
            StackedJob(tuple(self.images[i] for i in sorted(own)), 0 if one_seed else number) for number, own in enumerate(places)
        ]

    def one(self, batch_size: int, **changes) -> Steps:
        """One model; its pictures are encoded in the first `IMAGES` steps."""
        images = self.images[: max(batch_size, IMAGES)]
        config, model = replace(self.config, batch_size=batch_size, **changes), self.model()
        return Steps(self, lambda report: customize(model, images, self.dataset.load, config, seed=0, report=report))

    def many(self, n_models: int, one_seed: bool = False, **changes) -> Steps:
        """`n_models` models with batch 1 each."""
        config, model, jobs = replace(self.config, **changes), self.model(), self.jobs(n_models, one_seed)

        def run(report: Callable) -> object:
            return list(customize_in_turn(model, jobs, self.dataset.load, config, max_models=n_models, report=report))

        return Steps(self, run)


class Steps(threading.Thread):
    """A training that halts after every step until it is told to go on."""

    class Enough(Exception):
        """Ends a training."""

    def __init__(self, bench: Bench, training: Callable[[Callable], object]) -> None:
        super().__init__(daemon=True)
        self.bench, self.training = bench, training
        self.go, self.halted, self.enough = threading.Semaphore(0), threading.Semaphore(0), False
        self.start()

    def run(self) -> None:
        torch.set_num_threads(self.bench.threads)  # OpenMP counts for each thread
        self.go.acquire()
        with contextlib.suppress(Steps.Enough):
            self.training(self._halt)

    def _halt(self, *_progress) -> None:
        self.halted.release()
        self.go.acquire()
        if self.enough:
            raise Steps.Enough

    def step(self) -> float:
        """Seconds of one step."""
        started = self.bench.clock()
        self.go.release()
        while not self.halted.acquire(timeout=60):
            if not self.is_alive():
                raise SystemExit("a training ended before its time")
        return self.bench.clock() - started

    def end(self) -> None:
        self.enough = True
        self.go.release()
        self.join()


def rounds_of(trainings: list[Steps], rounds: int) -> np.ndarray:
    """Seconds of a step of each training, [rounds, trainings], after an epoch that does not count."""
    for _ in range(IMAGES):
        for training in trainings:
            training.step()
    times = np.array([[training.step() for training in trainings] for _ in range(rounds)])
    for training in trainings:
        training.end()
    return times


def shown(values: Sequence[float], unit: str = "×") -> str:
    """Median and 95 % bootstrap interval over rounds."""
    low, high = stats.bootstrap(
        (np.array(values),), np.median, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return f"{np.median(values):.2f} {unit} [{low:.2f}, {high:.2f}]"


def steps(bench: Bench, n_models: int, rounds: int) -> Table:
    table = Table(
        "what is trained", "augmentation", "seeds", f"one, batch {n_models}", f"{n_models} stacked", "one, batch 1",
        "stacked / one batch [95 %]", "faster than in turn [95 %]", box=None,
    )  # fmt: skip
    for trained, augmentation, one_seed in (
        (True, "none", False),
        (False, "none", False),
        (True, "custom-diffusion", False),
        (True, "custom-diffusion", True),
    ):
        changes = {"train_modifiers": trained, "augmentation": augmentation}
        trainings = [bench.one(n_models, **changes), bench.many(n_models, one_seed, **changes), bench.one(1, **changes)]
        batch, stacked, single = rounds_of(trainings, rounds).T
        table.add_row(
            "K, V and modifiers" if trained else "K, V",
            augmentation,
            "one" if one_seed else "each its own",
            *(f"{1000 * np.median(times):.1f} ms" for times in (batch, stacked, single)),
            shown(stacked / batch),
            shown(n_models * single / stacked),
        )
    return table


def sizes(bench: Bench, rounds: int) -> Table:
    """Why ROWS_AT_ONCE is what it is."""
    counts = (1, 4, 8, 16, 32, 64)
    times = rounds_of([bench.many(n) for n in counts], rounds) / counts
    table = Table("models at once", *map(str, counts), box=None)
    table.add_row("time per model and step", *(f"{1000 * t:.1f} ms" for t in np.median(times, axis=0)))
    return table


def evaluation(bench: Bench, n_models: int, n_queries: int, rounds: int) -> str:
    """The loss of each query under each model, stacked, against loading one model after another."""
    model = bench.model()
    own = model.trained_weights()
    weights = [{name: w + 0.01 * noise.normal(tuple(w.shape), m, name) for name, w in own.items()} for m in range(n_models)]
    prompts = [image.prompt for image in bench.images[:: len(bench.images) // n_queries]][:n_queries]
    latents, eps = (torch.stack([noise.normal(model.latent_shape, k, i) for i in range(n_queries)]) for k in "lε")
    timesteps = torch.linspace(0, model.n_timesteps - 1, n_queries).long()

    @torch.no_grad()
    def in_turn() -> torch.Tensor:
        found = []
        for some in weights:
            model.load_trained(some)
            found.append(model.loss(latents, model.encode_prompts(prompts), timesteps, eps))
        return torch.stack(found)

    gains, apart = [], 0.0
    for _ in range(rounds):
        model.load_trained(own)
        started = bench.clock()
        stacked = stacked_losses(model, weights, latents, prompts, timesteps, eps)
        between = bench.clock()
        turned = in_turn()
        gains.append((bench.clock() - between) / (between - started))
        apart = max(apart, (stacked - turned).abs().max().item())
    return f"{n_models} models × {n_queries} queries: {shown(gains)} faster than one model after another, apart by {apart:.0e}"


def equality(bench: Bench, epochs: int) -> str:
    """How far weights are from those of models trained alone, and how far two threads move those by themselves."""
    jobs, config = bench.jobs(3), replace(bench.config, epochs=epochs, batch_size=3)
    found = dict(customize_in_turn(bench.model(), jobs, bench.dataset.load, config))

    def alone(training: StackedJob) -> dict[str, torch.Tensor]:
        model = bench.model()
        customize(model, training.images, bench.dataset.load, config, seed=training.seed)
        return model.trained_weights()

    def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
        return max((one[name] - other[name]).abs().max().item() for name in one)

    singles = [alone(training) for training in jobs]
    worst = max(apart(found[number].weights, single) for number, single in enumerate(singles))
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - threads)
    other_threads = apart(alone(jobs[0]), singles[0])
    torch.set_num_threads(threads)
    return (
        f"after {config.steps(IMAGES)} steps of {config.optimizer} at {config.learning_rate:g} weights are within {worst:.1e} of "
        f"those trained alone; {3 - threads} thread(s) instead of {threads} move those by {other_threads:.1e}"
    )


def memory(bench: Bench) -> str:
    """Peak memory of two processes that differ in the number of models, over that number."""

    def peak(n_models: int) -> int:
        command = [sys.executable, __file__, "--peak", str(n_models)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])

    computed = memory_per_model(bench.model(), bench.config) / 2**20
    return f"memory per extra model, batch 1: {computed:.1f} MiB computed, {(peak(40) - peak(8)) / 32 / 2**20:.1f} MiB measured"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, choices=(1, 2))
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    bench = Bench(options.threads)
    if options.peak:
        rounds_of([bench.many(options.peak)], rounds=1)
        status = Path("/proc/self/status").read_text()  # its peak starts anew with a program, unlike getrusage's
        print(next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")))
        return
    console = Console(width=160)
    console.print(f"{describe()}; {options.threads} thread(s)")
    console.print(steps(bench, options.models, options.rounds))
    console.print(sizes(bench, max(1, options.rounds // 4)))
    console.print(evaluation(bench, options.models, 8, options.rounds))
    console.print(evaluation(bench, options.models, 1, options.rounds))
    console.print(equality(bench, epochs=10))
    console.print(memory(bench))
    console.print(f"load at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
