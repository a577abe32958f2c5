"""From a picture to what an encoder takes: resize, cut the centre, normalise; as its authors do it, by torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL.Image import Image
from torch import Tensor

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation of each colour."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize of the shorter side, centre crop, pixels in [0, 1], normalisation."""

    resize: int
    crop: int
    interpolation: Literal["bilinear", "bicubic"]
    normalize: tuple[tuple[float, float, float], tuple[float, float, float]]

    def __call__(self, picture: Image) -> Tensor:
        """[3, crop, crop]."""
        from torchvision.transforms import v2  # takes seconds to import, and `attribench list` names encoders alone
        from torchvision.transforms.functional import InterpolationMode, to_tensor

        mode = InterpolationMode(self.interpolation)
        cut = v2.functional.center_crop(v2.functional.resize(picture.convert("RGB"), [self.resize], mode), [self.crop])
        return v2.functional.normalize(to_tensor(cut), *map(list, self.normalize))
