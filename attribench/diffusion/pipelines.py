"""What is used of diffusers' pipelines. Imported when a model is loaded or sampled from, and not before: it takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers.utils import logging as transformers_logging

from attribench.diffusion.fingerprint import require_layout
from attribench.diffusion.loading import LOADING
from attribench.errors import ModelError

diffusers_logging.disable_progress_bar()  # ours is the only progress display
transformers_logging.disable_progress_bar()

UNCHECKED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
"""Only the parts that a picture is made by."""


def read_pipeline(reference: str | Path) -> StableDiffusionPipeline:
    """The parts of a model, from a diffusers folder or a hub id; safetensors only. Raises ModelError with what to do next."""
    require_layout(reference)
    try:
        with LOADING:
            return StableDiffusionPipeline.from_pretrained(
                str(reference),
                **UNCHECKED,
                use_safetensors=True,
                low_cpu_mem_usage=False,
                dtype=torch.float32,
            )
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot load the model {str(reference)!r}: {first_line}; check the path, or fetch it once while online"
        ) from error


def sampling_pipeline(schedule: Any, estimates: list[Tensor] | None, **parts: Any) -> StableDiffusionPipeline:
    """A pipeline of a model's `parts` under the schedule of this configuration.

    `estimates` receives the predicted clean latents of each step.
    """
    scheduler = _TellingScheduler.from_config(schedule)
    scheduler.estimates = [] if estimates is None else estimates
    pipeline = StableDiffusionPipeline(**parts, **UNCHECKED, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class _TellingScheduler(DDIMScheduler):
    """DDIM that also tells what it takes the clean latents for (predicted x_0, equation 12 of the DDIM paper) at each step."""

    estimates: list[Tensor]

    def step(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        previous, estimate = super().step(*args, **options | {"return_dict": False})
        self.estimates.append(estimate)
        return previous, estimate
