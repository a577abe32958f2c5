"""How much of a prompt the captions of a picture say: words in common, rare ones counting more. No labels, no model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> frozenset[str]:
    """Its distinct words, without case or punctuation."""
    return frozenset(_WORD.findall(text.lower()))


def overlap(prompts: Sequence[str], captions: Sequence[Sequence[str]]) -> np.ndarray:
    """[n_prompt, n_image]: Σ log(n / n_w) over the prompt's words w that some caption of the picture has, of n pictures
    n_w having the word."""
    held = [frozenset().union(*map(words, of_image)) for of_image in captions]
    counts = Counter(word for of_image in held for word in of_image)
    weight = {word: np.log(len(captions) / count) for word, count in counts.items()}
    asked = [words(prompt) for prompt in prompts]
    return np.array([[sum(weight[word] for word in own & of_image) for of_image in held] for own in asked])
