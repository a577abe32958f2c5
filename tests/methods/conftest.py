"""A study in memory, and a small random CLIP in place of clip-tiny."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from attribench import encoders
from attribench.data import GenerationCase, Queries, TrainImage, TrainingImages
from attribench.files.state import State
from attribench.interface import Study


def noise_picture(seed: int, side: int = 32) -> Image.Image:
    """Coarse coloured noise, unlike that of any other seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((side, side))


class MemoryStudy(Study):
    """What a method sees, from plain dictionaries. Features are read when they are first asked for, by anybody.

    `models` are an ensemble of one seed, the last one the trained model; `model` alone is one of one. `trajectories`
    are by query id.
    """

    def __init__(
        self, images, pictures, *, flips=False, fit=None, table=None, model=None, models=None, trajectories=None, seed=4
    ) -> None:
        self.id, self.edition, self.seed, self.device, self.flips = "study", "mini", seed, "cpu", flips
        self.train = TrainingImages(images, pictures.__getitem__)
        self._fit, self._table = fit, table
        self._models = [model] if models is None else models
        self._trajectories = trajectories
        self._folder = TemporaryDirectory()
        self._read: dict[tuple, State] = {}
        self.observers = []

    prompts: tuple[str, ...] = ()

    @property
    def model(self):
        return self._models[-1]

    @property
    def models(self):
        return self._models

    def features(self, features, queries=None) -> State:
        key = (features, None if queries is None else queries.ids)
        if key not in self._read:
            self._read[key] = state = State(Path(self._folder.name) / str(len(self._read)))
            if queries is None:
                features.of_training(self, state)
            else:
                features.of_queries(self, state, queries)
        return self._read[key]

    def trajectory(self, query_id):
        return self._trajectories[query_id]

    @property
    def generations(self) -> Queries:
        return self._fit

    def observation(self, observer) -> Mapping[str, np.ndarray]:
        self.observers.append(observer)
        return {"table": self._table}


def train_image(image_id: str, prompt: str = "photo of a <new1> cat", caption: str = "a cat") -> TrainImage:
    return TrainImage(id=image_id, prompt=prompt, caption=caption, concept="")


def case(case_id: str, prompt="a <new1> cat", plain="a cat", modifiers=("<new1>",), role="query", seed=0) -> GenerationCase:
    return GenerationCase(
        id=case_id, prompt=prompt, plain_prompt=plain, seed=seed, concepts=(), modifiers=modifiers,
        variant="un-mixed", role=role,
    )  # fmt: skip


@pytest.fixture
def toy() -> SimpleNamespace:
    """What test modules build their studies from."""
    return SimpleNamespace(MemoryStudy=MemoryStudy, train_image=train_image, case=case, noise_picture=noise_picture)


@pytest.fixture
def duplicates() -> tuple[MemoryStudy, Queries]:
    """Eight training images; query i is training image i again, except the last, a picture of its own."""
    pictures = {f"train/{i}.png": noise_picture(i) for i in range(8)}
    captions = ["a red cat", "a blue dog", "a teddy bear", "a chair", "a photo of art", "an image", "a style", "cat and dog"]
    images = [train_image(name, caption=caption) for name, caption in zip(pictures, captions, strict=True)]
    study = MemoryStudy(images, pictures)
    cases = [case(f"query-{i}", plain=captions[i]) for i in range(8)]
    queries = Queries(cases, lambda name: noise_picture(99 if name == "query-7" else int(name[-1])))
    return study, queries


@pytest.fixture
def small_clip(small_clip_folder, tmp_path_factory, monkeypatch) -> Iterator[encoders.Encoder]:
    """That CLIP, where clip-tiny lies."""
    assets = tmp_path_factory.mktemp("assets")
    shutil.copytree(small_clip_folder, assets / "clip-tiny")
    (assets / "clip-tiny" / "recipe.json").write_text("{}")
    monkeypatch.setattr(encoders, "ASSETS", assets)
    encoders.load_encoder.cache_clear()
    yield encoders.load_encoder("clip-tiny")
    encoders.load_encoder.cache_clear()
