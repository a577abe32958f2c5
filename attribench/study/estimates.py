"""What a training and a generation may cost, before the store knows better: from the size of the UNet alone.

A forward pass is taken as 2 operations per parameter and quarter of a latent cell, a backward pass as two
forward ones. It is right to a factor of about two for the tiny model and for Stable Diffusion v1-4, which is
what a dry run needs; after the first run the store's own times are used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from attribench.study.plan import StudyPlan

OPERATIONS_PER_SECOND = {"cpu": 2e10, "cuda": 3e13}
"""What one CPU core, and one GPU, get out of such a network in float32."""
BYTES_PER_PIXEL_STORED = 1.5
ACTIVATIONS_PER_PARAMETER = 2


def estimates(plan: StudyPlan, model: str, device: str) -> tuple[Mapping[str, float] | None, Mapping[str, float] | None]:
    """Seconds, peak bytes and bytes on disk of the plan's training and generation; None for a model not on disk."""
    unet = Path(model) / "unet"
    try:
        side = plan.training.latent_side or json.loads((unet / "config.json").read_text())["sample_size"]
        n_parameters = plan.training.n_parameters or sum(_parameters(path) for path in unet.glob("*.safetensors"))
    except (OSError, KeyError, ValueError, SafetensorError):
        return None, None
    forward = 2 * n_parameters * side**2 / 4 / OPERATIONS_PER_SECOND["cuda" if device.startswith("cuda") else "cpu"]
    config = plan.training.hyper_parameters
    peak = 4 * n_parameters * (1 + ACTIVATIONS_PER_PARAMETER * config.batch_size)
    pictures = config.epochs * len(plan.training.images)
    train = {"seconds": 3 * forward * pictures, "peak_bytes": peak, "bytes": 4 * n_parameters / 20}
    generate = {
        "seconds": 2 * forward * plan.sampling.steps * len(plan.generated_cases),
        "peak_bytes": peak,
        "bytes": BYTES_PER_PIXEL_STORED * (8 * side) ** 2 * len(plan.generated_cases),
    }
    return train, generate


def _parameters(path: Path) -> int:
    """Numbers in a safetensors file, from its header."""
    with safe_open(path, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
