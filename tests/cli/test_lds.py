"""The command on the lds protocol, in small: a table with intervals and a ceiling, and truth that is made once."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from attribench.cli import screen
from attribench.diffusion import stacked
from attribench.engine.listener import Listener
from attribench.engine.plan import make_plan
from attribench.engine.work import Outcome
from attribench.errors import ModelError, StoreError, UsageError
from attribench.report import record
from attribench.run import truth_file
from attribench.run.config import RunConfig
from attribench.run.execute import Result, execute
from attribench.run.outcomes import truths_of
from attribench.run.prepare import prepare
from attribench.run.prepared import Prepared

SMALL = {
    "n_concepts": 2, "n_studies": 2, "images_per_concept": 3, "templates": 2, "fit_pictures": 1, "method_seeds": "[4, 16]",
    "query_pictures.un-mixed": 2, "query_pictures.mixed": 2, "customization.epochs": 2, "sampling.steps": 2,
    "n_subsets": 6, "n_dev_subsets": 4, "n_seeds": 2, "timesteps": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def options(small_options: dict) -> dict:
    """Of `RunConfig.gather`: two studies of six images."""
    params = [f"lds.{name}={value}" for name, value in SMALL.items()] + ["shuffled-queries.encoder=clip-tiny"]
    return small_options | {"protocol": "lds", "workers": 0, "methods": ["pixel"], "params": params}


@pytest.fixture(scope="module")
def with_tuning(options: dict) -> dict:
    """With a method that has candidates."""
    small = ["d-trak.projection_dim=64", "d-trak.timesteps=2"]
    return options | {"methods": ["pixel", "d-trak"], "params": [*options["params"], *small]}


def run(options: dict, folder, name: str, **more) -> tuple[Result, dict[str, list[str]]]:
    """The result, and by kind of step what was made."""

    class Heard(Listener):
        def __init__(self) -> None:
            self.made: dict[str, list[str]] = {}

        def finished(self, step, outcome) -> None:
            if outcome.status == "done":
                self.made.setdefault(step.name, []).append(step.label)

    heard = Heard()
    config = RunConfig.gather(None, **(options | {"store": folder / "store", "out": folder / name} | more))
    return execute(prepare(config), heard), heard.made


@pytest.fixture(scope="module")
def first(with_tuning, tmp_path_factory):
    """One run that several tests look at."""
    folder = tmp_path_factory.mktemp("lds")
    return folder, *run(with_tuning, folder, "first")


def test_every_method_and_control_has_an_lds_with_interval_and_ceiling(first):
    _, result, _ = first
    assert result.failure is None
    rows = record.read(result.folder)
    assert {row.metric for row in rows} == {"lds", "lds_over_ceiling", "lds_cross_seed", "lds_same_seed"}
    assert {row.variant for row in rows} == {"un-mixed", "mixed"}
    for row in rows:
        assert row.status == "ok"
        assert row.n_studies == 2
        if row.metric in ("lds", "lds_same_seed", "lds_cross_seed"):
            assert row.low <= row.value <= row.high
            assert row.low < row.high or row.method == "constant"
            assert row.chance == 0.0
    assert all(row.ceiling is None for row in rows if row.metric == "lds_same_seed")
    for row in rows:
        if row.metric == "lds":
            assert 0 <= row.ceiling <= 1
        if row.method == "constant" and row.metric == "lds":
            assert row.value == 0
    assert {row.tuning for row in rows if row.method == "d-trak"} == {"tuned", "default", "oracle"}


def test_dev_and_test_share_neither_queries_nor_subsets(first):
    _, result, _ = first
    prepared = result.prepared
    outcomes = {step: Outcome("cached") for step in prepared.targets}
    dev, test = (truths_of(prepared, outcomes, role) for role in ("fit", "query"))
    for plan in prepared.plans:
        assert not set(dev[plan.id].query_ids) & set(test[plan.id].query_ids)
        subsets = [{tuple(mask) for mask in truths[plan.id].retrained.masks.tolist()} for truths in (dev, test)]
        assert len(subsets[0]) == 4
        assert len(subsets[1]) == 6
        assert not subsets[0] & subsets[1]
        known = test[plan.id].retrained
        assert known.seeds[0] == known.own_seed
        assert known.own_seed not in dev[plan.id].retrained.seeds
        assert (known.masks.sum(axis=1) == 3).all()
        assert np.isfinite(known.losses).all()
        assert known.losses.std(axis=1).min() > 0


def test_the_losses_lie_in_open_files(first):
    _, result, _ = first
    for plan in result.prepared.plans:
        for role, n_models in (("query", (6, 2)), ("fit", (4, 1))):
            with safe_open(result.folder / "truth" / f"{plan.id}-{role}.safetensors", framework="numpy") as file:
                masks, losses, seeds = (file.get_tensor(name) for name in ("masks", "losses", "seeds"))
                about = {name: json.loads(text) for name, text in file.metadata().items()}
            assert about["query_ids"] == [case.id for case in plan.roles(role)]
            assert masks.shape == (n_models[0], len(about["train_ids"]))
            assert losses.shape == (len(about["query_ids"]), *n_models)
            assert len(seeds) == n_models[1]
            assert about["own_seed"] == plan.training.seed


def test_a_dry_run_says_what_retraining_may_cost(options, tmp_path, capsys):
    prepared = prepare(RunConfig.gather(None, **options | {"store": tmp_path / "store"}))
    screen.dry_run(prepared, as_json=False)
    shown = capsys.readouterr().out
    assert "retrain" in shown
    assert "unknown" not in shown
    assert "not counted" not in shown  # nothing here depends on the scores


def test_a_later_method_retrains_nothing(first, with_tuning):
    folder, _, made = first
    assert made.keys() >= {"train", "retrain", "losses"}
    result, again = run(with_tuning | {"methods": ["pixel", "d-trak", "grad-cos"]}, folder, "later")
    assert result.failure is None
    assert {kind.split()[0] for kind in again} == {"read", "fit", "score"}
    assert again.keys() >= {"fit grad-cos", "score grad-cos"}


def test_without_anything_to_tune_no_dev_subset_is_trained(options, tmp_path):
    prepared = prepare(RunConfig.gather(None, **options | {"store": tmp_path / "store"}))
    n_models = sum(len(step.outputs) for step in make_plan(prepared.targets, prepared.store).to_run if step.name == "retrain")
    assert n_models == 2 * 6 * 2
    assert {role for truths in prepared.truths.values() for role in truths} == {"query"}


def test_a_training_that_diverges_fails_every_row_and_keeps_the_scores(options, tmp_path, monkeypatch):
    def diverge(*arguments, **options):
        raise ModelError("the customization loss became nan at step 3; lower the learning rate")

    monkeypatch.setattr(stacked, "customize_in_turn", diverge)
    result, _ = run(options, tmp_path, "diverged")
    assert isinstance(result.failure, ModelError)
    assert {(row.status, row.value) for row in record.read(result.folder)} == {("failed", None)}
    assert len(list((result.folder / "scores" / "pixel").iterdir())) == 2


def test_too_few_subsets_say_so(options):
    few = options | {"params": [*options["params"], "lds.n_subsets=3"]}
    with pytest.raises(UsageError, match="greater than or equal to 4"):
        prepare(RunConfig.gather(None, **few))
    many = options | {"params": [*options["params"], "lds.n_subsets=40"]}
    with pytest.raises(UsageError, match="only 20 subsets of 3"):
        prepare(RunConfig.gather(None, **many))


# ------------------------------------------------------------------------------------ export, import


def prepared_in(options: dict, store, **more) -> Prepared:
    return prepare(RunConfig.gather(None, **options | {"store": store} | more))


@pytest.fixture(scope="module")
def exported(first):
    """The truth of that run in a file."""
    folder, result, _ = first
    path = folder / "truth.safetensors"
    truth_file.export(result.prepared, path)
    return path


def test_a_truth_is_imported_where_nothing_was_trained(first, exported, with_tuning, tmp_path):
    """And further methods are then held against it without any training."""
    _, result, _ = first
    there = prepared_in(with_tuning, tmp_path / "store")
    n_all, n_new = truth_file.import_(there, exported)
    assert n_all == n_new == len(list(there.store.manifests()))
    assert truth_file.import_(there, exported) == (n_all, 0)
    again, made = run(with_tuning, tmp_path, "imported")
    assert again.failure is None
    assert {kind.split()[0] for kind in made} == {"read", "fit", "score"}
    for row, expected in zip(record.read(again.folder), record.read(result.folder), strict=True):
        assert (row.method, row.metric, row.value, row.ceiling) == (
            expected.method, expected.metric, expected.value, expected.ceiling
        )  # fmt: skip


def test_a_run_that_tunes_nothing_takes_the_same_file(exported, options, tmp_path):
    there = prepared_in(options, tmp_path / "store")
    truth_file.import_(there, exported)
    assert not {"train", "generate", "retrain", "losses"} & {step.name for step in make_plan(there.targets, there.store).to_run}


def tampered(exported, folder, change) -> tuple:
    """A copy of the file with its tensors and digests changed by `change(tensors, digests)`."""
    with safe_open(exported, framework="numpy") as file:
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
        digests = json.loads(file.metadata()["sha256"])
    change(tensors, digests)
    save_file(tensors, folder / "bad", metadata={"format": truth_file.FORMAT, "sha256": json.dumps(digests)})
    return folder / "bad"


def of_losses(tensors: dict) -> str:
    return next(name for name in tensors if name.endswith("/losses.npy") and tensors[name].size < 400)


def flip_a_bit(tensors, digests):
    name = of_losses(tensors)
    tensors[name] = tensors[name].copy()
    tensors[name][-1] ^= 1


def lose_one(tensors, digests):
    key = next(name for name in tensors if name.endswith("/cases.json")).partition("/")[0]  # a study's pictures
    for name in [name for name in tensors if name.startswith(key)]:
        del tensors[name]


def lead_out(tensors, digests):
    key = of_losses(tensors).partition("/")[0]
    tensors[f"{key}/../../evil"] = np.zeros(1, np.uint8)


def foreign(tensors, digests):
    tensors["00ff/losses.npy"] = np.zeros(1, np.uint8)


def pickled(tensors, digests):
    replace_losses(tensors, digests, np.array([{"a": 1}], dtype=object))


def endless(tensors, digests):
    replace_losses(tensors, digests, np.full(6, np.inf))


def too_many(tensors, digests):
    replace_losses(tensors, digests, np.zeros(5000))


def replace_losses(tensors, digests, array) -> None:
    """With the digest of the forged content."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    name = of_losses(tensors)
    tensors[name] = np.frombuffer(stream.getvalue(), dtype=np.uint8)
    digests[name] = hashlib.sha256(stream.getvalue()).hexdigest()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (flip_a_bit, "is not what was exported"),
        (lose_one, "is the truth of another study: it lacks"),
        (lead_out, "which this run does not ask for"),
        (foreign, "which this run does not ask for"),
        (pickled, "cannot be parsed"),
        (endless, "finite numbers"),
        (too_many, "finite numbers"),
    ],
)
def test_a_tampered_truth_is_refused_and_nothing_of_it_is_stored(exported, with_tuning, tmp_path, change, said):
    there = prepared_in(with_tuning, tmp_path / "store")
    with pytest.raises(UsageError, match=said):
        truth_file.import_(there, tampered(exported, tmp_path, change))
    assert list(there.store.manifests()) == []
    assert not list(tmp_path.rglob("evil"))


