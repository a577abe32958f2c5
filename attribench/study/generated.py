"""The pictures of a study's cases: what a generation leaves on disk, or what the data set gives.

pictures/00000.png              one per case, in the order of the plan's cases
trajectory/00000.npy            [steps, channels, height, width] float32: predicted x_0 along its sampling
trajectory/timesteps.npy        [steps] int64, falling
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from attribench.data import Queries, Role, Trajectory
from attribench.study.plan import StudyPlan

TIMESTEPS = "timesteps.npy"


def picture_name(number: int) -> str:
    """File of the `number`-th case's picture."""
    return f"{number:05d}.png"


def estimates_name(number: int) -> str:
    """File of the `number`-th case's predicted clean latents."""
    return f"{number:05d}.npy"


def queries_of(plan: StudyPlan, role: Role, folder: Path | None, load: Callable[[str], Image.Image]) -> Queries:
    """The pictures of the cases of one role: generated into `folder`, or given and loaded by their ids."""
    if plan.given is None or role == "fit":
        return generated(plan, folder, role)
    ids = dict(plan.given.pictures)
    return Queries(plan.roles(role), lambda case_id: load(ids[case_id]), plan.regions_of(role))


def generated(plan: StudyPlan, folder: Path, role: Role) -> Queries:
    """The generated pictures of the cases of one role."""
    numbers = {case.id: number for number, case in enumerate(plan.generated_cases)}
    return Queries(plan.roles(role), lambda case_id: read_picture(folder, numbers[case_id]), plan.regions_of(role))


def read_picture(folder: Path, number: int) -> Image.Image:
    """What `write_picture` wrote."""
    with Image.open(folder / picture_name(number)) as picture:
        return picture.convert("RGB")


def write_picture(folder: Path, number: int, picture: Image.Image) -> None:
    """The picture of the `number`-th case, whole or not at all."""
    target = folder / picture_name(number)
    aside = target.with_suffix(".part")
    picture.save(aside, format="PNG")
    aside.rename(target)


def sampled(plan: StudyPlan, folder: Path, case_id: str) -> Trajectory:
    """How the picture of a case was sampled; the estimates are memory-mapped."""
    number = next(number for number, case in enumerate(plan.generated_cases) if case.id == case_id)
    return Trajectory(
        timesteps=np.load(folder / TIMESTEPS, allow_pickle=False),
        estimates=np.load(folder / estimates_name(number), mmap_mode="r", allow_pickle=False),
    )
