"""Linear datamodelling score: does a method foretell what leaving images out does to a query's loss?

Park et al. 2023 (TRAK), Zheng et al. 2024 (D-TRAK), on the studies of `concept_studies`. M random subsets hold a share
α of the training images each; a model is retrained on each, with R seeds; the loss of every query is taken under each,
at evenly spaced timesteps and with the same noise for all. The metric is in `attribench.metrics.lds`.

The subsets are drawn by the study's seed, all of one size and no two alike, and are the same for all queries, methods
and runs. Those of the dev split come from a draw of their own and are none of the test split's: hyper-parameters are
chosen on dev subsets and the pictures of role "fit", the table shows test subsets and held-out queries. (D-TRAK's
published splits of subsets overlap.) Models for the dev split are trained only if a method has something to tune.

The first of the R seeds is that of the study's own training: `lds_same_seed` and `lds_cross_seed` tell it from the
others. Dev subsets are trained with the others alone, or with it if it is the only one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
from pydantic import Field, PositiveInt

from attribench.diffusion import noise
from attribench.errors import UsageError
from attribench.measurement import Metric
from attribench.protocols.concept_studies import ConceptStudies, ConceptStudiesPreset
from attribench.protocols.protocol import metric
from attribench.study.plan import StudyPlan
from attribench.study.retrainings import LossMeasure, Retrainings


class LdsPreset(ConceptStudiesPreset):
    alpha: float = Field(0.5, gt=0, lt=1)
    """Share of the training images that each subset holds."""
    n_subsets: int = Field(64, ge=4)
    """M, of the test split. Fewer than four are too few for a correlation of ranks."""
    n_dev_subsets: int = Field(32, ge=4)
    n_seeds: PositiveInt = 3
    """R. With one there is no ceiling."""
    n_dev_seeds: PositiveInt = 1
    timesteps: PositiveInt = 50
    """At which the loss is taken, each in the middle of as many equal parts of the schedule."""
    noise_draws: PositiveInt = 1
    """Noises per timestep."""


class Lds(ConceptStudies):
    """Linear datamodelling score: do scores add up to what retraining on subsets does to the loss? (TRAK, D-TRAK)"""

    name = "lds"
    preset_type = LdsPreset
    preset: LdsPreset

    def retrainings(self, plan: StudyPlan) -> tuple[Retrainings, ...]:
        preset = self.preset
        measure = LossMeasure(timesteps=preset.timesteps, draws=preset.noise_draws)
        test, dev = self._subsets(plan)
        own = plan.training.seed
        others = [noise.seed_of("retraining", own, number) for number in range(1, max(preset.n_seeds, preset.n_dev_seeds + 1))]
        dev_seeds = tuple(others[: preset.n_dev_seeds]) if preset.n_seeds > 1 else (own,)
        return (
            Retrainings.of_subsets(plan, "query", test, (own, *others[: preset.n_seeds - 1]), measure),
            Retrainings.of_subsets(plan, "fit", dev, dev_seeds, measure),
        )

    def _subsets(self, plan: StudyPlan) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
        """Rows of the subsets of the test split, and of the dev split."""
        preset, n_train = self.preset, len(plan.training.images)
        size = min(max(round(preset.alpha * n_train), 1), n_train - 1)
        wanted = preset.n_subsets + preset.n_dev_subsets
        if wanted > comb(n_train, size):
            raise UsageError(
                f"{plan.id} has {n_train} training images, and only {comb(n_train, size)} subsets of {size}; "
                f"{wanted} are wanted: lower lds.n_subsets and lds.n_dev_subsets, or take more images"
            )
        test = _draw(preset.n_subsets, n_train, size, noise.draws("subsets", plan.training.seed, "test"), ())
        return test, _draw(preset.n_dev_subsets, n_train, size, noise.draws("subsets", plan.training.seed, "dev"), test)

    def metrics(self, variant: str) -> list[Metric]:
        several = ("lds_over_ceiling", "lds_cross_seed", "lds_same_seed") if self.preset.n_seeds > 1 else ()
        return [metric(name) for name in ("lds", *several)]


def _draw(
    count: int, n_train: int, size: int, random: np.random.Generator, taken: Sequence[tuple[int, ...]]
) -> tuple[tuple[int, ...], ...]:
    """So many subsets of `size` rows, all different and none of those that are `taken`."""
    taken = set(taken)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        rows = tuple(sorted(random.permutation(n_train)[:size].tolist()))
        if rows not in taken:
            found[rows] = None
    return tuple(found)
