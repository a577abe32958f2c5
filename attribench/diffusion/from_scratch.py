"""Training a UNet from scratch on the encodings of a data set.

    min over θ  of  E_{x, caption, flip, t, ε} || ε − ε_θ(x_t, t, c(caption)) ||²

Randomness belongs to the sample. All that is drawn for an image in an epoch (its place in the order, caption, flip,
timestep, noises) is a function of (seed, epoch) and of its row in the *whole* list of training images. So what an image
is seen with depends neither on which other images are left out, nor on batches, workers or a resume.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from attribench.diffusion import noise
from attribench.diffusion.config import FromScratchConfig
from attribench.diffusion.encodings import Encodings
from attribench.diffusion.observing import Watch
from attribench.diffusion.untrained import UntrainedModel
from attribench.errors import ModelError

SAVED_EVERY = 300.0
"""Seconds between two states that a killed training can go on from."""


def train_from_scratch(
    model: UntrainedModel,
    encodings: Encodings,
    kept: Sequence[int] | None,
    config: FromScratchConfig,
    *,
    seed: int,
    watches: Sequence[Watch] = (),
    report: Callable[[int, int, float], None] = lambda done, total, loss: None,
    resume: Path | None = None,
    saved_every: float = SAVED_EVERY,
) -> list[float]:
    """Train the UNet of `model`, drawn by seed beforehand, in place; the loss of every step, in order.

    `encodings` are of the whole list of training images, `kept` the rows of it to train on, rising (None: all).
    Observers are told rows of the whole list. `resume` is a file that the training is saved to from time to time, goes on
    from where it is there, and removes at its end; observers see a training as a whole, so with them it starts anew.
    Raises ModelError when nothing is left to train on, and when the loss stops being finite.
    """
    kept = np.arange(len(encodings)) if kept is None else np.asarray(kept, dtype=np.int64)
    if not len(kept):
        raise ModelError("nothing to train on: every training image is left out; leave out fewer")
    run = _Run(model, encodings, kept, config, seed)
    saved = _Saved(resume, saved_every) if resume is not None and not watches else None
    losses = saved.load(run) if saved else []
    total = config.steps(len(kept))
    try:
        for number, (epoch, rows) in enumerate(run.batches()):
            if number < len(losses):
                continue
            losses.append(run.step(epoch, rows, run.rate(number, total)))
            if not math.isfinite(losses[-1]):
                raise ModelError(f"the training loss became {losses[-1]} at step {number + 1}; lower the learning rate")
            for watch in watches:
                watch.after_step(rows.tolist())
            report(number + 1, total, losses[-1])
            if saved:
                saved.offer(run, losses)
    finally:
        model.unet.requires_grad_(False)
        for parameter in model.unet.parameters():
            parameter.grad = None
    if resume is not None:
        resume.unlink(missing_ok=True)
    return losses


@dataclass(frozen=True)
class _Epoch:
    """What is drawn for every row of the whole list, n, in one epoch."""

    run: _Run
    number: int

    @cached_property
    def order(self) -> np.ndarray:
        """[n] the rows as they come."""
        return noise.draws("from scratch", "order", self.run.seed, self.number).permutation(len(self.run.encodings))

    @cached_property
    def choices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Timestep, version and caption of each row, [n] each; the caption is -1 where it is dropped."""
        random, config, n = noise.draws("from scratch", "choices", self.run.seed, self.number), self.run.config, len(self.order)
        timesteps = random.integers(self.run.model.n_timesteps, size=n)
        flips = random.integers(2, size=n)
        captions = random.integers(self.run.encodings.n_captions, size=n)
        dropped = random.random(n) < config.caption_dropout
        return timesteps, flips if config.flips else np.zeros_like(flips), np.where(dropped, -1, captions)

    @cached_property
    def noise(self) -> Tensor:
        """[n, c, h, w] ε."""
        return self._normal("noise")

    @cached_property
    def posterior(self) -> Tensor:
        """[n, c, h, w] of the VAE's posterior."""
        return self._normal("posterior")

    def _normal(self, what: str) -> Tensor:
        shape = (len(self.order), *self.run.model.latent_shape)
        return noise.normal(shape, "from scratch", what, self.run.seed, self.number)


class _Run:
    """A training under way: the model, its optimizer, and what each step sees."""

    def __init__(
        self, model: UntrainedModel, encodings: Encodings, kept: np.ndarray, config: FromScratchConfig, seed: int
    ) -> None:
        self.model, self.encodings, self.kept, self.config, self.seed = model, encodings, kept, config, seed
        self.parameters = dict(model.unet.requires_grad_(True).named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    def batches(self) -> Iterator[tuple[_Epoch, np.ndarray]]:
        """The epoch and the rows of every step."""
        size = self.config.batch_size
        for number in range(self.config.epochs):
            epoch = _Epoch(self, number)
            order = epoch.order[np.isin(epoch.order, self.kept)]
            for start in range(0, len(order), size):
                yield epoch, order[start : start + size]

    def rate(self, number: int, total: int) -> float:
        """The learning rate of a step."""
        rising = self.config.warmup * total
        if number < rising:
            return self.config.learning_rate * (number + 1) / (rising + 1)
        if self.config.decay == "none":
            return self.config.learning_rate
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * (number - rising) / (total - rising)))

    def step(self, epoch: _Epoch, rows: np.ndarray, rate: float) -> float:
        """One optimizer step; its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        timesteps, flips, captions = (of[rows] for of in epoch.choices)
        device = self.model.device
        latents, std = self.encodings.latents(rows, flips)
        if self.config.vae_posterior == "sample":
            latents = latents + std * epoch.posterior[rows]
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            loss = self.model.loss(
                latents.to(device),
                self.encodings.contexts(rows, captions).to(device),
                torch.from_numpy(timesteps).to(device),
                epoch.noise[rows].to(device),
            ).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.max_gradient_norm)
        self.optimizer.step()
        return loss.item()


class _Saved:
    """The state of a training on disk: weights, both moments of AdamW, and the losses so far."""

    def __init__(self, path: Path, every: float) -> None:
        self.path, self.every, self.last = path, every, time.monotonic()

    def load(self, run: _Run) -> list[float]:
        """Put what was saved in place, if anything was; the losses up to there."""
        if not self.path.exists():
            return []
        with safe_open(self.path, framework="pt", device=str(run.model.device)) as file:
            for name, parameter in run.parameters.items():
                with torch.no_grad():
                    parameter.copy_(file.get_tensor(f"weight.{name}"))
                run.optimizer.state[parameter] = {
                    key: file.get_tensor(f"{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")
                }
            return file.get_tensor("losses").tolist()

    def offer(self, run: _Run, losses: Sequence[float]) -> None:
        """Save, if it is time to."""
        if time.monotonic() - self.last < self.every:
            return
        tensors = {"losses": torch.tensor(losses, dtype=torch.float64)}
        for name, parameter in run.parameters.items():
            tensors[f"weight.{name}"] = parameter.detach().contiguous()
            tensors |= {f"{key}.{name}": value.contiguous() for key, value in run.optimizer.state[parameter].items()}
        aside = self.path.with_suffix(".aside")
        save_file(tensors, aside)
        aside.rename(self.path)
        self.last = time.monotonic()
