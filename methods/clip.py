"""CLIP as an attribution method: nearest training images by picture or by text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from attribench import encoders
from attribench.interface import Access, AttributionMethod, Edition, Queries, Scores, State, Study

from .features import NearestEncoded, best_version, cosine


@dataclass(frozen=True, kw_only=True)
class ClipImage(NearestEncoded):
    """Cosine of CLIP image features.

        score(x_gen, x_i) = cos(f(x_gen), f(x_i)),   f: the image encoder, before normalisation

    Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021; as the
    baseline of Wang et al. (ICCV 2023): OpenAI's ViT-B/32 with its own preprocessing (mini: clip-tiny). Needs the
    pictures alone; one pass of the encoder over each.
    """

    name: ClassVar[str] = "clip-image"
    by_edition: ClassVar[Mapping[Edition, str]] = encoders.CLIP


@dataclass(frozen=True, kw_only=True)
class ClipText(AttributionMethod):
    """Cosine of CLIP text features: the query's prompt against the training captions.

        score(p_gen, c_i) = cos(g(p_gen), g(c_i)),   g: the text encoder

    The prompt is the plain one, with class words for modifier tokens, since CLIP knows no modifier. MONTRAGE's
    supplement B.3 compares with such a text baseline. Needs prompts and captions alone; flips change nothing.
    """

    name: ClassVar[str] = "clip-text"
    needs: ClassVar[Access] = Access.FEATURES

    encoder: str = "auto"
    """"clip-tiny", or open_clip's MODEL/PRETRAINED. auto: clip-tiny for mini, ViT-B-32/openai for paper."""

    def resolve(self, edition: Edition) -> Self:
        return dataclasses.replace(self, encoder=encoders.resolve(self.encoder, edition))

    def skip(self, edition: Edition) -> str | None:
        return encoders.available(self.resolve(edition).encoder)

    def assets(self) -> str:
        return encoders.fingerprint(self.encoder)

    def fit(self, study: Study, state: State) -> None:
        state["captions"] = self._encoder(study).encode_texts(study.train.captions)[None]

    def score(self, study: Study, state: State, queries: Queries) -> Scores:
        features = self._encoder(study).encode_texts(queries.plain_prompts)
        return Scores.of(queries, study.train, best_version(cosine, features, state["captions"]))

    def _encoder(self, study: Study) -> encoders.Encoder:
        return encoders.load_encoder(self.resolve(study.edition).encoder, study.device)
