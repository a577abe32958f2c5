"""How large a model's pictures are, without loading it."""

from __future__ import annotations

import json
from pathlib import Path

from attribench.diffusion.fingerprint import folder_of


def picture_side(reference: str | Path, latent_side: int | None = None) -> int | None:
    """Pixels of a side, from the configurations in a model's folder or cached hub snapshot; None where they are not there.

    `latent_side`: cells of a side, of a UNet that is not the model's own.
    """
    folder = folder_of(reference)
    if folder is None:
        return None
    try:
        unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
        return (latent_side or unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    except (OSError, KeyError, ValueError, TypeError):
        return None
