"""The step sizes that the papers name, as α of a Newton step α/N · F⁻¹ (diagonal), α/N² · F⁻¹ (EK-FAC) or a gradient step α.

Wang et al., NeurIPS 2024, appendix B, in its later version; EK-FAC from its successor. Two settings: a model trained from
scratch on MSCOCO, where N is the number of training images, and Stable Diffusion customized on exemplars, where N stands
for the images of LAION.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attribench.errors import Unavailable
from attribench.gradients.curvature import Kind
from attribench.gradients.groups import Group

Setting = Literal["from scratch", "customized"]

LAION = 400_000_000
"""N of customized models."""

_SIZES: Mapping[tuple[Setting, Kind, Group], Mapping[int, float]] = {
    ("from scratch", "diagonal", "cross-attention-kv"): {1: 0.01},
    ("from scratch", "diagonal", "cross-attention"): {1: 0.005},
    ("from scratch", "diagonal", "attention"): {1: 0.005},
    ("from scratch", "diagonal", "full"): {1: 0.0005},
    ("from scratch", "identity", "cross-attention-kv"): {1: 0.001, 10: 0.0001},
    ("from scratch", "ekfac", "cross-attention-kv"): {1: 0.01},
    ("customized", "diagonal", "cross-attention-kv"): {100: 0.1, 1: 10.0},
    ("customized", "diagonal", "full"): {100: 0.00005},
    ("customized", "identity", "cross-attention-kv"): {100: 0.01},
}
"""Number of steps -> α, the authors' own choice first."""


def published(setting: Setting, curvature: Kind, group: Group, steps: int | None) -> tuple[int, float]:
    """(number of steps, α); `steps` None: the authors' choice. Raises Unavailable for what the papers do not name."""
    sizes = _SIZES.get((setting, curvature, group), {})
    chosen = next(iter(sizes), None) if steps is None else steps
    if chosen not in sizes:
        asked = "" if steps is None else f" in {steps} steps"
        raise Unavailable(
            f"the papers name no step size for {curvature} unlearning of {group} weights{asked} of a model that is {setting}; "
            "give step_size=NUMBER (a relative one; 1 doubles the query's loss)"
        )
    return chosen, sizes[chosen]
