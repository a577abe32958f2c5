"""What training from scratch reads of a data set: latents and text embeddings, computed once for all trainings.

    means, stds     [versions, n, c, h, w] float32    of the VAE's posterior, scaled as the UNet sees latents; the second
                                                      version is the mirror image, where training uses flips
    texts           [1 + n_texts, length, d_text]     hidden states: of the empty text, then of every distinct caption
    captions        [n, k] int64                      rows of `texts`: the captions of each picture

Pictures and texts are encoded in blocks that depend on their place in the data set alone, since rounding depends on what
is encoded together. A killed encoding goes on at the first block that is not on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from PIL.ImageOps import mirror

from attribench.data import TrainImage
from attribench.diffusion.model import DiffusionModel
from attribench.errors import DatasetError
from attribench.files.state import State

AT_ONCE = 16
"""Pictures, or texts, of a block."""


def encode(
    model: DiffusionModel,
    images: Sequence[TrainImage],
    load: Callable[[str], Image.Image],
    state: State,
    *,
    flips: bool,
    stored: Literal["float32", "float16"] = "float32",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Encode every picture, and its mirror image if `flips`, and all of their captions; leaves the arrays in `state`.

    Raises DatasetError where pictures have different numbers of captions.
    """
    counts = {len(image.prompts) for image in images}
    if len(counts) != 1:
        raise DatasetError(f"the pictures have {sorted(counts)} captions each; training from scratch needs as many for all")
    texts = ["", *dict.fromkeys(prompt for image in images for prompt in image.prompts if prompt)]
    place = {text: row for row, text in enumerate(texts)}
    n, versions = len(images), 2 if flips else 1
    total = versions * n + len(texts)
    state["captions"] = np.array([[place[prompt] for prompt in image.prompts] for image in images], dtype=np.int64)
    means, stds = (state.create(name, (versions, n, *model.latent_shape)) for name in ("means", "stds"))
    for start in _missing(state, "pictures", versions * n):
        rows = range(start, min(start + AT_ONCE, versions * n))
        pictures = [load(images[row % n].id) for row in rows]
        pictures = [mirror(picture) if row >= n else picture for row, picture in zip(rows, pictures, strict=True)]
        mean, std = model.latent_moments(model.pixels(pictures))
        for row, own_mean, own_std in zip(rows, mean.cpu().numpy(), std.cpu().numpy(), strict=True):
            means[divmod(row, n)], stds[divmod(row, n)] = own_mean, own_std
        means.flush()
        stds.flush()
        report(rows.stop, total)
    length, width = model.tokenizer.model_max_length, model.text_encoder.config.hidden_size
    hidden = state.create("texts", (len(texts), length, width), stored)
    for start in _missing(state, "texts", len(texts)):
        with torch.no_grad():
            hidden[start : start + AT_ONCE] = model.encode_prompts(texts[start : start + AT_ONCE]).cpu().numpy()
        hidden.flush()
        report(versions * n + min(start + AT_ONCE, len(texts)), total)


def _missing(state: State, what: str, total: int):
    """The starts of the blocks that are not on disk yet; each counts as written when the next one is asked for."""
    written = state.create(f"{what}.written", (1,), "int64")
    for start in range(int(written[0]), total, AT_ONCE):
        yield start
        written[0] = min(start + AT_ONCE, total)
        written.flush()


class Encodings:
    """The arrays of some pictures of a data set, in the order in which a training has them as rows."""

    def __init__(self, arrays: Mapping[str, np.ndarray], rows: Sequence[int]) -> None:
        self._rows = np.asarray(rows, dtype=np.int64)
        self._means, self._stds, self._texts = arrays["means"], arrays["stds"], arrays["texts"]
        self._captions = np.array(arrays["captions"])[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def n_captions(self) -> int:
        """Of each picture."""
        return self._captions.shape[1]

    def latents(self, rows: np.ndarray, versions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and standard deviations, [len(rows), c, h, w] each; version 1 is the mirror image."""
        at = (versions, self._rows[rows])
        return torch.from_numpy(self._means[at]), torch.from_numpy(self._stds[at])

    def contexts(self, rows: np.ndarray, captions: np.ndarray) -> torch.Tensor:
        """[len(rows), length, d_text] float32 of the numbered caption of each; -1 stands for no caption."""
        at = np.where(captions < 0, 0, self._captions[rows, captions])
        return torch.from_numpy(self._texts[at]).float()
