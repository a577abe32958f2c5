"""A small world of customized models that tests of the protocols for exemplars share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

WORDS = {"cat": "tan", "dog": "sienna", "bear": "teal", "chair": "gold"}
SHOWN = ("apple", "boat", "candle", "drum", "engine", "flute", "grape", "hammer", "island", "jacket", "kettle", "ladder")
"""What the twelve distractors are said to show."""


def drawn(path: Path, colour: str, corners: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    picture = Image.new("RGB", (40, 40), tuple(random.integers(180, 255, 3).tolist()))
    ImageDraw.Draw(picture).regular_polygon((20, 20, 14), corners, rotation=int(random.integers(90)), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.fixture(scope="session")
def exemplar_world(tmp_path_factory) -> Path:
    """A data set of exemplars, not to be changed: four models of one object each and one of a style with twelve; what they made
    is their exemplar, jittered."""
    root, entries, prompts = tmp_path_factory.mktemp("gendata"), [], {}
    for number, (word, colour) in enumerate({**WORDS, "art": "navy"}.items()):
        part, count = ("artchive", 12) if word == "art" else ("imagenet", 1)
        exemplars = [f"exemplar/{part}/images/{word}/{i}.png" for i in range(count)]
        synth = {f: [f"synth/{part}/{f}/{word}/samples/{i:05d}.png" for i in range(4)] for f in ("gpt", "media")}
        for i, path in enumerate([*exemplars, *sum(synth.values(), [])]):
            drawn(root / path, colour, 3 + number, 100 * number + i)
        prompts |= {path: f"a picture of <new1> {word} {f}" for f, paths in synth.items() for path in paths}
        dataset = {f: [f"dataset/{path}" for path in paths] for f, paths in synth.items()}
        entries.append({"exemplar": [f"dataset/{path}" for path in exemplars], "synth": dataset, "class_id": word,
                        "category": None if word == "art" else word})  # fmt: skip
    (root / "json").mkdir()
    (root / "json" / "test_observed_imagenet.json").write_text(json.dumps(entries[:-1]))
    (root / "json" / "test_artchive.json").write_text(json.dumps(entries[-1:]))
    (root / "path_to_prompts.json").write_text(json.dumps(prompts))
    captions = ["file,caption"]
    for i, shown in enumerate(SHOWN):
        drawn(root / f"laion_subset/{i:04d}.png", "grey", 8, 5000 + i)
        captions.append(f"laion_subset/{i:04d}.png,a red {shown}")
    (root / "images.csv").write_text("\n".join(captions))
    return root
