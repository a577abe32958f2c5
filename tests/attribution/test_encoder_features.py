"""An encoder reads each picture of a study once, whichever methods ask."""

from __future__ import annotations

import numpy as np
from attribench.methods.abc.in_study import AbcStudy
from attribench.methods.clip import ClipImage
from attribench.methods.clip_z import ClipZ
from attribench.methods.controls import ShuffledQueries
from attribench.methods.montrage import Montrage

from attribench.attribution.scores import SCORES, read_scores
from attribench.engine.run import execute


def test_clip_abc_montrage_and_the_control_share_one_reading_of_clip_tiny(run_of, store):
    methods = [method.resolve("mini") for method in (ClipImage(), ShuffledQueries(), AbcStudy(), Montrage(), Montrage(steps=0))]
    runs = [run_of(method, beside=tuple(methods)) for method in methods]
    outcomes = execute([step for run in runs for step in run.steps], store, workers=0)
    assert [outcome.reason for outcome in outcomes.values() if not outcome.ok] == []
    done = [str(step) for step, outcome in outcomes.items() if outcome.status == "done"]
    assert sum(name.startswith("read clip-tiny features of queries ") for name in done) == 1
    assert sum(name.startswith("read clip-tiny features of dev queries ") for name in done) == 1  # for AbC and MONTRAGE
    assert sum(name.startswith("read clip-tiny features ") for name in done) == 3


def test_montrage_before_training_is_the_shifted_cosine_of_standardized_clip(run_of, store):
    clip, montrage = ClipZ().resolve("mini"), Montrage(steps=0, attribution="model").resolve("mini")
    runs = [run_of(method, beside=(clip, montrage)) for method in (clip, montrage)]
    execute([step for run in runs for step in run.steps], store, workers=0)
    cosine, shifted = (read_scores(store.path(run.score.keys["scores"]) / SCORES).values for run in runs)
    np.testing.assert_allclose(shifted, (1 + cosine) / 2, atol=1e-6)
