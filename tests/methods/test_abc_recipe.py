"""The recipe of AbC's heads, on models whose pictures are their exemplars with red and blue exchanged."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from attribench.methods.abc.calibrator import Calibrator
from attribench.methods.abc.heads import Heads, load_heads
from attribench.methods.abc.training import Group
from PIL import Image

from attribench import encoders
from attribench.editions import open_dataset

RECIPE = Path(__file__).parents[2] / "recipes" / "abc" / "train.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("abc_recipe", RECIPE)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gendata(tmp_path_factory) -> Path:
    """The public layout: 24 train, 8 val and 2 test models of two exemplars and four pictures, and 30 distractors."""
    root, random = tmp_path_factory.mktemp("gendata"), np.random.default_rng(0)

    def write(path: str, pixels: np.ndarray) -> str:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / path)
        return f"dataset/{path}"

    def near(colours: np.ndarray) -> np.ndarray:
        return (colours + random.normal(0, 12, (4, 4, 3))).repeat(4, 0).repeat(4, 1)

    for split, count in (("train", 24), ("val", 8), ("test", 2)):
        entries = []
        for number in range(count):
            colours, name = random.integers(0, 256, (4, 4, 3)), f"{split}{number}"
            exemplars = [write(f"exemplar/imagenet/{name}/{i}.png", near(colours)) for i in range(2)]
            made = [write(f"synth/imagenet/gpt/{name}/samples/{i:05d}.png", near(colours[..., ::-1])) for i in range(4)]
            entries.append({"exemplar": exemplars, "synth": {"gpt": made}, "class_id": name, "category": "toy"})
        (root / "json").mkdir(exist_ok=True)
        (root / "json" / f"{split}_imagenet.json").write_text(json.dumps(entries))
    for number in range(30):
        write(f"laion_subset/{number:08d}.png", near(random.integers(0, 256, (4, 4, 3))))
    return root


def test_the_recipe_learns_chooses_on_val_and_writes_what_loads(recipe, gendata, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "TEMPERATURES", (0.1, 0.5))
    monkeypatch.setattr(recipe, "ORTHOGONALITIES", (0.1,))
    monkeypatch.setattr(recipe, "EPOCHS", 8)
    monkeypatch.setattr(recipe, "SEEDS", (0, 1))
    monkeypatch.setattr(recipe, "RATE", 1e-2)
    dataset = open_dataset("gendata", "paper", gendata)
    loads, load = [], dataset.load
    dataset.load = lambda image_id: loads.append(image_id) or load(image_id)
    record = recipe.learn(encoders.load_encoder("pixels/4"), dataset, tmp_path)
    assert not [path for path in loads if "/test" in path]
    assert record["models"] == {"train": 24, "val": 8} and record["pictures"] == {"train": 96, "val": 32}
    assert record["val mAP"]["gain"] > 0.1 and record["val mAP"]["gain interval"][0] > 0
    best = max(record["best val mAP of (temperature, orthogonality)"].items(), key=lambda item: item[1])[0]
    assert best == f"{record['schedule']['temperature']}, {record['schedule']['orthogonality']}"
    curve = record["learning curve (val mAP, mean of seeds)"]
    assert record["schedule"]["epochs"] == int(np.argmax(curve)) + 1 == len(record["learning curve (loss, train)"])
    heads = load_heads(tmp_path / "pixels-4.safetensors", 48, "pixels/4")
    assert heads.shape == "linear"
    assert Calibrator.load(tmp_path / "pixels-4.calibrator.safetensors").inv_tau > 0
    json.dumps(record)


def test_average_precision_is_that_of_a_sorted_list(recipe):
    torch.manual_seed(0)
    groups = [Group(torch.randn(n, 6), torch.randn(5, 6)) for n in (1, 3)]
    judged, heads = recipe.Judged(groups, torch.randn(11, 6)), Heads("linear", 6).requires_grad_(False)
    found, models = judged.average_precisions(heads)
    expected = []
    for group in groups:
        scores = heads.similarity(group.synthesized, torch.cat([group.exemplars, judged.distractors])).numpy()
        for row in scores:
            order, hits, total = np.argsort(-row), 0, 0.0
            for place, column in enumerate(order, 1):
                if column < len(group.exemplars):
                    hits += 1
                    total += hits / place
            expected.append(total / len(group.exemplars))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert models.tolist() == [0] * 5 + [1] * 5
    scores, relevant = judged.scores(heads)
    assert scores.shape == relevant.shape == (10, 14) and relevant.sum(dim=1).tolist() == [1] * 5 + [3] * 5
