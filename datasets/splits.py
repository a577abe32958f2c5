"""The split of what no edition has split: dev or test by a hash of its name."""

from __future__ import annotations

import hashlib

from attribench.data import Split

DEV_SHARE = 0.25


def default_split(dataset: str, name: str) -> Split:
    """The split of a concept, or of a prompt's picture, whose edition fixes none: dev for a quarter of the hashes.

    It depends on nothing but the names, so what was tuned on is never tested on, whatever else a copy of the data
    set holds.
    """
    digest = hashlib.sha256(f"attribench split 0/{dataset}/{name}".encode()).digest()
    return "dev" if int.from_bytes(digest[:8], "big") < DEV_SHARE * 2**64 else "test"
