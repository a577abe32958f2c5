"""What a loss over few stratified timesteps is worth, beside one over all of them.

    python benchmarks/timesteps.py [--models 8] [--queries 3] [--timesteps 5 10 12 50 100]

The tiny model is customized on random halves of one study's training images, as the protocol `lds` does, and the study's
own model generates the queries. Each query's loss is taken under each of these models at all 1,000 timesteps and at fewer,
one in the middle of each of as many equal parts of the schedule. Cost is CPU seconds of one thread on the same rows of work,
as a share of that of all timesteps. What counts for an LDS is the order of the models by loss: agreement is Spearman's
correlation over models between the losses at few timesteps and at all, its mean over queries with a 95 % bootstrap interval
over queries. The noises are drawn once per timestep, as in the protocol; the first row shows what another draw of them would
change with all timesteps, which is as far as any choice of timesteps can agree.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from machine import describe
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import stats

from attribench.diffusion import noise
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.stacked import StackedJob, customize_in_turn, stacked_losses
from attribench.editions import open_dataset
from attribench.protocols.lds import Lds
from attribench.run.places import tiny_model
from attribench.study.retrainings import LossMeasure

ROWS = 2500
"""Rows of the network's input in one call: what is looked at in one go."""


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--queries", type=int, default=3)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[5, 10, 12, 50, 100])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with Progress(transient=True) as progress:
        world = _World(options.models, options.queries, progress)
        every = world.losses(world.model.n_timesteps, progress)
        other = world.losses(world.model.n_timesteps, progress, draw=1)
        few = {count: world.losses(count, progress) for count in options.timesteps}

    table = Table(title=f"{options.models} models, {options.queries} queries")
    for name in ("timesteps", "CPU seconds", "share of the cost of all", "agreement in the order of the models"):
        table.add_column(name, justify="right")
    named = {f"{world.model.n_timesteps}, other noises": other} | few
    for count, (losses, seconds) in named.items():
        table.add_row(str(count), f"{seconds:.1f}", f"{seconds / every[1]:.3f}", agreement(every[0], losses))
    console = Console()
    console.print(describe())
    console.print(table)


class _World:
    """A study's model, its queries, and models retrained on halves of its images."""

    def __init__(self, n_models: int, n_queries: int, progress: Progress) -> None:
        dataset = open_dataset("customconcept101")
        protocol = Lds.with_preset("mini", {})
        plan = protocol.plans(dataset, model="benchmark", split="test", seed=0, limit=None)[0]
        training = plan.training
        self.cases = plan.roles("query")[:n_queries]
        self.model = DiffusionModel.load(tiny_model())
        self.model.add_modifiers(dict(training.modifiers))
        (test, _) = protocol.retrainings(plan)
        whole = StackedJob(training.images, training.seed)
        parts = [StackedJob(tuple(training.images[row] for row in rows), training.seed) for rows in test.subsets[:n_models]]
        task = progress.add_task("training")

        def report(done: int, total: int, loss: float) -> None:
            progress.update(task, completed=done, total=total)

        turns = customize_in_turn(self.model, [whole, *parts], dataset.load, training.customization, report=report)
        trained = {number: customized.weights for number, customized in turns}
        self.weights = [trained[number] for number in range(1, n_models + 1)]
        self.model.load_trained(trained[0])
        latents = torch.stack(
            [noise.normal(self.model.latent_shape, "generation", training.seed, c.prompt, c.seed) for c in self.cases]
        )
        sampling = plan.sampling
        pictures = self.model.sample([c.prompt for c in self.cases], latents, steps=sampling.steps, guidance=sampling.guidance)
        self.latents = torch.cat([self.model.latent_moments(self.model.pixels([picture]))[0] for picture in pictures])

    def losses(self, timesteps: int, progress: Progress, draw: int = 0) -> tuple[np.ndarray, float]:
        """[n_query, n_model] losses at so many timesteps, and the CPU seconds that they took."""
        at = LossMeasure(timesteps=timesteps).at(self.model.n_timesteps)
        sums, seconds = np.zeros((len(self.cases), len(self.weights))), 0.0
        for q in progress.track(range(len(self.cases)), description=f"{timesteps} timesteps"):
            for start in range(0, len(at), ROWS):
                some = at[start : start + ROWS]
                case, shape = self.cases[q], self.model.latent_shape
                noises = torch.stack([noise.normal(shape, "query", case.id, t, draw) for t in some])
                latents = self.latents[q].expand(len(some), -1, -1, -1)
                rows = latents, [case.prompt] * len(some), torch.tensor(some), noises
                started = time.process_time()
                for m, weights in enumerate(self.weights):
                    sums[q, m] += float(stacked_losses(self.model, [weights], *rows)[0].double().sum())
                seconds += time.process_time() - started
        return sums / len(at), seconds


def agreement(first: np.ndarray, second: np.ndarray) -> str:
    """Spearman over models, mean over queries with its interval."""
    found = np.array([stats.spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)])
    low, high = stats.bootstrap((found,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return f"{found.mean():.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
