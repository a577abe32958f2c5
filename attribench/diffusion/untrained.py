"""A latent diffusion model whose UNet is yet to be trained: the rest is that of a base model, and stays as it is.

The architecture "coco" is that of the small MSCOCO model of Georgiev et al. (2023), which attribution by unlearning is
evaluated on; "small" is for 8×8 latents and a processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from attribench.diffusion.config import FromScratchConfig
from attribench.diffusion.loading import LOADING
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.pipelines import read_pipeline
from attribench.errors import ModelError

DOWN, UP, CROSS_DOWN, CROSS_UP = "DownBlock2D", "UpBlock2D", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "coco": {
        "sample_size": 16, "layers_per_block": 2, "block_out_channels": (128, 256, 256, 256), "attention_head_dim": 8,
        "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN), "up_block_types": (UP, CROSS_UP, CROSS_UP, CROSS_UP),
    },
    "small": {
        "sample_size": 8, "layers_per_block": 1, "block_out_channels": (32, 64), "attention_head_dim": 4,
        "down_block_types": (DOWN, CROSS_DOWN), "up_block_types": (CROSS_UP, UP), "norm_num_groups": 8,
    },
}  # fmt: skip
"""What UNet2DConditionModel is given, beside the channels of the VAE and the width of the text encoder (1,024 for Stable
Diffusion 2). diffusers takes the *number* of heads by the name attention_head_dim."""
LINEAR = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear",
          "prediction_type": "epsilon"}  # fmt: skip
"""The defaults of DDPMScheduler."""


class UntrainedModel(DiffusionModel):
    """A model of which the whole UNet is trained, and nothing else: `trained_weights` are all of its parameters."""

    @classmethod
    def build(cls, reference: str | Path, config: FromScratchConfig, seed: int, device: str = "cpu") -> UntrainedModel:
        """From the VAE, text encoder and tokenizer of a base model and a UNet drawn by seed. Raises ModelError like `load`."""
        pipeline = read_pipeline(reference)
        latent, text = pipeline.vae.config.latent_channels, pipeline.text_encoder.config.hidden_size
        with LOADING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pipeline.unet = UNet2DConditionModel(
                in_channels=latent, out_channels=latent, cross_attention_dim=text, **ARCHITECTURES[config.architecture]
            )
        if config.schedule == "linear":
            pipeline.scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1, **LINEAR)
        elif config.schedule == "velocity":
            pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type="v_prediction")
        return cls(pipeline, device)

    @torch.no_grad()
    def draw_weights(self, seed: int) -> None:
        """Put the UNet's weights back to how `build` draws them by this seed."""
        with LOADING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = UNet2DConditionModel.from_config(self.unet.config)
        for own, drawn in zip(self.unet.parameters(), fresh.parameters(), strict=True):
            own.copy_(drawn)

    def trained_weights(self) -> dict[str, Tensor]:
        """Every parameter of the UNet, by name."""
        return {f"unet.{name}": weight.detach().cpu().contiguous() for name, weight in self.unet.named_parameters()}

    @torch.no_grad()
    def load_trained(self, weights: Mapping[str, Tensor]) -> None:
        """Put such weights in place. Raises ModelError for those of another architecture."""
        own = {f"unet.{name}": weight for name, weight in self.unet.named_parameters()}
        if own.keys() != weights.keys():
            differing = min(own.keys() ^ weights.keys())
            raise ModelError(f"these weights are of another model: {differing} is in one of the two alone")
        for name, weight in weights.items():
            if own[name].shape != weight.shape:
                raise ModelError(f"these weights are of another model: {name} {tuple(weight.shape)} does not fit")
            own[name].copy_(weight)
