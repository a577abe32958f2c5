"""A loaded encoder: pictures, and for some texts, to features. Reading pictures goes on while the encoder works."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from attribench.errors import UsageError

BATCH = 64
"""Pictures or texts in one pass."""
READERS = max(1, min(8, (os.cpu_count() or 1) - 1))
"""Threads that decode and resize; the libraries that do release Python's lock. One core is left to the encoder."""
AHEAD = BATCH
"""Pictures that may be read and wait for the encoder."""

Pictures = Sequence[Image] | Iterable[Image]
Pixels = Callable[[Image], Tensor]
"""A picture of any mode and shape -> what a model takes, [3, height, width]."""


def as_it_is(picture: Image) -> tuple[Image, ...]:
    """One version."""
    return (picture,)


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder, in eval mode. Features are what it returns: no normalisation unless it is part of the model."""

    name: str
    pixels: Pixels
    image_features: Callable[[Tensor], Tensor]
    """[n, 3, height, width] on the device -> [n, d]."""
    device: str
    text_features: Callable[[list[str]], Tensor] | None = None
    """Texts -> [n, d]; None for an encoder of pictures alone."""

    def encode_images(self, pictures: Pictures) -> Tensor:
        """[n, d] float32 on the CPU. A sequence (`len` and `[i]`) is read by several threads, an iterator by one."""
        return torch.cat([features[0] for features in self.batches(pictures)])

    def batches(
        self, pictures: Pictures, versions: Callable[[Image], Sequence[Image]] = as_it_is, start: int = 0
    ) -> Iterator[Tensor]:
        """Features [versions, n, d] float32 on the CPU of at most BATCH pictures at a time, in order from the `start`-th on.

        `versions` are what is encoded of each picture, which is read once.
        """

        def read(picture: Image) -> Tensor:
            return torch.stack([self.pixels(version) for version in versions(picture)])

        for batch in _batches(_read_ahead(pictures, read, start)):
            by_version = torch.stack(batch, dim=1).to(self.device)
            yield torch.stack([self._features(pixels) for pixels in by_version])

    @torch.no_grad()
    def _features(self, pixels: Tensor) -> Tensor:
        return self.image_features(pixels).float().cpu()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """[n, d] float32 on the CPU. Raises UsageError for an encoder of pictures alone."""
        if self.text_features is None:
            raise UsageError(f"{self.name} encodes pictures and no text; take an encoder of open_clip, e.g. 'ViT-B-32/openai'")
        return torch.cat([self.text_features(batch).float().cpu() for batch in _batches(texts)])


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Lists of at most BATCH items, drawn when asked for."""
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, BATCH)), [])


def _read_ahead(pictures: Pictures, read: Callable[[Image], Tensor], start: int) -> Iterator[Tensor]:
    """`read` of each picture from the `start`-th on, in order, at most AHEAD of them before they are asked for."""
    if hasattr(pictures, "__getitem__"):
        items, job = range(start, len(pictures)), lambda i: read(pictures[i])
    else:
        items, job = islice(pictures, start, None), read
    with ThreadPoolExecutor(READERS, thread_name_prefix="read pictures") as pool:
        waiting: deque[Future[Tensor]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(job, item))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # a picture that cannot be read, or a caller that stops asking
            pool.shutdown(wait=False, cancel_futures=True)
