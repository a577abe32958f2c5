"""Captions as prompts of queries, and how much of a prompt the captions of a picture say. No labels, no model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from attribench.data import GenerationCase

VARIANT = "captions"
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def caption_case(case_id: str, caption: str) -> GenerationCase:
    """A query whose prompt is a caption, with no modifier in it."""
    return GenerationCase(
        id=case_id, prompt=caption, plain_prompt=caption, seed=0, concepts=(), modifiers=(), variant=VARIANT, role="query"
    )


def words(text: str) -> frozenset[str]:
    """Its distinct words, without case or punctuation."""
    return frozenset(_WORD.findall(text.lower()))


def overlap(prompts: Sequence[str], captions: Sequence[Sequence[str]]) -> np.ndarray:
    """[n_prompt, n_image]: Σ s_w log(n / n_w) over the prompt's words w, s_w the share of the picture's captions that have the
    word, and n_w the number of pictures, of n, that have it in some caption. Rare words count more.

    What a picture shows is in most of its captions, a turn of phrase in one.
    """
    held = [Counter(word for caption in of_image for word in words(caption)) for of_image in captions]
    counts = Counter(word for of_image in held for word in of_image)
    weight = {word: np.log(len(captions) / count) for word, count in counts.items()}
    asked = [words(prompt) for prompt in prompts]
    found = np.zeros((len(prompts), len(captions)))
    for image, (of_image, own) in enumerate(zip(held, captions, strict=True)):
        for prompt, wanted in enumerate(asked):
            found[prompt, image] = sum(weight[word] * of_image[word] / len(own) for word in wanted & of_image.keys())
    return found