def test_a_file_that_is_no_truth_is_refused(exported, with_tuning, tmp_path):
    there = prepared_in(with_tuning, tmp_path / "store")
    (tmp_path / "short").write_bytes(exported.read_bytes()[:1000])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "large").write_bytes((2**40).to_bytes(8, "little") + b"{}")
    save_file({"a": np.zeros(1)}, tmp_path / "other")
    for name in ("short", "empty", "large", "other", "absent"):
        with pytest.raises(UsageError, match=name):
            truth_file.import_(there, tmp_path / name)


def test_the_truth_of_another_run_is_refused(exported, with_tuning, tmp_path):
    other = prepared_in(with_tuning, tmp_path / "store", seed=1)
    with pytest.raises(UsageError, match="truth of another study"):
        truth_file.import_(other, exported)


def test_a_store_with_another_model_refuses_the_losses(first, exported, with_tuning, tmp_path):
    """Losses hold for one model's pictures alone."""
    import shutil

    folder, result, _ = first
    shutil.copytree(folder / "store", tmp_path / "store")
    there = prepared_in(with_tuning, tmp_path / "store")
    weights = there.store.path(there.studies[there.plans[0].id].trainings[0].keys["weights"])
    manifest = json.loads((weights / "manifest.json").read_text())
    manifest["files"]["weights.safetensors"]["sha256"] = "0" * 64
    (weights / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="choose another --store"):
        truth_file.import_(there, exported)


