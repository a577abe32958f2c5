"""Customization as in Custom Diffusion: cross-attention K and V and one modifier token per concept.

    min over W_k, W_v, v*  of  E_{x, t, ε} || ε − ε_θ(x_t, t, c(prompt with v*)) ||²

Kumari et al., "Multi-concept customization of text-to-image diffusion", CVPR 2023; hyper-parameters of the
`paper` preset from MONTRAGE's supplement A. Three faults of the public script are absent by construction:
the token table has no gradient, so weight decay cannot move it; every modifier token has its own parameter,
so none loses its gradient; and training images are rows in the order of their ids, never of a directory.

Randomness belongs to the sample: the order of an epoch, and each sample's view, timestep and noise, are
functions of (seed, epoch, image id). Observers are called after every optimizer step and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from attribench.diffusion import augmentation, noise
from attribench.diffusion.config import CustomizationConfig
from attribench.diffusion.model import DiffusionModel
from attribench.errors import ModelError
from attribench.images import square
from attribench.interface import TrainImage, Watch


@dataclass(frozen=True)
class _Sample:
    """One training image made ready for one epoch."""

    prompt: str
    latent: Tensor
    mask: Tensor
    timestep: int
    noise: Tensor


class _Samples:
    """Turns (epoch, row) into a training sample; keeps latents that do not change between epochs."""

    def __init__(self, model: DiffusionModel, images: Sequence[TrainImage], load: Callable[[str], Image.Image],
                 config: CustomizationConfig, seed: int) -> None:  # fmt: skip
        self.model, self.images, self.config, self.seed = model, images, config, seed
        self.pictures = [square(load(image.id), model.resolution) for image in images]
        self._moments: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}

    def __call__(self, epoch: int, row: int) -> _Sample:
        image = self.images[row]
        random = noise.draws("customization", self.seed, epoch, image.id)
        flip = self.config.flips and bool(random.integers(2))
        timestep = int(random.integers(self.model.n_timesteps))
        picture = self.pictures[row].transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else self.pictures[row]
        if self.config.augmentation == "custom-diffusion":
            view = augmentation.custom_diffusion(picture, image.prompt, random)
            mean, std = self._encode(view.picture)
        else:
            view = augmentation.whole(picture, image.prompt)
            if (row, flip) not in self._moments:
                self._moments[row, flip] = self._encode(picture)
            mean, std = self._moments[row, flip]
        shape = self.model.latent_shape
        if self.config.vae_posterior == "sample":
            posterior = noise.normal(shape, "posterior", self.seed, epoch, image.id)
            latent = mean + std * posterior.to(mean.device)
        else:
            latent = mean
        mask = augmentation.latent_mask(view.box, self.model.resolution, self.model.downscale)
        return _Sample(
            view.prompt,
            latent,
            torch.from_numpy(mask)[None].to(mean.device),
            timestep,
            noise.normal(shape, "noise", self.seed, epoch, image.id).to(mean.device),
        )

    def _encode(self, picture: Image.Image) -> tuple[Tensor, Tensor]:
        mean, std = self.model.latent_moments(self.model.pixels([picture]))
        return mean[0], std[0]


def customize(
    model: DiffusionModel,
    images: Sequence[TrainImage],
    load: Callable[[str], Image.Image],
    config: CustomizationConfig,
    *,
    seed: int,
    watches: Sequence[Watch] = (),
    report: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> list[float]:
    """Train K, V and modifiers of `model` in place; the loss of every step, in order.

    `images` are the rows that observers are told of; `load` gives the picture of an image id. The modifiers
    must have been added to the model. Raises ModelError when the loss stops being finite.
    """
    if not images:
        raise ModelError("nothing to customize on: the list of training images is empty; choose other concepts")
    samples = _Samples(model, images, load, config, seed)
    groups = _trainable(model, config)
    optimizer = _optimizer(groups, config)
    hooks = _detach_first_token(model) if config.detach_first_token else []
    total = config.steps(len(images))
    losses: list[float] = []
    try:
        for epoch in range(config.epochs):
            order = noise.draws("order", seed, epoch).permutation(len(images))
            for start in range(0, len(images), config.batch_size):
                rows = [int(row) for row in order[start : start + config.batch_size]]
                batch = [samples(epoch, row) for row in rows]
                losses.append(_step(model, optimizer, batch))
                if losses[-1] != losses[-1] or losses[-1] == float("inf"):
                    raise ModelError(
                        f"the customization loss became {losses[-1]} at step {len(losses)}; lower the learning rate"
                    )
                for watch in watches:
                    watch.after_step(rows)
                report(len(losses), total, losses[-1])
    finally:
        for hook in hooks:
            hook.remove()
        for group in groups:
            for parameter in group["params"]:
                parameter.requires_grad_(False)
                parameter.grad = None
    return losses


def _trainable(model: DiffusionModel, config: CustomizationConfig) -> list[dict]:
    projections = [layer.weight for layer in model.key_value_layers().values()]
    groups = [{"params": projections, "lr": config.learning_rate}]
    if config.train_modifiers and model.modifiers:
        rate = config.learning_rate if config.modifier_learning_rate is None else config.modifier_learning_rate
        groups.append({"params": list(model.modifiers.values()), "lr": rate})
    for modifier in model.modifiers.values():
        modifier.requires_grad_(False)
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    return groups


def _optimizer(groups: list[dict], config: CustomizationConfig) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(groups, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay)


def _step(model: DiffusionModel, optimizer: torch.optim.Optimizer, batch: Sequence[_Sample]) -> float:
    timesteps = torch.tensor([sample.timestep for sample in batch], device=model.device)
    loss = model.loss(
        torch.stack([sample.latent for sample in batch]),
        model.encode_prompts([sample.prompt for sample in batch]),
        timesteps,
        torch.stack([sample.noise for sample in batch]),
        torch.stack([sample.mask for sample in batch]),
    ).mean()
    optimizer.zero_grad(set_to_none=True)  # None, so that a modifier absent from the batch is not moved
    loss.backward()
    optimizer.step()
    return loss.item()


def _detach_first_token(model: DiffusionModel) -> list[torch.utils.hooks.RemovableHandle]:
    def hook(_layer: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        return torch.cat([output[:, :1].detach(), output[:, 1:]], dim=1)

    return [layer.register_forward_hook(hook) for layer in model.key_value_layers().values()]
