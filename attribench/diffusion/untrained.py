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

from attribench.diffusion.config import ARCHITECTURES, FromScratchConfig
from attribench.diffusion.loading import LOADING
from attribench.diffusion.model import DiffusionModel
from attribench.diffusion.pipelines import read_pipeline
from attribench.errors import ModelError

LINEAR = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear",
          "prediction_type": "epsilon"}  # fmt: skip
"""The defaults of DDPMScheduler."""


class UntrainedModel(DiffusionModel):
    """A model of which the whole UNet is trained, and nothing else."""

    @classmethod
    def build(cls, reference: str | Path, config: FromScratchConfig, seed: int, device: str = "cpu") -> UntrainedModel:
        """From the VAE, text encoder and tokenizer of a base model and a UNet drawn by seed. Raises ModelError like `load`."""
        pipeline = read_pipeline(reference)
        latent, text = pipeline.vae.config.latent_channels, pipeline.text_encoder.config.hidden_size
        architecture = ARCHITECTURES[config.architecture]
        pipeline.unet = _drawn_unet(seed, in_channels=latent, out_channels=latent, cross_attention_dim=text, **architecture)
        if config.schedule == "linear":
            pipeline.scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1, **LINEAR)
        elif config.schedule == "velocity":
            pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type="v_prediction")
        return cls(pipeline, device)

    def draw_weights(self, seed: int) -> None:
        """Put the UNet's weights back to how `build` draws them by this seed."""
        self.unet.load_state_dict(_drawn_unet(seed, **self.unet.config).state_dict())

    def trained_parameters(self) -> dict[str, Tensor]:
        """Every parameter of the UNet, by name."""
        return {f"unet.{name}": parameter for name, parameter in self.unet.named_parameters()}

    def load_trained(self, weights: Mapping[str, Tensor]) -> None:
        """Put such weights in place. Raises ModelError for those of another architecture."""
        if differing := self.trained_parameters().keys() ^ weights.keys():
            raise ModelError(f"these weights are of another model: {min(differing)} is in one of the two alone")
        super().load_trained(weights)


def _drawn_unet(seed: int, **config: Any) -> UNet2DConditionModel:
    with LOADING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel.from_config(config)