def test_the_verbs_say_what_they_did(first, attribench, tmp_path):
    _, result, _ = first
    export = attribench("truth", "export", str(result.folder), "truth.safetensors")
    assert export.returncode == 0, export.stderr
    assert "sha256" in export.stdout
    imported = attribench("truth", "import", "truth.safetensors", str(result.folder / "run.toml"), "--store", "elsewhere")
    assert imported.returncode == 0, imported.stderr
    assert "artifacts stored in" in imported.stdout
    wrong = attribench("truth", "import", "nothing", str(result.folder / "run.toml"))
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1


def test_the_run_is_a_submission_whose_numbers_are_found_again(first, options, tmp_path):
    """A tuned method and a truth of retrained models: self-reported by itself, verified where the truth is kept."""
    from attribench.run.experiment import experiment_of
    from attribench.submissions.pack import submission_of
    from attribench.submissions.truths import kept_truths
    from attribench.submissions.verify import verify

    _, result, _ = first
    path = tmp_path / "lds.submission.zip"
    path.write_bytes(submission_of(result.folder))
    known = [experiment_of(RunConfig.gather(result.folder / "run.toml"))]
    alone = verify(path, known=known, data_root=options["data_root"])
    assert alone.reasons == [] and alone.verified == set()
    kept = kept_truths(result.folder, alone.planned)
    found = verify(path, known=known, data_root=options["data_root"], kept=kept)
    expected, again = (
        {(row.method, row.variant, row.metric): row for row in rows if row.competes}
        for rows in (record.read(result.folder), found.rows)
    )
    assert again == expected and {key[1:] for key in expected} == found.verified
