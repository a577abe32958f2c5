"""Which parameters are differentiated: named groups of a UNet's layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from torch import nn

from attribench.errors import MethodError

Group = Literal["cross-attention-kv", "cross-attention", "attention", "full", "lora"]

_PATTERNS: Mapping[str, str] = {
    "cross-attention-kv": r"\battn2\.to_[kv]\b",
    "cross-attention": r"\battn2\.",
    "attention": r"\battn[12]\.",
    "full": r"",
    "lora": r"lora",
}
_ADAPTER = re.compile(_PATTERNS["lora"])


def layers_of(unet: nn.Module, group: Group) -> dict[str, nn.Module]:
    """The modules that hold the group's parameters themselves, by name, in module order.

    A low-rank adapter is in the group "lora" alone, never in that of the layer it adapts. Raises MethodError for
    a group that names no parameter.
    """
    pattern = re.compile(_PATTERNS[group])
    found = {
        name: module
        for name, module in unet.named_modules()
        if any(True for _ in module.parameters(recurse=False))
        and pattern.search(name)
        and (group == "lora" or not _ADAPTER.search(name))
    }
    if not found:
        advice = {"lora": "load a model with low-rank adapters, or take another group", "full": "is this a UNet?"}
        advised = advice.get(group, "the model has no such attention; take the group full")
        raise MethodError(f"the group {group!r} names no parameter of this {type(unet).__name__}: {advised}")
    return found
