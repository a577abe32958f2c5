"""Named image and text encoders, all loaded by open_clip_torch.

    clip-tiny            the small CLIP that ships in attribench/assets (recipes/tiny/clip.py)
    MODEL/PRETRAINED     open_clip's names ("ViT-B-32/openai"), from the local cache or the hub

Features are what the encoder returns: no normalisation. Weights are safetensors, or read with
`weights_only=True`; no pickle is executed.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL.Image import Image
from torch import Tensor

from attribench.diffusion.fingerprint import fingerprint as weights_fingerprint
from attribench.diffusion.loading import LOADING
from attribench.errors import Unavailable, UsageError
from attribench.interface import Edition

if TYPE_CHECKING:
    import open_clip

TINY = "clip-tiny"
BY_EDITION: dict[Edition, str] = {"mini": TINY, "paper": "ViT-B-32/openai"}
ASSETS = Path(__file__).parent / "assets"
BATCH = 64


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder, in eval mode."""

    name: str
    model: open_clip.CLIP
    preprocess: Any
    tokenize: Any
    device: str

    @torch.no_grad()
    def encode_images(self, pictures: Iterable[Image]) -> Tensor:
        """[n, d] float32 on the CPU; `pictures` may be an iterator and is read a batch at a time."""
        return torch.cat(
            [
                self.model.encode_image(torch.stack([self.preprocess(picture) for picture in batch]).to(self.device))
                .float()
                .cpu()
                for batch in _batches(pictures)
            ]
        )

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """[n, d] float32 on the CPU."""
        return torch.cat(
            [
                self.model.encode_text(self.tokenize(batch).to(self.device)).float().cpu()
                for batch in _batches(texts)
            ]
        )


def resolve(name: str, edition: Edition) -> str:
    """The encoder that "auto" means for an edition: clip-tiny for mini, OpenAI's ViT-B/32 for paper."""
    return BY_EDITION[edition] if name == "auto" else name


def available(name: str) -> str | None:
    """Why the encoder cannot be had here, or None; loads no weights. Raises UsageError for an unknown name."""
    if name == TINY:
        if (ASSETS / TINY / "open_clip_config.json").is_file():
            return None
        return f"{TINY} is not in {ASSETS / TINY}; build it with recipes/tiny/clip.py or take a complete copy"
    from huggingface_hub import constants

    model, tag = _parse(name)
    if constants.HF_HUB_OFFLINE and not _cached(model, tag):
        return f"the weights of {name} are not in the local cache and HF_HUB_OFFLINE is set; {_remedy(model, tag)}"
    return None


def fingerprint(name: str) -> str:
    """What the encoder's weights are, for cache keys: a hash of the shipped ones, else open_clip's name."""
    return weights_fingerprint(ASSETS / TINY) if name == TINY else name


_failed: dict[str, Unavailable] = {}


@lru_cache(maxsize=2)
def load_encoder(name: str, device: str = "cpu") -> Encoder:
    """The encoder of that name. Raises Unavailable when its weights cannot be had."""
    import open_clip

    reason = available(name)
    if reason:
        raise Unavailable(reason)
    if name in _failed:  # a hub that does not answer costs a minute of retries; once is enough
        raise _failed[name]
    if name == TINY:
        return local_encoder(ASSETS / TINY, TINY, device)
    model_name, tag = _parse(name)
    quick_gelu = bool(open_clip.get_pretrained_cfg(model_name, tag).get("quick_gelu"))
    try:
        with LOADING, _own_random_numbers():
            model, _, preprocess = open_clip.create_model_and_transforms(
                model_name, pretrained=tag, device=device, force_quick_gelu=quick_gelu
            )
    except (OSError, RuntimeError, ValueError) as error:
        _failed[name] = Unavailable(f"cannot load {name}: {str(error).splitlines()[0]}; {_remedy(model_name, tag)}")
        raise _failed[name] from error
    return Encoder(name, model.eval().requires_grad_(False), preprocess, open_clip.get_tokenizer(model_name), device)


def local_encoder(folder: Path, name: str, device: str = "cpu") -> Encoder:
    """An encoder from a folder that open_clip's `local-dir:` reads: config, safetensors, tokenizer files."""
    import open_clip

    source = f"local-dir:{folder}"
    try:
        with LOADING, _own_random_numbers():
            model, _, preprocess = open_clip.create_model_and_transforms(source, device=device)
        tokenize = open_clip.get_tokenizer(source)
    except (OSError, RuntimeError, ValueError) as error:
        raise Unavailable(f"cannot load the encoder in {folder}: {str(error).splitlines()[0]}; build it again") from error
    return Encoder(name, model.eval().requires_grad_(False), preprocess, tokenize, device)


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Lists of at most BATCH items, drawn when asked for."""
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, BATCH)), [])


@contextlib.contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Weights are drawn before they are overwritten; the caller's random numbers stay as they are."""
    with torch.random.fork_rng():
        yield


def _parse(name: str) -> tuple[str, str]:
    """"ViT-B-32/openai" -> ("ViT-B-32", "openai")."""
    import open_clip

    model, _, tag = name.rpartition("/")
    known = [f"{known_model}/{known_tag}" for known_model, known_tag in open_clip.list_pretrained()]
    if name not in known:
        near = difflib.get_close_matches(name, [TINY, *known], n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"try {TINY!r} or {BY_EDITION['paper']!r}"
        raise UsageError(f"no encoder is called {name!r}; {hint} (names are {TINY!r} or open_clip's MODEL/PRETRAINED)")
    return model, tag


def _cached(model: str, tag: str) -> bool:
    import open_clip
    from huggingface_hub import try_to_load_from_cache
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    config = open_clip.get_pretrained_cfg(model, tag)
    repository, _, file = config.get("hf_hub", "").rpartition("/")
    files = [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    return bool(repository) and any(isinstance(try_to_load_from_cache(repository, f), str) for f in files)


def _remedy(model: str, tag: str) -> str:
    return f"fetch them once while online: python -c \"import open_clip; open_clip.create_model('{model}', '{tag}')\""
