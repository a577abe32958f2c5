"""MONTRAGE: training is monitored into an attribution table; a small model extends it to unseen generations.

    M[i, j] += || V_j after the step − V_j before it ||₁     for each i of the step's batch              (Eq. 6)
    τ(x_j)   = M[:, j] / Σ_i M[i, j]                                                                     (Eq. 7)
    P(x, x_i) = (1 + cos(S(z(x)), S(z(x_i)))) / 2,  S trained on τ with the adaptive DML loss            (Eq. 8, 9)

Brokman, Hofman et al., "MONTRAGE: Monitoring training for attribution of generative diffusion models",
ECCV 2024. A re-implementation from the paper and its supplement: the authors' code was not available. What
they leave open is a field whose docstring says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from attribench import encoders
from attribench.diffusion.monitor import ValueMonitor
from attribench.encoders.features import EncoderFeatures
from attribench.interface import Access, AttributionMethod, Edition, Queries, Scores, State, Study

from ..features import best_version
from .attribution_model import AttributionModel, Head
from .training import Pairs, Schedule, train


@dataclass(frozen=True, kw_only=True)
class Montrage(AttributionMethod):
    """Training monitored through cross-attention values; a siamese model extends the table to unseen pictures.

    Brokman et al., ECCV 2024. Needs an observer during training. Costs one matrix product a training step,
    then one pass of the encoder over the pictures and seconds of training.
    """

    name: ClassVar[str] = "montrage"
    needs: ClassVar[Access] = Access.TRAINING
    stochastic: ClassVar[bool] = True
    version: ClassVar[int] = 2
    embedders: ClassVar[Mapping[Edition, str]] = encoders.CLIP
    """What encoder="auto" means."""

    # The table: as in ValueMonitor, where each choice is explained. The defaults are the paper's where it says.
    layers: Literal["all", "down", "mid", "up"] | tuple[str, ...] = "all"
    norm: Literal["l1", "l2"] = "l1"
    reduction: Literal["sum", "layer-mean"] = "sum"
    tokens: Literal["all", "no-bos", "words", "modifier"] = "all"
    first_delta: Literal["count", "skip"] = "count"
    correction: Literal["none", "momentum"] = "none"

    # The attribution model.
    encoder: str = "auto"
    """The frozen embedder f. auto: clip-tiny for mini, ViT-B-32/openai for paper (which CLIP is not stated)."""
    head: Head = "linear"
    """What is trained on the standardized features: "scaler" (a scale and a shift of each, as section 4.2 says) or "linear" (a
    matrix, from the identity). Supplement B.3 calls the embedder "a pre-trained CLIP model fine-tuned"."""
    target_scale: Literal["none", "max", "minmax"] = "minmax"
    """How GT meets P. Columns of τ sum to 1, so that GT is about 1 / n_train, whereas P lies in [0, 1] and is ½ for two pictures
    that have nothing in common: with "none" the L1 terms of Eq. 9 push every pair apart, and margins vanish. "max" divides each
    column by its maximum; for a table whose columns differ by a seventh, as ours do, it asks pictures of different concepts for a
    cosine of .7. "minmax" is (τ − min) / (max − min), ½ where a column has no spread. Not stated."""
    loss: Literal["adaptive", "triplet"] = "adaptive"
    """Eq. 9, or the baseline of supplement B.2 (squared L2 of the unit embeddings, margin 1)."""
    steps: int = 600
    """Of the optimizer. The paper's 10 epochs of about 2,300 pairs by batches of 128 are 180; where there are a tenth of the
    pairs, as many epochs would be 18, which move nothing."""
    batch_size: int = 128
    learning_rate: float = 1e-3
    """In units of the features' spread."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Not stated."""
    weight_decay: float = 0.01
    """Towards the untrained head. Not stated."""
    plateau_factor: float = 0.1
    """"Reduced automatically (on a plateau)"; torch's default factor. Not stated."""
    plateau_patience: int = 2
    """Tenths of the training without improvement: the paper's has ten epochs. Not stated."""
    validation_share: float = 0.0
    """Share of the monitored prompts that judge the plateau instead of being learned from, rounded down; with
    none, the training loss judges it. Not stated."""
    negatives_per_positive: int = 1
    """Each round takes every (generation, training image of its concepts) pair, with this many training images
    of other concepts drawn anew. Not stated."""
    attribution: Literal["auto", "table", "model"] = "auto"
    """auto: monitored generations from the table, unseen ones by the model. table: all from the table (every
    prompt that is generated is monitored). model: all by the model."""

    def resolve(self, edition: Edition) -> Self:
        return dataclasses.replace(self, encoder=encoders.resolve(self.encoder, edition, self.embedders))

    def skip(self, edition: Edition) -> str | None:
        return None if self.attribution == "table" else encoders.available(self.resolve(edition).encoder)

    def features(self) -> tuple[EncoderFeatures, ...]:
        return () if self.attribution == "table" else (self._pictures,)

    def observers(self, prompts: Sequence[str]) -> tuple[ValueMonitor, ...]:
        return (self._monitor(prompts),)

    def assets(self) -> str:
        return "" if self.attribution == "table" else encoders.fingerprint(self.encoder)

    def untrained(self) -> Self | None:
        return None if self.attribution == "table" else dataclasses.replace(self, steps=0)

    def fit(self, study: Study, state: State) -> None:
        monitor = self._monitor(study.prompts)
        state["prompts"] = np.array(monitor.prompts)
        observed = study.observation(monitor)["table"]
        table = np.zeros((len(study.train), observed.shape[1]), dtype=observed.dtype)  # no V moves for a distractor
        table[list(study.trained_rows)] = observed
        state["table"] = table  # M [n_train, n_prompts]
        if self.attribution == "table":
            return
        generations = study.generations
        by_id = np.argsort(study.train.ids)  # triplets are drawn by row: let them not depend on the order of the images
        pairs = Pairs(
            generations=torch.from_numpy(np.array(study.features(self._pictures, generations)["features"][0])),
            train=torch.from_numpy(np.array(study.features(self._pictures)["features"][0])[by_id]),
            truth=self._targets(_table_attributions(state, generations.prompts)[:, by_id]),
            positive=_shares_modifier(generations.modifiers, [study.train.prompts[row] for row in by_id]),
            prompts=generations.prompts,
        )
        model = AttributionModel(pairs.train.shape[1], self.head)
        model.standardize(torch.cat([pairs.train, pairs.generations]))
        names = {field.name for field in dataclasses.fields(Schedule)}
        schedule = Schedule(**{name: getattr(self, name) for name in names})
        state["validation_losses"] = np.array(train(model, pairs, schedule, study.seed))
        for name, value in model.state_dict().items():
            state[f"model.{name}"] = value

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        from_table = np.array([self.attribution == "table" or (self.attribution == "auto" and m) for m in queries.monitored])
        values = np.empty((len(queries), len(study.train)))
        rows = np.flatnonzero(from_table)
        if len(rows):
            values[rows] = _table_attributions(state, [queries.prompts[row] for row in rows])
        rows = np.flatnonzero(~from_table)
        if len(rows):
            features = torch.from_numpy(study.features(self._pictures, queries)["features"][0][rows])
            values[rows] = self._predict(state, features, study.features(self._pictures)["features"])
        return Scores.of(queries, study.train, values)

    @torch.no_grad()
    def _predict(self, state: State, features: Tensor, train: np.ndarray) -> np.ndarray:
        """P [n_query, n_train] for features [n_query, d] of generations and [versions, n_train, d] of training images."""
        model = AttributionModel(features.shape[1], self.head)
        model.load_state_dict({name: torch.from_numpy(np.array(state[f"model.{name}"])) for name in model.state_dict()})
        return best_version(model.attributions, features, train)

    def _targets(self, attributions: np.ndarray) -> Tensor:
        """GT [G, n_train] on the scale of P from τ [G, n_train]."""
        most = attributions.max(axis=1, keepdims=True)
        if self.target_scale == "max":
            attributions = attributions / most
        elif self.target_scale == "minmax":
            least = attributions.min(axis=1, keepdims=True)
            spread = most > least
            attributions = np.where(spread, (attributions - least) / np.where(spread, most - least, 1.0), 0.5)
        return torch.from_numpy(attributions).float()

    def _monitor(self, prompts: Sequence[str]) -> ValueMonitor:
        own = {field.name for field in dataclasses.fields(ValueMonitor)} - {"prompts"}
        return ValueMonitor(prompts=tuple(prompts), **{name: getattr(self, name) for name in own})

    @property
    def _pictures(self) -> EncoderFeatures:
        return EncoderFeatures(encoder=self.encoder)


def tau(table: np.ndarray) -> np.ndarray:
    """Eq. 7: the columns of M [n_train, J] divided by their sums.

    A column that never moved holds no evidence and becomes uniform.
    """
    sums = table.sum(axis=0, keepdims=True)
    return np.where(sums > 0, table / np.where(sums > 0, sums, 1), 1 / len(table))


def _table_attributions(state: State, prompts: Sequence[str]) -> np.ndarray:
    """τ of generations by their prompts, [n, n_train]: equal prompts have equal attributions."""
    column = {prompt: j for j, prompt in enumerate(state["prompts"].tolist())}
    return tau(np.asarray(state["table"])[:, [column[prompt] for prompt in prompts]]).T


def _shares_modifier(modifiers: Sequence[Sequence[str]], train_prompts: Sequence[str]) -> Tensor:
    """bool [n_generations, n_train]: the training prompt holds a modifier of the generation's prompt."""
    shares = [[any(token in prompt for token in tokens) for prompt in train_prompts] for tokens in modifiers]
    return torch.tensor(shares, dtype=torch.bool)
