"""What of the hub is here already, and what a user is told about the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from attribench.diffusion.loading import LOADING
from attribench.errors import Unavailable


def missing(name: str, repository: str, files: Sequence[str], remedy: str) -> str | None:
    """Why weights cannot be had: the hub may not be asked and none of `files` is in the cache. None if all is well."""
    from huggingface_hub import constants, try_to_load_from_cache

    if not constants.HF_HUB_OFFLINE:
        return None
    if repository and any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        return None
    return f"the weights of {name} are not in the local cache and HF_HUB_OFFLINE is set; {remedy}"


def fetch_once(python: str) -> str:
    """The remedy for weights that are not here: the Python line that fetches them."""
    return f'fetch them once while online: python -c "{python}"'


@contextlib.contextmanager
def loading(name: str, remedy: str) -> Iterator[None]:
    """Inside, a library builds a model: alone, with its own random numbers; its failure is Unavailable, one line."""
    try:
        with LOADING, torch.random.fork_rng():  # weights are drawn before they are overwritten
            yield
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unavailable(f"cannot load {name}: {reason}; {remedy}") from error
