"""Names and text from strangers, as they can be printed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def shown(name: str) -> str:
    """A file's name as it can be printed: control characters and broken UTF-8 escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def some_shown(names: Iterable[str], most: int = 5) -> str:
    """The first few names, for a message of one line."""
    listed = [shown(name) for name in names]
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "")


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8 without control characters, hence safe as an id in every format."""
    return name.isprintable() or not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
