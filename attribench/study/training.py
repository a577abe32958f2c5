"""How the model of a study comes about: a base model customized on concepts, or a UNet trained from scratch.

A `Training` says all that a trained model depends on, hence its identity, and knows how to train it, how to retrain it
on a part of the images, and how to take losses under many sets of weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from attribench.data import TrainImage
from attribench.diffusion.config import ARCHITECTURES, PARAMETERS, CustomizationConfig, FromScratchConfig
from attribench.diffusion.observing import Watch
from attribench.engine.identity import token
from attribench.engine.steps import Ref, StepContext
from attribench.files.state import State
from attribench.study.corpus import ENCODINGS, Corpus, encode_step

if TYPE_CHECKING:
    from torch import Tensor

    from attribench.diffusion.encodings import Encodings
    from attribench.diffusion.model import DiffusionModel

Report = Callable[[int, int, float], None]
STEPS_TOGETHER = 2000
"""Optimizer steps of models that are retrained from scratch by one step: enough to make loading the base model cheap."""


@dataclass(frozen=True)
class Retraining:
    """One model to retrain: rows of the training images, rising, and its seed."""

    rows: tuple[int, ...]
    seed: int
    resume: Path
    """A file that a long training may be saved to while it goes on."""


@dataclass(frozen=True, kw_only=True)
class Training(ABC):
    """All that a trained model depends on."""

    model: str
    """Fingerprint of the base model."""
    data: str
    """Fingerprint of the training images' bytes."""
    images: tuple[TrainImage, ...]
    """Rows, in a fixed order."""
    seed: int

    @cached_property
    def seedless(self) -> str:
        """A token of all but the seed: of a retrained model it is the part that has one."""
        return token(replace(self, seed=0), "training")

    latent_side: ClassVar[int | None] = None
    """Cells of a side of the latents; None: those of the base model's own UNet."""
    n_parameters: ClassVar[int | None] = None
    """Of the UNet, about, for estimates; None: as many as the base model's own."""

    @property
    @abstractmethod
    def hyper_parameters(self) -> CustomizationConfig | FromScratchConfig:
        """Those of the subclass's own field."""

    @property
    def n_steps(self) -> int:
        """Optimizer steps."""
        return self.hyper_parameters.steps(len(self.images))

    @property
    @abstractmethod
    def models_per_step(self) -> int:
        """How many models one worker retrains and commits together."""

    @property
    def pictures(self) -> tuple[str, ...]:
        """Ids of all pictures that are read, maybe more than those of its own images."""
        return tuple(image.id for image in self.images)

    def inputs(self, bindings: Mapping[str, Any]) -> dict[str, Ref]:
        """What other steps make that training reads, by name."""
        return {}

    @abstractmethod
    def untrained(self, reference: str, device: str) -> DiffusionModel:
        """The model as it is before training, from the path or id of the base model."""

    @abstractmethod
    def train(
        self, model: DiffusionModel, ctx: StepContext, *, watches: Sequence[Watch], report: Report, resume: Path
    ) -> list[float]:
        """Train `untrained` in place on all images; the losses. `ctx`: of the step; `resume` is as in `Retraining`."""

    @abstractmethod
    def retrain(
        self, model: DiffusionModel, parts: Sequence[Retraining], ctx: StepContext, report: Report
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Each part's number and weights when they are there, in whichever order; `model` is changed."""

    @abstractmethod
    def losses(
        self, model: DiffusionModel, weights: Mapping[str, Tensor], latents: Tensor, prompts: Sequence[str],
        timesteps: Tensor, noise: Tensor,
    ) -> Tensor:  # fmt: skip
        """The losses [n] of rows under such weights; `model` is changed."""


@dataclass(frozen=True, kw_only=True)
class Customization(Training):
    """A base model that is taught concepts (`attribench.diffusion.customization`)."""

    modifiers: tuple[tuple[str, str | None], ...]
    """(token, word it starts from; None for a rare token), in the order of the concepts."""
    customization: CustomizationConfig

    models_per_step: ClassVar[int] = 32
    """Enough to fill a stacked pass at any batch size."""

    @property
    def hyper_parameters(self) -> CustomizationConfig:
        return self.customization

    def untrained(self, reference: str, device: str) -> DiffusionModel:
        from attribench.diffusion.model import DiffusionModel  # here, since torch takes seconds to import

        model = DiffusionModel.load(reference, device)
        model.add_modifiers(dict(self.modifiers))
        return model

    def train(
        self, model: DiffusionModel, ctx: StepContext, *, watches: Sequence[Watch], report: Report, resume: Path
    ) -> list[float]:
        from attribench.diffusion.customization import customize  # here, since torch takes seconds to import

        load, config = ctx.bindings["dataset"].load, self.customization
        return customize(model, self.images, load, config, seed=self.seed, watches=watches, report=report)

    def retrain(
        self, model: DiffusionModel, parts: Sequence[Retraining], ctx: StepContext, report: Report
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Many at once, see `attribench.diffusion.stacked`."""
        from attribench.diffusion.stacked import StackedJob, customize_in_turn  # here, since torch takes seconds to import

        jobs = [StackedJob(tuple(self.images[row] for row in part.rows), part.seed) for part in parts]
        for number, made in customize_in_turn(model, jobs, ctx.bindings["dataset"].load, self.customization, report=report):
            yield number, made.weights

    def losses(
        self, model: DiffusionModel, weights: Mapping[str, Tensor], latents: Tensor, prompts: Sequence[str],
        timesteps: Tensor, noise: Tensor,
    ) -> Tensor:  # fmt: skip
        from attribench.diffusion.stacked import stacked_losses  # here, since torch takes seconds to import

        return stacked_losses(model, [weights], latents, prompts, timesteps, noise)[0]


@dataclass(frozen=True, kw_only=True)
class FromScratch(Training):
    """A UNet that is trained from scratch (`attribench.diffusion.from_scratch`) beside a base model's VAE and text encoder."""

    corpus: Corpus
    """The data set that the images are some of; it is encoded as a whole, once."""
    config: FromScratchConfig

    @cached_property
    def seedless(self) -> str:
        """See `Training`; the corpus, of which images that are not its own do not matter, has no part in it."""
        return token([self.model, self.data, self.images, self.config], "training")

    @property
    def hyper_parameters(self) -> FromScratchConfig:
        return self.config

    @property
    def n_parameters(self) -> int:
        return PARAMETERS[self.config.architecture]

    @property
    def latent_side(self) -> int:
        return ARCHITECTURES[self.config.architecture]["sample_size"]

    @property
    def models_per_step(self) -> int:
        """One after another: few, so that all workers have some."""
        return max(1, STEPS_TOGETHER // self.n_steps)

    @property
    def pictures(self) -> tuple[str, ...]:
        return tuple(image.id for image in self.corpus.images)

    def inputs(self, bindings: Mapping[str, Any]) -> dict[str, Ref]:
        return {ENCODINGS: Ref(encode_step(self.corpus, self.config, bindings), ENCODINGS)}

    def untrained(self, reference: str, device: str) -> DiffusionModel:
        from attribench.diffusion.untrained import UntrainedModel  # here, since torch takes seconds to import

        return UntrainedModel.build(reference, self.config, self.seed, device)

    def train(
        self, model: DiffusionModel, ctx: StepContext, *, watches: Sequence[Watch], report: Report, resume: Path
    ) -> list[float]:
        from attribench.diffusion.from_scratch import train_from_scratch  # here, since torch takes seconds to import

        return train_from_scratch(
            model, self._encodings(ctx), None, self.config, seed=self.seed, watches=watches, report=report, resume=resume
        )

    def retrain(
        self, model: DiffusionModel, parts: Sequence[Retraining], ctx: StepContext, report: Report
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """One after the other, each from weights drawn by its own seed."""
        from attribench.diffusion.from_scratch import train_from_scratch  # here, since torch takes seconds to import

        encodings, done = self._encodings(ctx), 0
        total = sum(self.config.steps(len(part.rows)) for part in parts)
        for number, part in enumerate(parts):
            model.draw_weights(part.seed)

            def count(step: int, _total: int, loss: float, before: int = done) -> None:
                report(before + step, total, loss)

            train_from_scratch(model, encodings, part.rows, self.config, seed=part.seed, report=count, resume=part.resume)
            done += self.config.steps(len(part.rows))
            yield number, {name: weight.clone() for name, weight in model.trained_weights().items()}

    def losses(
        self, model: DiffusionModel, weights: Mapping[str, Tensor], latents: Tensor, prompts: Sequence[str],
        timesteps: Tensor, noise: Tensor,
    ) -> Tensor:  # fmt: skip
        import torch

        from attribench.diffusion.stacked import ROWS_AT_ONCE  # here, since torch takes seconds to import

        model.load_trained(weights)
        with torch.no_grad():
            contexts = {prompt: model.encode_prompts([prompt])[0] for prompt in dict.fromkeys(prompts)}
            found = []
            for start in range(0, len(prompts), ROWS_AT_ONCE):
                some = slice(start, start + ROWS_AT_ONCE)
                context = torch.stack([contexts[prompt] for prompt in prompts[some]])
                found.append(model.loss(latents[some], context, timesteps[some], noise[some]))
            return torch.cat(found)

    def _encodings(self, ctx: StepContext) -> Encodings:
        """Those of the training's own images, in their order."""
        from attribench.diffusion.encodings import Encodings  # here, since torch takes seconds to import

        place = self.corpus.place
        return Encodings(State(ctx.input(ENCODINGS)), [place[image.id] for image in self.images])
