"""What a field of a stranger's JSON may hold: typed, bounded, and fit to be shown."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

import pydantic
from pydantic import AfterValidator, Field

WORD_FORM = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
WORD = re.compile(WORD_FORM)


def _printable(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs", "Cf", "Co", "Zl", "Zp") for character in text):
        raise ValueError("holds characters that cannot be shown")
    return text


def _word(text: str) -> str:
    if not WORD.fullmatch(text) or ".." in text:
        raise ValueError("is no plain name: use letters, digits, '.', '-' and '_'")
    return text


Text = Annotated[str, Field(max_length=300), AfterValidator(_printable)]
Word = Annotated[str, AfterValidator(_word)]
Scalar = str | int | float | bool | None


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
