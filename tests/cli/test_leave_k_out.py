"""The command on the leave-k-out protocol, in small: from training from scratch to the table, the plots and the sharing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from attribench.cli import screen
from attribench.engine.listener import Listener
from attribench.errors import AttribenchError, UsageError
from attribench.report import record
from attribench.run import truth_file
from attribench.run.config import RunConfig
from attribench.run.execute import Result, execute
from attribench.run.prepare import prepare
from attribench.run.prepared import Prepared
from attribench.run.truths import file_name

SMALL = {
    "n_studies": 2, "n_images": 8, "queries": 2, "k": "[2, 3]", "curve": "[0, 2, 3]", "draws": 1, "timesteps": 2,
    "n_seeds": 1, "training.epochs": 1, "training.batch_size": 4, "sampling.steps": 1, "training.flips": "true",
}  # fmt: skip


@pytest.fixture(scope="module")
def options(coco_folder: Path, small_model_folder: Path) -> dict:
    """Of `RunConfig.gather`: two studies of eight images."""
    params = [f"leave-k-out.{name}={value}" for name, value in SMALL.items()]
    return {
        "dataset": "mscoco", "data_root": coco_folder, "model": str(small_model_folder), "preset": "mini", "workers": 0,
        "methods": ["pixel"],
        "params": [*params, "leave-k-out.encoder=clip-tiny", "shuffled-queries.encoder=clip-tiny", "clip-image.encoder=clip-tiny",
                   "training-loss.timesteps=1", "d-trak.timesteps=1", "d-trak.projection_dim=16", "d-trak.checkpoints=2"],
    }  # fmt: skip


def run(options: dict, folder: Path, name: str, **more) -> tuple[Result, dict[str, int]]:
    """The result, and how many steps of each kind were made."""

    class Heard(Listener):
        def __init__(self) -> None:
            self.made: dict[str, int] = {}

        def finished(self, step, outcome) -> None:
            if outcome.status == "done":
                self.made[step.name] = self.made.get(step.name, 0) + 1

    heard = Heard()
    methods = set(more.get("methods", options["methods"]))
    params = [p for p in options["params"] if p.split(".")[0] in methods | {"leave-k-out", "shuffled-queries", "training-loss"}]
    config = RunConfig.gather(None, **(options | {"store": folder / "store", "out": folder / name} | more | {"params": params}))
    return execute(prepare(config), heard), heard.made


@pytest.fixture(scope="module")
def first(options, tmp_path_factory):
    """One run that several tests look at."""
    folder = tmp_path_factory.mktemp("leave-k-out")
    return folder, *run(options, folder, "first", methods=["pixel", "clip-image", "d-trak"])


def test_every_method_has_a_counterfactual_value_at_every_k(first):
    _, result, _ = first
    assert result.failure is None
    rows = record.read(result.folder)
    assert list(dict.fromkeys(row.metric for row in rows))[:4] == [
        "delta_loss@2", "delta_loss@3", "equivalent_random@2", "equivalent_random@3"
    ]  # fmt: skip
    for row in rows:
        assert row.n_concepts is None
        if row.method == "random":
            assert row.status == "unavailable" and "curve" in row.reason
        elif row.method == "constant":  # its removal is not determined
            assert row.status == "ok" and row.value is None
        else:
            assert row.value is not None, (row.method, row.metric)
            assert row.n_studies == 2
    own = {(row.method, row.metric): row for row in rows}
    assert own["pixel", "delta_loss@2"].chance == own["clip-image", "delta_loss@2"].chance
    assert 0 < own["pixel", "delta_generation@2"].value < 1
    assert own["pixel", "equivalent_random@2"].chance == 2


def test_values_are_those_of_the_models_on_disk(first):
    """ΔL of each query from the open truth file, by hand."""
    _, result, _ = first
    per_query = record.read_per_query(result.folder).set_index(["method", "metric", "study", "query_id"])["value"]
    from attribench.attribution.scores import read_scores

    for plan in result.prepared.plans:
        with safe_open(result.folder / file_name(plan.id), framework="numpy") as file:
            masks, losses, full, drawn = (file.get_tensor(name) for name in ("masks", "losses", "full", "drawn"))
            queries = json.loads(file.metadata()["query_ids"])
        scores = read_scores(result.folder / "scores" / "pixel" / f"{plan.id}-seed0.safetensors").values
        removed = (masks == 0).sum(axis=1)
        assert sorted(removed[drawn == 1]) == [0, 2, 3]
        for q, query_id in enumerate(queries):
            top = np.argsort(-scores[q])[:3]
            (m,) = np.flatnonzero((masks[:, top] == 0).all(axis=1) & (removed == 3))
            expected = 1000 * (np.nanmean(losses[q, m]) - full[q])
            assert per_query["pixel", "delta_loss@3", plan.id, query_id] == pytest.approx(expected)


def test_the_record_says_how_many_models_were_shared(first, options):
    folder, result, made = first
    manifest = json.loads((result.folder / "manifest.json").read_text())
    counts = manifest["retrainings"]
    assert counts["found"] == 0
    assert counts["distinct"] < counts["asked"]  # shuffled queries remove what clip-image removes for another query
    assert made["encode"] == 1
    assert made["train"] == 2
    again, once_more = run(options, folder, "again", methods=["pixel", "clip-image"])
    assert again.failure is None
    assert once_more == {}
    counts = json.loads((again.folder / "manifest.json").read_text())["retrainings"]
    assert counts["found"] == counts["distinct"]


def test_the_plots_and_the_pictures_are_drawn(first):
    _, result, _ = first
    for name in result.prepared.protocol.pictures:
        with Image.open(result.folder / name) as picture:
            assert picture.width > 500


def test_the_ablation_preset_runs_the_papers_choices_and_says_which_step_size_is_missing(options, tmp_path, capsys):
    """Where no method is asked for. On real data step sizes are the papers'; what has none is out before anything is trained."""
    params = [p for p in options["params"] if p.startswith(("leave-k-out", "shuffled", "training-loss"))]
    asked = options | {"preset": "ablation", "methods": [], "params": params, "store": tmp_path / "store"}
    prepared = prepare(RunConfig.gather(None, **asked))
    own = [entry for entry in prepared.methods if not entry.method.control]
    assert [entry.plugin.name for entry in own] == [
        "unlearning", "unlearning-cross-attention", "unlearning-attention", "unlearning-full", "unlearning-sgd",
        "unlearning-sgd-ten-steps", "unlearning-many-steps",
    ]  # fmt: skip
    assert [bool(entry.skipped) for entry in own] == [False] * 6 + [True]
    assert "in 100 steps of a model that is from scratch; give step_size=NUMBER" in own[-1].skipped
    screen.dry_run(prepared, as_json=False)
    shown = capsys.readouterr().out
    assert "score unlearning-sgd-ten-steps" in shown and "score unlearning-many-steps" not in shown
    assert "unlearning-many-steps cannot run here: the papers name no step size" in shown
    only = prepare(RunConfig.gather(None, **asked | {"methods": ["pixel"]}))
    assert [entry.plugin.name for entry in only.methods if not entry.method.control] == ["pixel"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("leave-k-out.k=[8]", "lacks K = 8"),
        ("leave-k-out.curve=[0, 2, 3, 8]", "some must be left"),
        ("leave-k-out.curve=[2, 3]", "from 0 on"),
        ("leave-k-out.n_images=13", "a study needs 13"),
        ("leave-k-out.queries=500", "lower leave-k-out.queries"),
        ("leave-k-out.training.architecture=large", "architecture"),
    ],
)
def test_counts_that_do_not_go_together_say_so(options, change, said):
    params = [p for p in options["params"] if p.startswith(("leave-k-out", "shuffled"))]
    with pytest.raises((UsageError, AttribenchError), match=said.replace("(", "\\(")):
        prepare(RunConfig.gather(None, **options | {"params": [*params, change]}))


