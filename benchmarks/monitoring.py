"""What monitoring adds to the time of customization, with and without in one run.

    python benchmarks/monitoring.py

One training of the tiny model on one thread; after every optimizer step each monitor's `after_step` is
timed in CPU seconds, so that other work on the machine does not count. The ratio is the sum of the monitor's times over the
sum of the steps' own times; its interval comes from scipy's bootstrap over steps. The issue asks for
≤ 3 % with fixed text encoder and ≤ 10 % at 10 prompts with trained modifiers.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from machine import describe
from rich.console import Console
from rich.table import Table
from scipy import stats

from attribench.diffusion.customization import customize
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.monitor import ValueMonitor
from attribench.diffusion.observing import Watch
from attribench.editions import open_dataset
from attribench.protocols.between_concepts import BetweenConcepts
from attribench.run.places import tiny_model

WARM_UP = 20


class Timed(Watch):
    """Times the steps between its calls, and the watches that it holds."""

    def __init__(self, watches: list[Watch]) -> None:
        self.watches = watches
        self.steps: list[float] = []
        self.monitors: list[list[float]] = [[] for _ in watches]
        self.since = time.process_time()

    def after_step(self, rows) -> None:
        self.steps.append(time.process_time() - self.since)
        for watch, times in zip(self.watches, self.monitors, strict=True):
            started = time.process_time()
            watch.after_step(rows)
            times.append(time.process_time() - started)
        self.since = time.process_time()

    def finish(self) -> dict:
        return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120)
    console.print(describe())
    protocol = BetweenConcepts.with_preset("mini", {})
    dataset = open_dataset("customconcept101")
    plan = protocol.plans(dataset, model="benchmark", split="test", seed=0, limit=None)[0]
    table = Table("what is trained", "batch", "monitored prompts", "step", "monitor", "added [95 %]", box=None)
    for batch_size in (1, plan.training.customization.batch_size):
        for trained in (False, True):
            for n_prompts, prompts in ((10, one_concept(plan)), (50, all_concepts(plan, dataset))):
                times = measure(plan, dataset, batch_size, trained, prompts, options.steps)
                table.add_row("K, V and modifiers" if trained else "K, V", str(batch_size), str(n_prompts), *times)
    console.print(table)


def one_concept(plan) -> tuple[str, ...]:
    """The ten monitoring templates with the first concept."""
    return with_token(plan, "<new1>")


def all_concepts(plan, dataset) -> tuple[str, ...]:
    """The ten templates with each of the five concepts."""
    return tuple(prompt for i in range(1, 6) for prompt in with_token(plan, f"<new{i}>"))


def with_token(plan, token: str) -> tuple[str, ...]:
    from attribench.datasets.customconcept101 import CustomConcept101

    word = dict(plan.training.modifiers)[token]
    return tuple(template.format(concept=f"{token} {word}") for template in CustomConcept101.monitoring_templates)


def measure(plan, dataset, batch_size: int, trained: bool, prompts: tuple[str, ...], steps: int) -> list[str]:
    model = DiffusionModel.load(tiny_model())
    model.add_modifiers(dict(plan.training.modifiers))
    images = plan.training.images
    epochs = -(-steps // -(-len(images) // batch_size))
    config = replace(plan.training.customization, batch_size=batch_size, epochs=epochs, train_modifiers=trained)
    watch = Timed([ValueMonitor(prompts=prompts).start(model, len(images), config.steps(len(images)))])
    customize(model, images, dataset.load, config, seed=0, watches=[watch])
    step, monitor = np.array(watch.steps[WARM_UP:]), np.array(watch.monitors[0][WARM_UP:])
    low, high = stats.bootstrap(
        (monitor, step), lambda m, s, axis: m.sum(axis=axis) / s.sum(axis=axis), paired=True, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    ratio = monitor.sum() / step.sum()
    return [
        f"{1000 * np.median(step):.1f} ms",
        f"{1000 * np.median(monitor):.2f} ms",
        f"{100 * ratio:.1f} % [{100 * low:.1f}, {100 * high:.1f}]",
    ]


if __name__ == "__main__":
    main()
