"""The studies of batch-size, and a run of it on a small world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attribench.editions import open_dataset
from attribench.engine.listener import Listener
from attribench.protocols.batch_size import PICTURE, BatchSize
from attribench.report import record
from attribench.run.config import RunConfig
from attribench.run.execute import Result, execute
from attribench.run.prepare import prepare

SMALL = {"n_studies": 2, "images_per_concept": 3, "templates": 2, "moments": 3, "customization.epochs": 3, "sampling.steps": 2}


def test_the_trainings_of_a_study_differ_in_their_batch_size_alone():
    plans = BatchSize.with_preset("mini", {"n_studies": 1}).plans(
        open_dataset("customconcept101"), model="fingerprint", split="test", seed=0, limit=None
    )
    assert [plan.training.customization.batch_size for plan in plans] == [1, 2, 4]
    assert len({plan.id for plan in plans}) == 3
    assert len({(plan.concepts, plan.training.images, plan.training.seed, plan.prompts) for plan in plans}) == 1
    assert [{case.variant for case in plan.cases} for plan in plans] == [{"batch 1"}, {"batch 2"}, {"batch 4"}]
    assert {len(case.concepts) for plan in plans for case in plan.cases} == {1}


@pytest.mark.parametrize("preset", ["mini", "paper"])
def test_every_preset_is_valid(preset):
    assert BatchSize.with_preset(preset, {}).preset.batch_sizes == (1, 2, 4)


@pytest.fixture(scope="module")
def finished(paper_folder: Path, small_model_folder: Path, tmp_path_factory) -> Result:
    folder = tmp_path_factory.mktemp("run")
    config = RunConfig.gather(
        None, methods=["montrage"], dataset="customconcept101", data_root=paper_folder, protocol="batch-size", preset="mini",
        model=str(small_model_folder), workers=0, store=folder / "store", out=folder / "run",
        params=[f"batch-size.{name}={value}" for name, value in SMALL.items()]
        + ["montrage.attribution=table", "montrage.steps=20", "shuffled-queries.encoder=clip-tiny"],
    )  # fmt: skip
    return execute(prepare(config), Listener())


def test_each_batch_size_has_its_rows(finished):
    assert finished.failure is None
    rows = [row for row in record.read(finished.folder) if row.method == "montrage"]
    assert {row.variant for row in rows} == {"batch 1", "batch 2", "batch 4"}
    assert all(row.n_studies == 2 and row.value is not None for row in rows)


def test_the_last_moment_is_the_table(finished):
    from attribench.files.state import State
    from attribench.study.steps import observation_name

    protocol = finished.prepared.protocol
    for plan in finished.prepared.plans:
        trained = finished.prepared.studies[plan.id].trainings[0]
        observed = {
            observer: State(finished.prepared.store.path(trained.keys[observation_name(observer)]))
            for observer in protocol.truth_observers(plan)
        }
        tables = protocol.truth(plan, observed).tables
        assert list(tables) == ["table", "epoch 1", "epoch 2", "epoch 3"]
        np.testing.assert_array_equal(tables["table"], tables["epoch 3"])


def test_the_picture_is_drawn(finished):
    with Image.open(finished.folder / PICTURE) as picture:
        assert picture.format == "PNG" and picture.width > 900