def test_a_diverging_unlearning_step_is_a_marked_row_and_nothing_else_is_lost(first, options):
    folder, result, _ = first
    params = ["step_unit=absolute", "step_size=1e200", "fisher_draws=1", "query_timesteps=2", "timesteps=1", "damping=0.1"]
    diverging = options | {"params": [*options["params"], *(f"unlearning.{param}" for param in params)]}
    again, _ = run(diverging, folder, "diverged", methods=["pixel", "unlearning"])
    assert again.failure is not None and again.failure.exit_code == 5
    own = {(row.method, row.metric): row.value for row in record.read(result.folder)}
    for row in record.read(again.folder):
        if row.method == "unlearning":
            assert row.status == "failed" and row.value is None
            assert "diverged" in row.reason and "take a smaller step_size" in row.reason
        else:
            assert row.value == own[row.method, row.metric], row


# ------------------------------------------------------------------------------------ export, import


@pytest.fixture(scope="module")
def exported(first):
    """The truth of that run in a file: the curve, and what pixel, clip-image and d-trak asked for."""
    folder, result, _ = first
    path = folder / "truth.safetensors"
    truth_file.export(result.prepared, path)
    return path


def prepared_in(options: dict, store: Path, **more) -> Prepared:
    params = [p for p in options["params"] if p.split(".")[0] in ("leave-k-out", "shuffled-queries", "training-loss")]
    return prepare(RunConfig.gather(None, **options | {"store": store, "params": params} | more))


