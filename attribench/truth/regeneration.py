"""A study's pictures generated again under retrained models, from the same noise and prompt, and how they deviate.

    regenerate      one artifact a look: 00000.png … in the order of its queries
    compare         one artifact a look: deviation.npy [2, n_query] float64

The first row of deviation.npy is the mean squared error against the picture of the model that is attributed, over pixels
and channels in [0, 1]; the second is the cosine of the two pictures' features by an encoder (CLIP's, in the paper).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attribench.data import GenerationCase, Role
from attribench.engine.steps import Ref, Step, StepContext
from attribench.study.generated import generated, picture_name, read_picture, write_picture
from attribench.study.steps import WEIGHTS, initial_noise

if TYPE_CHECKING:
    from PIL.Image import Image

    from attribench.study.study_steps import StudySteps

DEVIATION = "deviation.npy"


def regenerate_step(study: StudySteps, weights: Mapping[str, Ref], taken: Mapping[str, Sequence[GenerationCase]]) -> Step:
    """`weights` and the queries that are generated again under them, by output."""
    plan, generation = study.plan, study.pictures.estimate
    share = sum(map(len, taken.values())) / len(plan.cases)
    return Step(
        name="regenerate",
        label=f"{plan.id}, {len(taken)} looks",
        function=regenerate,
        params={"training": plan.training.seedless, "seed": plan.training.seed, "sampling": plan.sampling},
        inputs=dict(weights),
        own_inputs={name: frozenset({name}) for name in weights},
        outputs={name: tuple(cases) for name, cases in taken.items()},
        bindings={**study.bindings, "plan": plan},
        estimate=generation and {**generation, "seconds": generation["seconds"] * share, "bytes": generation["bytes"] * share},
        gpu=True,
    )


def compare_step(study: StudySteps, again: Step, role: Role, encoder: str) -> Step:
    """Hold what `again` generated against the study's own pictures."""
    from attribench import encoders  # here, since torch takes seconds to import

    return Step(
        name="compare",
        label=again.label,
        function=compare,
        params={"encoder": encoder, "weights": encoders.fingerprint(encoder)},
        inputs={"pictures": Ref(study.pictures, "pictures"), **{name: Ref(again, name) for name in again.outputs}},
        own_inputs={name: frozenset({name}) for name in again.outputs},
        outputs=dict(again.outputs),
        bindings={"plan": study.plan, "role": role},
        estimate={"seconds": 0.05 * len(again.outputs), "peak_bytes": 5e8, "bytes": 1000.0 * len(again.outputs)},
        gpu=True,
    )


def regenerate(ctx: StepContext) -> None:
    """The pictures of every wanted look, those of one look together; go on at the first look that is not whole."""
    import torch
    from safetensors.torch import load_file

    training, sampling = ctx.bindings["plan"].training, ctx.params["sampling"]
    model = training.untrained(ctx.bindings["model"], ctx.device)
    for done, (name, cases) in enumerate(ctx.wanted.items()):
        ctx.report(done, len(ctx.wanted), f"{len(ctx.wanted)} looks")
        folder = ctx.out(name)
        if (folder / picture_name(len(cases) - 1)).exists():
            continue
        model.load_trained(load_file(ctx.input(name) / WEIGHTS))
        latents = torch.stack([initial_noise(model, training, case) for case in cases])
        prompts = [case.prompt for case in cases]
        pictures = model.sample(prompts, latents, steps=sampling.steps, guidance=sampling.guidance)
        for number, picture in enumerate(pictures):
            write_picture(folder, number, picture)


def compare(ctx: StepContext) -> None:
    """The deviation of the pictures of every wanted look."""
    from torch.nn.functional import cosine_similarity

    from attribench.encoders import load_encoder  # here, since torch takes seconds to import

    encoder = load_encoder(ctx.params["encoder"], ctx.device)
    own = generated(ctx.bindings["plan"], ctx.input("pictures"), ctx.bindings["role"])
    for name, cases in ctx.wanted.items():
        before = [own[own.ids.index(case.id)] for case in cases]
        after = regenerated(ctx.input(name), len(cases))
        features = [encoder.encode_images(pictures) for pictures in (before, after)]
        errors = [squared_error(a, b) for a, b in zip(before, after, strict=True)]
        found = np.array([errors, cosine_similarity(*features).double().numpy()])
        np.save(ctx.out(name) / DEVIATION, found, allow_pickle=False)


def regenerated(folder: Path, count: int) -> list[Image]:
    """The pictures of a look."""
    return [read_picture(folder, number) for number in range(count)]


def squared_error(a: Image, b: Image) -> float:
    """Mean over pixels and channels, of values in [0, 1]."""
    first, second = (np.asarray(picture, dtype=np.float64) / 255 for picture in (a, b))
    return float(np.square(first - second).mean())
