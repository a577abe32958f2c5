"""Base model: captions of the pool as prompts, pictures by the model as it was, and a whole run on a small world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attribench.diffusion.model import DiffusionModel
from attribench.editions import open_dataset
from attribench.engine.listener import Listener
from attribench.errors import DatasetError
from attribench.protocols.base_model import BaseModel
from attribench.run.config import RunConfig
from attribench.run.execute import Result, execute
from attribench.run.prepare import prepare
from attribench.study.steps import initial_noise

SMALL = {"captions": 3, "distractors": 8, "method_seeds": "[4]", "customization.epochs": 2, "sampling.steps": 2, "ks": "[1, 5]",
         "object_templates": '["photo of {concept}"]', "style_templates": '["photo of {concept}"]'}  # fmt: skip


def plans(world: Path, **overrides):
    protocol = BaseModel.with_preset("mini", {"captions": 3, "distractors": 8} | overrides)
    dataset = open_dataset("gendata", "paper", world)
    return protocol, protocol.plans(dataset, model="fingerprint", split="test", seed=0, limit=None)


def test_queries_are_captions_of_the_pool_and_the_pictures_with_them_are_relevant(exemplar_world):
    protocol, made = plans(exemplar_world)
    for plan in made:
        queries, relevant = plan.roles("query"), protocol.relevant(plan)
        assert plan.by_base == tuple(case.id for case in queries) and len(queries) == 3
        for case, row in zip(queries, relevant, strict=True):
            (found,) = np.flatnonzero(row)  # every caption of this world belongs to one picture
            assert plan.rows[found].caption == case.prompt and plan.rows[found].id.startswith("laion_subset/")
            assert case.modifiers == () and case.concepts == ()
    first, second = ([case.prompt for case in plan.roles("query")] for plan in made)
    assert first != second


def test_the_prompts_of_the_base_model_are_not_monitored(exemplar_world):
    _, (plan, *_) = plans(exemplar_world)
    asked = {case.prompt for case in plan.roles("query")}
    assert plan.prompts and not asked & set(plan.prompts)


def test_too_few_captions_are_told(exemplar_world):
    with pytest.raises(DatasetError, match=r"have 8 captions, a study asks for 9; lower base-model\.captions"):
        plans(exemplar_world, captions=9)


@pytest.fixture(scope="module")
def result(exemplar_world, small_model_folder, tmp_path_factory) -> Result:
    folder = tmp_path_factory.mktemp("base-model")
    config = RunConfig.gather(
        None, dataset="gendata", protocol="base-model", data_root=exemplar_world, model=str(small_model_folder), preset="mini",
        workers=1, methods=["montrage", "bm25", "d-trak"], store=folder / "store", out=folder / "run",
        params=[f"base-model.{key}={value}" for key, value in SMALL.items()]
        + ["montrage.encoder=clip-tiny", "montrage.steps=20", "shuffled-queries.encoder=clip-tiny"]
        + ["d-trak.timesteps=2", "d-trak.projection_dim=64"],
    )  # fmt: skip
    return execute(prepare(config), Listener())


def test_who_reads_captions_finds_the_caption_again(result):
    assert result.failure is None
    values = {(row.method, row.metric): row for row in result.rows if row.status == "ok"}
    assert values["bm25", "recall@1"].value == 1.0
    assert np.isfinite(values["montrage", "average_precision"].value) and np.isfinite(values["d-trak", "recall@5"].value)
    assert values["constant", "recall@5"].value == pytest.approx(values["constant", "recall@5"].chance)


def test_queries_are_sampled_by_the_untrained_model_and_the_rest_by_the_trained_one(result, small_model_folder):
    plan = result.prepared.plans[0]
    pictures = result.prepared.store.path(result.prepared.studies[plan.id].pictures.keys["pictures"])
    base = DiffusionModel.load(small_model_folder)
    base.add_modifiers(dict(plan.training.modifiers))
    for number, case in enumerate(plan.generated_cases):
        (again,) = base.sample(
            [case.prompt], torch.stack([initial_noise(base, plan.training, case)]), steps=2, guidance=plan.sampling.guidance
        )
        written = np.asarray(written_picture(pictures / f"{number:05d}.png"), dtype=np.int64)
        apart = np.abs(written - np.asarray(again, dtype=np.int64)).max()
        assert (apart <= 1) == (case.role == "query"), case.id


def written_picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")
