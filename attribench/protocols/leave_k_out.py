"""Leave-K-out: is a picture forgotten where the images that a method points at are removed before training?

Wang et al., "Data attribution for text-to-image models by unlearning synthesized images" (NeurIPS 2024), §3, §5.1 and
appendix C.1. A latent diffusion model is trained from scratch on captioned pictures and generates a picture for each of some
prompts that it was not trained with: the queries. For each query, method and K the K images with the highest scores are
removed, a model is trained from scratch on the rest, the query's loss is taken under it (timesteps and noise are the same
for every model), and the query is generated again from its own noise and prompt. Metrics: `attribench.metrics.counterfactual`.

Random removal is a curve that all methods share: at each of its points, from nothing removed on, models without as many
random images, each by a draw and a training seed of its own. A control that draws at random is therefore not run, and one
that gives every image the same score is not retrained for. Retrained models are known by what they leave out and their seed,
so that methods that remove the same images share them.

Choices where the paper is silent.
- Where studies hold a part of the data set it is the same part for all: the pictures whose captions have most in common with
  the prompts, and others at random, so that a small model has been taught what it is asked for. With `n_images` left out they
  hold all. Studies differ in their prompts and their training seed.
- Retraining has seeds of its own, never that of the model that made the query: what is measured then belongs to the images,
  and is what the curve measures at K = 0.
- Epochs are the same for all, so that fewer images mean fewer steps, for methods and for random removal alike.
- Nothing is tuned here: a candidate would be worth a retraining a dev query. Each method's default stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge
from pydantic import Field, PositiveInt

from attribench.attribution.scores import ScoreTable
from attribench.data import CaptionedDataset, CaptionedImage, PromptRecord, Split, TrainImage
from attribench.data.contents import fingerprint
from attribench.diffusion import noise
from attribench.diffusion.config import FromScratchConfig, Sampling
from attribench.errors import DatasetError, UsageError
from attribench.interface import AttributionMethod
from attribench.measurement import Metric
from attribench.measurement.ordered_removal import is_determined, removals
from attribench.protocols.captions import caption_case, overlap
from attribench.protocols.protocol import Preset, Protocol, Results, metric
from attribench.study.corpus import Corpus
from attribench.study.plan import StudyPlan
from attribench.study.retrainings import Look, LossMeasure, Part, Retrainings
from attribench.study.training import FromScratch

if TYPE_CHECKING:
    from attribench.report.figures.regenerated import Regenerated

CURVE, AGAIN = "random-removal.png", "regenerated.png"
NEAR = 2 / 3
"""Share of a part of the data set that is taken for what it has in common with the prompts."""


class LeaveKOutPreset(Preset):
    n_studies: PositiveInt
    """Models that are attributed, each by its own seed."""
    n_images: PositiveInt | None = None
    """That models are trained on. None: all of the data set."""
    queries: PositiveInt
    """Prompts of each study, of which it generates a picture each."""
    k: tuple[PositiveInt, ...] = Field(min_length=1)
    """How many images are removed for a query."""
    n_seeds: PositiveInt = 3
    """Models that are retrained for each query, method and K."""
    curve: tuple[Annotated[int, Ge(0)], ...] = Field(min_length=2)
    """How many images are removed at random: 0, every K, and more."""
    draws: PositiveInt
    """Models at each point of the curve, each with a draw and a seed of its own."""
    timesteps: PositiveInt = 200
    """At which a loss is taken."""
    noise_draws: PositiveInt = 1
    encoder: str = "auto"
    """Of the similarity of pictures (`attribench.encoders`)."""
    method_seeds: tuple[int, ...] = Field(min_length=1)
    training: FromScratchConfig
    sampling: Sampling


class LeaveKOut(Protocol):
    """Remove what a method points at and retrain from scratch: is the picture forgotten? (unlearning paper, §3 and §5.1)"""

    name = "leave-k-out"
    data = CaptionedDataset
    preset_type = LeaveKOutPreset
    paper_model = "stabilityai/stable-diffusion-2"
    preset: LeaveKOutPreset
    pictures: ClassVar[Mapping[str, str]] = {
        CURVE: "what each removal does to the loss, beside random removal, and how many random images are worth as much",
        AGAIN: "pictures generated again by models that never saw what each method points at",
    }
    tunes = False

    def skip(self, method: AttributionMethod) -> str | None:
        """A method that draws at random."""
        return "random removal is the curve that all methods are held against: see chance" if method.at_chance else None

    # -------------------------------------------------------------------------------------- plans

    def plans(self, dataset: CaptionedDataset, *, model: str, split: Split, seed: int, limit: int | None) -> list[StudyPlan]:
        images = dataset.images
        self._require(dataset, len(images))
        corpus = Corpus(
            model=model, data=fingerprint(dataset, [image.id for image in images]), images=tuple(map(_train_image, images))
        )
        prompts = self._prompts(dataset, split, seed)
        taken = self._images(corpus.images, [prompt.text for own in prompts for prompt in own], dataset.name, split, seed)
        data = corpus.data if len(taken) == len(images) else fingerprint(dataset, [image.id for image in taken])
        plans = []
        for number, own in enumerate(prompts):
            study_id = f"{dataset.name}-{split}-{number:02d}"
            plans.append(
                StudyPlan(
                    id=study_id,
                    dataset=dataset.name,
                    edition=dataset.edition,
                    split=split,
                    concepts=(),
                    training=FromScratch(
                        model=model,
                        data=data,
                        images=taken,
                        corpus=corpus,
                        config=self.preset.training,
                        seed=noise.seed_of("study", study_id, seed),
                    ),
                    cases=tuple(caption_case(prompt.id, prompt.text) for prompt in own[:limit]),
                    sampling=self.preset.sampling,
                )
            )
        return plans

    def notices(self, dataset: CaptionedDataset, split: Split) -> tuple[str, ...]:
        return (
            "nothing is tuned by retraining, so methods with hyper-parameters left open run with their defaults; choose others "
            "with --param on runs of --split dev",
        )

    def _require(self, dataset: CaptionedDataset, n_images: int) -> None:
        """Raises UsageError or DatasetError unless the preset's counts go together, and with the data."""
        preset = self.preset
        n_train = preset.n_images or n_images
        if n_train > n_images:
            raise DatasetError(f"{dataset.name} has {n_images} pictures, a study needs {n_train}; lower {self.name}.n_images")
        if list(preset.curve) != sorted(set(preset.curve)) or preset.curve[0] != 0:
            raise UsageError(f"{self.name}.curve = {list(preset.curve)}: give rising numbers of images, from 0 on")
        missing = [k for k in preset.k if k not in preset.curve]
        if missing:
            raise UsageError(
                f"{self.name}.curve = {list(preset.curve)} lacks K = {missing[0]}, where methods are compared with it"
            )
        largest = max(*preset.curve, *preset.k)
        if largest >= n_train:
            raise UsageError(
                f"K = {largest}, but a study has {n_train} training images and some must be left to train on; "
                f"lower {self.name}.k and {self.name}.curve, or take more images"
            )

    def _prompts(self, dataset: CaptionedDataset, split: Split, seed: int) -> list[list[PromptRecord]]:
        """For each study some of the split's prompts; none is in two of them."""
        preset, prompts = self.preset, [prompt for prompt in dataset.prompts if prompt.split == split]
        wanted = preset.n_studies * preset.queries
        if len(prompts) < wanted:
            raise DatasetError(
                f"{dataset.name} has {len(prompts)} prompts in its {split} split, {preset.n_studies} studies need {wanted}; "
                f"lower {self.name}.queries"
            )
        order = noise.draws("leave-k-out", "prompts", dataset.name, split, seed).permutation(len(prompts))[:wanted]
        return [[prompts[i] for i in order[start : start + preset.queries]] for start in range(0, wanted, preset.queries)]

    def _images(
        self, images: tuple[TrainImage, ...], prompts: Sequence[str], dataset: str, split: Split, seed: int
    ) -> tuple[TrainImage, ...]:
        """Those of the corpus that models are trained on, in its order."""
        wanted = self.preset.n_images
        if wanted is None or wanted == len(images):
            return images
        order = noise.draws("leave-k-out", "images", dataset, split, seed).permutation(len(images))
        common = overlap(prompts, [image.prompts for image in images])
        near = int(NEAR * wanted) // len(prompts)
        chosen: dict[int, None] = {}
        for of_prompt in common:
            best = order[np.argsort(-of_prompt[order], kind="stable")]
            chosen |= dict.fromkeys(best[:near].tolist())
        chosen |= dict.fromkeys(order.tolist())  # in this order, after those that are in already
        return tuple(images[row] for row in sorted(list(chosen)[:wanted]))

    # -------------------------------------------------------------------------------------- truth

    def retrainings(self, plan: StudyPlan) -> tuple[Retrainings, ...]:
        """The random curve: every query under every model of it."""
        return (self._request(plan, ()),)

    def further_retrainings(self, plan: StudyPlan, tables: Sequence[ScoreTable]) -> tuple[Retrainings, ...]:
        """The curve, and each query without the K images that each method ranks highest."""
        seeds = _seeds(self.preset.n_seeds)
        looks = [
            Look(Part(left_out, seed), (query,))
            for table in tables
            if table.role == "query"
            for query, scores in enumerate(table.scores.values)
            for _, left_out in self._removals(scores)
            for seed in seeds
        ]
        return (self._request(plan, looks),)

    def further_at_most(self, plan: StudyPlan, n_tables: int) -> int:
        """One or, where a tie runs through place K, two removals for every query, table, K and seed."""
        return 2 * n_tables * len(plan.roles("query")) * len(self.preset.k) * self.preset.n_seeds

    def drawn(self, plan: StudyPlan, masks: np.ndarray) -> np.ndarray:
        """The subsets of the random curve."""
        curve = {look.part.left_out for look in self._curve(plan)}
        return np.array([tuple(np.flatnonzero(~mask).tolist()) in curve for mask in masks])

    def _request(self, plan: StudyPlan, looks: Sequence[Look]) -> Retrainings:
        from attribench.encoders import resolve  # loads torch, and `attribench list` encodes nothing

        preset = self.preset
        return Retrainings(
            role="query",
            n_train=len(plan.training.images),
            looks=(*self._curve(plan), *looks),
            measure=LossMeasure(timesteps=preset.timesteps, draws=preset.noise_draws),
            encoder=resolve(preset.encoder, plan.edition),
        )

    def _curve(self, plan: StudyPlan) -> list[Look]:
        """All queries under the models without random images; of all studies the same models."""
        n_train, queries = len(plan.training.images), tuple(range(len(plan.roles("query"))))
        looks = []
        for k in self.preset.curve:
            for draw, seed in enumerate(_seeds(self.preset.draws)):
                rows = noise.draws("leave-k-out", "removal", n_train, k, draw).permutation(n_train)[:k]
                looks.append(Look(Part(tuple(sorted(rows.tolist())), seed), queries))
        return looks

    def _removals(self, scores: np.ndarray) -> list[tuple[int, tuple[int, ...]]]:
        """(K, rows to remove) for one query's scores; none where they tell no image from another."""
        if not is_determined(scores):
            return []
        return [(k, left_out) for k in self.preset.k for left_out in removals(scores, k)]

    def metrics(self, variant: str) -> list[Metric]:
        spreads = ("seed_spread", "query_spread") if self.preset.n_seeds > 1 else ()
        names = ("delta_loss", "equivalent_random", "beyond_curve", "delta_generation", "clip_similarity", *spreads)
        return [metric(name, k=k) for name in names for k in self.preset.k]

    # ------------------------------------------------------------------------------------ pictures

    def shown_again(self, scores: np.ndarray) -> Mapping[str, Part]:
        """The models whose regeneration of a query is shown: for every K the first removal by the first seed."""
        (seed,) = _seeds(1)
        shown: dict[str, Part] = {}
        for k, left_out in self._removals(scores):
            shown.setdefault(f"without {k}", Part(left_out, seed))
        return shown

    def shown_at_random(self, plan: StudyPlan) -> Mapping[str, Part]:
        """The first draw for every K."""
        first: dict[str, Part] = {}
        for look in self._curve(plan):
            if len(look.part.left_out) in self.preset.k:
                first.setdefault(f"without {len(look.part.left_out)}", look.part)
        return first

    def draw(self, folder: Path, results: Results) -> None:
        """Figure 3 of the paper."""
        from attribench.report.figures.removal_plot import removal_plot  # matplotlib is slow to import

        removal_plot(folder / CURVE, results.rows, [truth.retrained for truth in results.truths.values()])

    def draw_again(self, folder: Path, shown: Sequence[Regenerated]) -> None:
        """Figure 4 of the paper: a query of each study."""
        from attribench.report.figures.regenerated import regenerated_plot  # as above

        regenerated_plot(folder / AGAIN, shown)


def _seeds(count: int) -> list[int]:
    """Of retrained models; the same for all studies, so that they share their models."""
    return [noise.seed_of("leave-k-out", "retraining", number) for number in range(count)]


def _train_image(image: CaptionedImage) -> TrainImage:
    first, *further = image.captions
    return TrainImage(id=image.id, prompt=first, caption=first, concept="", further_prompts=tuple(further))
