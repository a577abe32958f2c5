"""What the pictures of a data set hold: a hash of their bytes, and whether all can be read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from attribench.data.kinds import Dataset
from attribench.data.pictures import BYTE_LIMIT
from attribench.errors import DatasetError
from attribench.files.confined import read_bytes
from attribench.files.text import shown, some_shown


def require_readable(dataset: Dataset, image_ids: Iterable[str], look: Callable[[str], None] = lambda image_id: None) -> None:
    """Raises DatasetError if any of these pictures cannot be decoded: one line that says why for the first of them.

    A run would stop at it all the same, but only after what it trained until then. `look` is called with each id.
    """
    wanted = sorted(set(image_ids))
    faults: dict[str, Exception] = {}
    for image_id in wanted:
        try:
            dataset.load(image_id)
        except Exception as error:  # an adapter from elsewhere raises what it likes
            faults[image_id] = error
        look(image_id)
    if not faults:
        return
    (first, fault), *others = faults.items()
    known = isinstance(fault, DatasetError)
    why = str(fault) if known else f"{shown(first)}: {dataset.name} raised {type(fault).__name__}: {shown(str(fault))}"
    more = f" (and {len(others)} more of {len(wanted)}: {some_shown(image_id for image_id, _ in others)})" if others else ""
    raise DatasetError(f"{why}{more}") from fault


def fingerprint(dataset: Dataset, image_ids: Iterable[str]) -> str:
    """sha256 over the ids and the bytes of these images, whatever their order: the key of what is made from them."""
    digest = hashlib.sha256()
    for image_id in sorted(set(image_ids)):
        digest.update(hashlib.sha256(image_id.encode()).digest())
        digest.update(hashlib.sha256(read_bytes(dataset.root, image_id, BYTE_LIMIT)).digest())
    return digest.hexdigest()
