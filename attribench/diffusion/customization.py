"""Customization as in Custom Diffusion: cross-attention K and V and one modifier token per concept.

    min over W_k, W_v, v*  of  E_{x, t, ε} || ε − ε_θ(x_t, t, c(prompt with v*)) ||²

Kumari et al., "Multi-concept customization of text-to-image diffusion", CVPR 2023; hyper-parameters of the
`paper` preset from MONTRAGE's supplement A. Three faults of the public script are absent by construction:
the token table has no gradient, so weight decay cannot move it; every modifier token has its own parameter,
so none loses its gradient; and training images are rows in the order of their ids, never of a directory.

What a step sees is in `samples`, and belongs to the sample. Observers are called after every optimizer step and
change nothing. `stacked` trains many models at once, with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from attribench.data import TrainImage
from attribench.diffusion.config import CustomizationConfig
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.observing import Watch
from attribench.diffusion.samples import Sample, Samples, batched, batches
from attribench.errors import ModelError


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
    samples = Samples(model, images, load, config)
    projections, modifiers = _trainable(model, config)
    optimizer = optimizer_of(projections, modifiers, config)
    hooks = _detach_first_token(model) if config.detach_first_token else []
    total = config.steps(len(images))
    losses: list[float] = []
    try:
        for rows, draws in batches(images, config, seed):
            batch = [samples([draw])[0] for draw in draws]  # one by one: the VAE's rounding depends on its batch
            losses.append(_step(model, optimizer, batch))
            require_finite(losses)
            for watch in watches:
                watch.after_step(rows)
            report(len(losses), total, losses[-1])
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in (*projections, *modifiers):
            parameter.requires_grad_(False)
            parameter.grad = None
    return losses


def require_finite(losses: Sequence[float]) -> None:
    """Raises ModelError when the last of a training's losses is not finite."""
    if not math.isfinite(losses[-1]):
        raise ModelError(f"the customization loss became {losses[-1]} at step {len(losses)}; lower the learning rate")


def _trainable(model: DiffusionModel, config: CustomizationConfig) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The projections and the modifiers that ask for a gradient from now on."""
    projections = [layer.weight for layer in model.key_value_layers().values()]
    for modifier in model.modifiers.values():
        modifier.requires_grad_(False)
    modifiers = list(model.modifiers.values()) if config.train_modifiers else []
    for parameter in (*projections, *modifiers):
        parameter.requires_grad_(True)
    return projections, modifiers


def optimizer_of(
    projections: Sequence[Tensor], modifiers: Sequence[Tensor], config: CustomizationConfig, *, fused: bool | None = None
) -> torch.optim.Optimizer:
    """The configured optimizer, with the modifiers' own learning rate; `fused` as in torch."""
    groups = [{"params": list(projections), "lr": config.learning_rate}]
    if modifiers:
        rate = config.learning_rate if config.modifier_learning_rate is None else config.modifier_learning_rate
        groups.append({"params": list(modifiers), "lr": rate})
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(groups, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay, fused=fused)


def _step(model: DiffusionModel, optimizer: torch.optim.Optimizer, batch: Sequence[Sample]) -> float:
    latents, *drawn = batched(batch)
    loss = model.loss(latents, model.encode_prompts([sample.prompt for sample in batch]), *drawn).mean()
    optimizer.zero_grad(set_to_none=True)  # None, so that a modifier absent from the batch is not moved
    loss.backward()
    optimizer.step()
    return loss.item()


def without_first_token(output: Tensor) -> Tensor:
    """Keys or values [n, length, width] whose start token is a constant of the step, as in the public processor."""
    return torch.cat([output[:, :1].detach(), output[:, 1:]], dim=1)


def _detach_first_token(model: DiffusionModel) -> list[torch.utils.hooks.RemovableHandle]:
    def hook(_layer: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        return without_first_token(output)

    return [layer.register_forward_hook(hook) for layer in model.key_value_layers().values()]
