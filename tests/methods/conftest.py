"""A study in memory, and a small random CLIP in the folder format that open_clip reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from attribench import encoders
from attribench.interface import GenerationCase, Queries, State, Study, TrainImage, TrainingImages


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


@pytest.fixture(scope="session")
def small_clip_folder(tmp_path_factory, small_model_folder) -> Path:
    """A random CLIP for 32×32 pictures with the small model's tokenizer, as recipes/tiny/clip.py writes it."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("small-clip")
    tokenizer = CLIPTokenizer.from_pretrained(small_model_folder / "tokenizer")
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": len(tokenizer), "width": 32, "heads": 2, "layers": 2}
    torch.manual_seed(0)
    model = open_clip.CLIP(16, vision, text)
    with torch.no_grad():  # every picture alike otherwise: a fresh projection is too small to tell them apart
        model.visual.proj.mul_(10)
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {**text, "hf_tokenizer_name": "local"}}
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def small_clip(small_clip_folder, monkeypatch) -> encoders.Encoder:
    """That CLIP, standing where clip-tiny stands."""
    encoder = encoders.local_encoder(small_clip_folder, encoders.TINY)
    monkeypatch.setattr(encoders, "load_encoder", lambda name, device: encoder)
    monkeypatch.setattr(encoders, "available", lambda name: None)
    return encoder
