"""What a customization sees: which images each optimizer step holds, and each image's view, timestep and noise.

Randomness belongs to the sample: the order of an epoch is a function of (seed, epoch), and a sample's view,
timestep and noise are functions of (seed, epoch, image id). So they are the same whether a model is trained alone
or beside others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from PIL.ImageOps import mirror
from torch import Tensor

from attribench.data import TrainImage
from attribench.data.pictures import square
from attribench.diffusion import augmentation, noise
from attribench.diffusion.config import CustomizationConfig
from attribench.diffusion.model import DiffusionModel
from attribench.errors import ModelError

ENCODED_AT_ONCE = 8
"""Augmented pictures that the VAE sees together, so that memory is bounded."""


@dataclass(frozen=True)
class Draw:
    """Names one sample: a training image in one epoch of the training with this seed."""

    image: TrainImage
    seed: int
    epoch: int


@dataclass(frozen=True)
class Sample:
    """One training image made ready for one epoch."""

    prompt: str
    latent: Tensor
    """[c, h, w]"""
    mask: Tensor
    """[1, h, w]: 1 where the picture is."""
    timestep: int
    noise: Tensor
    """[c, h, w]"""


def batches(images: Sequence[TrainImage], config: CustomizationConfig, seed: int) -> Iterator[tuple[list[int], list[Draw]]]:
    """The rows and samples of every optimizer step of a training, in order.

    Raises ModelError when there is no image.
    """
    if not images:
        raise ModelError("nothing to customize on: the list of training images is empty; choose other concepts")
    for epoch in range(config.epochs):
        order = noise.draws("order", seed, epoch).permutation(len(images))
        for start in range(0, len(images), config.batch_size):
            rows = order[start : start + config.batch_size].tolist()
            yield rows, [Draw(images[row], seed, epoch) for row in rows]


def batched(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents [n, c, h, w], timesteps [n], noises [n, c, h, w] and masks [n, 1, h, w]."""
    latents, noises, masks = (torch.stack([getattr(one, name) for one in samples]) for name in ("latent", "noise", "mask"))
    return latents, torch.tensor([one.timestep for one in samples], device=latents.device), noises, masks


class Samples:
    """Makes samples; keeps latents that do not change between epochs."""

    def __init__(self, model: DiffusionModel, images: Sequence[TrainImage], load: Callable[[str], Image.Image],
                 config: CustomizationConfig) -> None:  # fmt: skip
        self.model, self.config = model, config
        self.pictures = {id: square(load(id), model.resolution) for id in dict.fromkeys(image.id for image in images)}
        self._unchanging: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def __call__(self, wanted: Sequence[Draw]) -> list[Sample]:
        """One sample for each draw; their pictures go through the VAE together."""
        drawn = [self._draw(draw) for draw in wanted]
        if self.config.augmentation == "none":  # encoded once, so one by one: the VAE's rounding depends on its batch
            moments, at_once = self._unchanging, 1
            keys = [(draw.image.id, flip) for draw, (_, flip, _) in zip(wanted, drawn, strict=True)]
        else:
            moments, at_once, keys = {}, ENCODED_AT_ONCE, list(wanted)
        missing = {key: view.picture for key, (view, _, _) in zip(keys, drawn, strict=True) if key not in moments}
        moments |= self._encode(missing, at_once)
        return [
            self._finish(draw, view, timestep, *moments[key])
            for draw, (view, _, timestep), key in zip(wanted, drawn, keys, strict=True)
        ]

    def _draw(self, draw: Draw) -> tuple[augmentation.View, bool, int]:
        """The picture as this step sees it, whether it is flipped, and the timestep."""
        random = noise.draws("customization", draw.seed, draw.epoch, draw.image.id)
        flip = self.config.flips and bool(random.integers(2))
        timestep = int(random.integers(self.model.n_timesteps))
        picture, prompt = self.pictures[draw.image.id], draw.image.prompt
        if flip:
            picture = mirror(picture)
        if self.config.augmentation == "custom-diffusion":
            return augmentation.custom_diffusion(picture, prompt, random), flip, timestep
        return augmentation.View(picture, prompt, (0, 0, *picture.size)), flip, timestep

    def _encode(self, pictures: dict[Hashable, Image.Image], at_once: int) -> dict[Hashable, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of each picture's latent, [c, h, w] each."""
        encoded: dict[Hashable, tuple[Tensor, Tensor]] = {}
        keys = list(pictures)
        for start in range(0, len(keys), at_once):
            some = keys[start : start + at_once]
            mean, std = self.model.latent_moments(self.model.pixels([pictures[key] for key in some]))
            encoded |= zip(some, zip(mean, std, strict=True), strict=True)
        return encoded

    def _finish(self, draw: Draw, view: augmentation.View, timestep: int, mean: Tensor, std: Tensor) -> Sample:
        shape = self.model.latent_shape
        latent = mean
        if self.config.vae_posterior == "sample":
            posterior = noise.normal(shape, "posterior", draw.seed, draw.epoch, draw.image.id)
            latent = mean + std * posterior.to(mean.device)
        mask = augmentation.latent_mask(view.box, self.model.resolution, self.model.downscale)
        return Sample(
            view.prompt,
            latent,
            torch.from_numpy(mask)[None].to(mean.device),
            timestep,
            noise.normal(shape, "noise", draw.seed, draw.epoch, draw.image.id).to(mean.device),
        )
