"""Named image and text encoders, loaded by open_clip_torch, and image encoders of timm.

    clip-tiny            the small CLIP that ships in attribench/assets (recipes/tiny/clip.py)
    MODEL/PRETRAINED     open_clip's names ("ViT-B-32/openai"), from the local cache or the hub
    timm/MODEL           timm's names ("timm/vit_base_patch16_224.dino"), likewise; they know no text

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
TIMM = "timm/"
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

    if name.startswith(TIMM):
        repository = _timm_repository(name)
        if constants.HF_HUB_OFFLINE and not _in_cache(repository, ("model.safetensors", "pytorch_model.bin")):
            return f"the weights of {name} are not in the local cache and HF_HUB_OFFLINE is set; {_timm_remedy(name)}"
        return None
    model, tag = _parse(name)
    if constants.HF_HUB_OFFLINE and not _cached(model, tag):
        return f"the weights of {name} are not in the local cache and HF_HUB_OFFLINE is set; {_remedy(model, tag)}"
    return None


def fingerprint(name: str) -> str:
    """What the encoder's weights are, for cache keys: a hash of the shipped ones, else open_clip's name or timm's page."""
    if name == TINY:
        return weights_fingerprint(ASSETS / TINY)
    return _timm_repository(name) if name.startswith(TIMM) else name


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
    if name.startswith(TIMM):
        return _load_timm(name, device)
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


def _load_timm(name: str, device: str) -> Encoder:
    import timm

    try:
        with LOADING, _own_random_numbers():
            model = timm.create_model(name.removeprefix(TIMM), pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        _failed[name] = Unavailable(f"cannot load {name}: {str(error).splitlines()[0]}; {_timm_remedy(name)}")
        raise _failed[name] from error
    return timm_encoder(model, name, device)


def timm_encoder(model: torch.nn.Module, name: str, device: str = "cpu") -> Encoder:
    """An encoder of pictures from a timm model without its classifier, with the transformation that it was trained for."""
    from timm.data import create_transform, resolve_model_data_config

    transform = create_transform(**resolve_model_data_config(model), is_training=False)

    def no_text(texts: Sequence[str]) -> Tensor:
        raise UsageError(f"{name} encodes pictures and no text; take an encoder of open_clip, e.g. {BY_EDITION['paper']!r}")

    own = _PicturesOnly(model.to(device).eval().requires_grad_(False))
    return Encoder(name, own, lambda picture: transform(picture.convert("RGB")), no_text, device)


class _PicturesOnly(torch.nn.Module):
    """A timm model behind the one method of a CLIP that it has."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.model(pixels)

    def encode_text(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError  # there is no way to make such tokens


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
        names = f"{TINY!r}, open_clip's MODEL/PRETRAINED or {TIMM}MODEL"
        raise UsageError(f"no encoder is called {name!r}; {hint} (names are {names})")
    return model, tag


def _cached(model: str, tag: str) -> bool:
    import open_clip
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    config = open_clip.get_pretrained_cfg(model, tag)
    repository, _, file = config.get("hf_hub", "").rpartition("/")
    return _in_cache(repository, [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME])


def _in_cache(repository: str, files: Sequence[str]) -> bool:
    """Whether one of a hub repository's files is here."""
    from huggingface_hub import try_to_load_from_cache

    return bool(repository) and any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)


def _timm_repository(name: str) -> str:
    """Where timm takes a model's weights from. Raises UsageError for an unknown name."""
    import timm

    model = name.removeprefix(TIMM)
    if not timm.is_model_pretrained(model):
        known = timm.list_pretrained()
        near = difflib.get_close_matches(model, known, n=1, cutoff=0.4)
        hint = f"did you mean {TIMM + near[0]!r}?" if near else f"try {TINY!r} or {BY_EDITION['paper']!r}"
        raise UsageError(f"no encoder is called {name!r}; {hint}")
    return timm.get_pretrained_cfg(model).hf_hub_id or ""


def _timm_remedy(name: str) -> str:
    made = f"timm.create_model('{name.removeprefix(TIMM)}', pretrained=True)"
    return f'fetch them once while online: python -c "import timm; {made}"'


def _remedy(model: str, tag: str) -> str:
    return f"fetch them once while online: python -c \"import open_clip; open_clip.create_model('{model}', '{tag}')\""