def test_an_imported_truth_serves_the_methods_that_it_is_of_and_another_retrains_its_own(first, exported, options, tmp_path):
    _, result, _ = first
    there = prepared_in(options, tmp_path / "store")
    n_all, n_new = truth_file.import_(there, exported)
    assert n_all == n_new > 0 and truth_file.import_(there, exported) == (n_all, 0)
    again, made = run(options, tmp_path, "again", methods=["clip-image", "pixel"])
    assert again.failure is None
    assert {kind.split()[0] for kind in made} == {"read", "fit", "score"}  # no encoding, training, generating, or looking
    assert again.prepared.retrainings["found"] == again.prepared.retrainings["distinct"]
    own = {(row.method, row.metric): row for row in record.read(result.folder)}
    for row in record.read(again.folder):
        before = own[row.method, row.metric]
        assert (row.value, row.low, row.high, row.chance) == (before.value, before.low, before.high, before.chance), row
    for name in result.prepared.protocol.pictures:
        assert (again.folder / name).is_file()
    other, made = run(options, tmp_path, "other", methods=["pixel", "bm25"])
    assert other.failure is None
    counts = other.prepared.retrainings
    assert 0 < counts["distinct"] - counts["found"] < counts["found"]
    assert {"train", "generate"} & set(made) == set() and made["retrain"] >= 1


def test_what_scores_asked_for_is_checked_before_anything_is_stored(exported, options, tmp_path):
    with safe_open(exported, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digests = json.loads(file.metadata()["sha256"])
    looks = json.loads(tensors["looks"].tobytes())
    (number, seed, queries), study = looks[0]["looks"][0], looks[0]["study"]

    def refused(changed: object, said: str) -> None:
        forged = json.dumps(changed).encode()
        data = tensors | {"looks": np.frombuffer(forged, dtype=np.uint8)}
        metadata = {"format": truth_file.FORMAT, "sha256": json.dumps(digests | {"looks": hashlib.sha256(forged).hexdigest()})}
        save_file(data, tmp_path / "forged", metadata=metadata)
        there = prepared_in(options, tmp_path / "store")
        with pytest.raises(UsageError, match=said):
            truth_file.import_(there, tmp_path / "forged")
        assert list(there.store.manifests()) == []

    one = looks[0]
    refused([one | {"looks": [[number, seed, [2]]]}], "queries that are not there")
    refused([one | {"looks": [[10**9, seed, queries]]}], "queries that are not there")
    refused([one | {"left_out": [[0, 8]] * len(one["left_out"])}], "images that are not there")
    refused([one | {"left_out": [[3, 1]] * len(one["left_out"])}], "no rows to leave out")
    refused([one | {"left_out": [list(range(8))] * len(one["left_out"])}], "images that are not there")
    refused([one | {"study": "../other"}], "no study of this run")
    refused([one, one], "twice")
    refused([one | {"more": 1}], "cannot be read")
    refused([one | {"looks": one["looks"] * 1000}, *looks[1:]], "more looks than it holds")
    refused([one | {"looks": one["looks"][1:]}, *looks[1:]], "truth of another study: it holds")
    refused([one | {"looks": [[number, seed + 1, queries], *one["looks"]]}, *looks[1:]], "it lacks")
    refused([], "truth of another study: it holds")
    assert study in {plan.id for plan in prepared_in(options, tmp_path / "store").plans}


def test_a_run_whose_models_are_not_there_cannot_be_exported(options, tmp_path):
    with pytest.raises(UsageError, match="do the run first, then export its truth"):
        truth_file.export(prepared_in(options, tmp_path / "store"), tmp_path / "truth")
    assert not (tmp_path / "truth").exists()


# ---------------------------------------------------------------------------------------- submission


def test_the_run_is_a_submission_whose_numbers_are_found_again(first, options, tmp_path):
    from attribench.report import record
    from attribench.run.experiment import experiment_of
    from attribench.submissions.pack import submission_of
    from attribench.submissions.truths import kept_truths
    from attribench.submissions.verify import verify

    result = next(part for part in first if isinstance(part, Result))
    path = tmp_path / "counterfactual.submission.zip"
    path.write_bytes(submission_of(result.folder))
    known = [experiment_of(RunConfig.gather(result.folder / "run.toml"))]
    alone = verify(path, known=known, data_root=options.get("data_root"))
    assert alone.reasons == []
    kept = kept_truths(result.folder, alone.planned)
    found = verify(path, known=known, data_root=options.get("data_root"), kept=kept)
    expected, again = (
        {(row.method, row.variant, row.metric): row for row in rows if row.competes and row.status == "ok"}
        for rows in (record.read(result.folder), found.rows)
    )
    assert again == expected and {key[1:] for key in expected} == found.verified
