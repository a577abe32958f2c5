"""An artifact is whole or absent, whatever happens while it is written or after."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from sample_steps import contents, draw, fill, forget_output, noted, raise_early, raise_error, single

from attribench.engine.run import execute
from attribench.engine.store import ArtifactStore, DiskFull
from attribench.errors import StoreError


def made(store: ArtifactStore, **params):
    step = single(draw, seed=1, **params)
    assert execute([step], store, workers=0)[step].status == "done"
    return step


def test_a_manifest_says_what_the_artifact_is_made_of(store):
    step = made(store)
    manifest = store.manifest(step.keys["numbers"])
    assert manifest["step"] == "single" and manifest["output"] == "numbers" and manifest["parents"] == {}
    assert manifest["cost"]["seconds"] >= 0 and manifest["cost"]["peak_bytes"] >= 0
    assert manifest["versions"]["attribench"] and manifest["device"] == "cpu" and not manifest["resumed"]
    (file,) = manifest["files"].values()
    assert file["bytes"] == (store.path(step.keys["numbers"]) / "numbers.npy").stat().st_size
    store.verify(step.keys["numbers"])


def test_nothing_but_the_artifact_is_left(store):
    made(store)
    left = [path for folder in ("scratch", "partial", "failures") for path in (store.root / folder).iterdir()]
    assert left == []


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: os.truncate(folder / "numbers.npy", 10),
        lambda folder: (folder / "numbers.npy").unlink(),
        lambda folder: (folder / "manifest.json").write_text('{"key": '),
        lambda folder: (folder / "manifest.json").write_text("[]"),
    ],
)
def test_a_damaged_artifact_is_refused_with_the_folder_to_delete(store, harm):
    step = made(store)
    folder = store.path(step.keys["numbers"])
    harm(folder)
    with pytest.raises(StoreError, match=f"{folder} is damaged.*delete that folder"):
        store.path(step.keys["numbers"])


def test_a_changed_byte_is_found_by_verify(store):
    step = made(store)
    path = store.path(step.keys["numbers"]) / "numbers.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    store.path(step.keys["numbers"])
    with pytest.raises(StoreError, match="numbers.npy has changed"):
        store.verify(step.keys["numbers"])


def test_an_absent_artifact_is_an_error_to_read(store):
    assert not store.has("0" * 32)
    with pytest.raises(StoreError, match="no artifact"):
        store.path("0" * 32)


@pytest.mark.parametrize("found", ['{"format": 2}', "{}", "half"])
def test_a_store_of_another_version_is_refused(store, found):
    (store.root / "store.json").write_text(found)
    with pytest.raises(StoreError, match="choose another --store"):
        ArtifactStore(store.root)


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another --store"):
        ArtifactStore(tmp_path / "file")


def test_a_link_cannot_be_part_of_an_artifact(store):
    claim = store.claim("ab" * 16)
    (claim.folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match="is a link"):
        store.commit(claim, {})
    assert not store.has("ab" * 16)


@pytest.mark.parametrize(
    ("function", "said"), [(raise_error, "ValueError: the numbers are bad"), (raise_early, "KeyError: 'seed'")]
)
def test_a_failure_is_recorded_but_never_cached(store, function, said):
    step = single(function)
    for _ in range(2):
        outcome = execute([step], store, workers=0)[step]
        assert outcome.status == "failed" and said in outcome.reason
    key = step.keys["numbers"]
    recorded = json.loads(store.failure_path(key).read_text())
    assert recorded["reason"] == outcome.reason and "Traceback" in recorded["traceback"]
    assert str(store.failure_path(key)) in outcome.reason and not store.has(key)


def test_a_step_that_forgets_an_output_fails(store):
    step = single(forget_output)
    assert "'numbers'" in execute([step], store, workers=0)[step].reason


HOLD = """
import sys, time
from pathlib import Path
from attribench.engine.store import ArtifactStore
store = ArtifactStore(Path(sys.argv[1]))
claims = [store.claim("ab" * 16), store.claim("ab" * 16)]
(claims[0].folder / "part").write_text("first")
print(claims[0].folder, claims[1].folder, flush=True)
time.sleep(60)
"""


def test_scratch_belongs_to_one_process_and_survives_its_death(store, python):
    holder = python(HOLD, store.root)
    scratch, private = map(Path, holder.stdout.readline().split())
    assert scratch == store.scratch("ab" * 16) and private.parent == store.root / "partial"

    ours = ArtifactStore(store.root).claim("ab" * 16)
    assert ours.folder not in (scratch, private) and not ours.resumed
    assert private.exists(), "the folder of a live process is left alone"
    ours.release()
    assert not ours.folder.exists()

    holder.kill()
    holder.wait()
    after = ArtifactStore(store.root)
    assert not private.exists(), "the folder of a dead process is swept"
    ours = after.claim("ab" * 16)
    assert ours.folder == scratch and ours.resumed and (scratch / "part").read_text() == "first"
    ours.release()


RACE = """
import sys, time
from pathlib import Path
from attribench.engine.run import execute
from attribench.engine.store import ArtifactStore
from sample_steps import pipeline
step = pipeline()
print("ready", flush=True)
while not Path(sys.argv[2]).exists(): time.sleep(0.001)
print(execute([step], ArtifactStore(Path(sys.argv[1])), workers=0)[step].status)
"""


def test_two_processes_may_fill_one_store(store, tmp_path, python):
    from sample_steps import ancestry, pipeline

    (tmp_path / "pause").write_text("0.02")
    racers = [python(RACE, store.root, tmp_path / "go") for _ in range(2)]
    for racer in racers:
        racer.stdout.readline()
    (tmp_path / "go").touch()
    for racer in racers:
        out, err = racer.communicate(timeout=60)
        assert out.split()[-1] in ("done", "cached"), err
    step = pipeline()
    for one in ancestry(step):
        for key in one.keys.values():
            store.verify(key)
    assert not any((store.root / "partial").iterdir()) and not any((store.root / "scratch").iterdir())

    alone = ArtifactStore(tmp_path / "alone" / "store")
    execute([step], alone, workers=0)
    assert contents(alone, ancestry(step)) == contents(store, ancestry(step))


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_ends_the_run_with_what_is_free_and_keeps_what_is_whole(small_disk, workers):
    store = ArtifactStore(small_disk / "store")
    small, big = single(draw, seed=1), single(fill, name="big", bytes=2_000_000)
    with pytest.raises(DiskFull, match=r"no room left for the store .* \([\d,]+ bytes free\); free some"):
        execute([small, big], store, workers=workers)
    assert not store.has(big.keys["numbers"])
    if store.has(small.keys["numbers"]):
        store.verify(small.keys["numbers"])

    (store.scratch(big.keys["numbers"]) / "big.npy").unlink()
    small_enough = single(fill, name="big", bytes=1000)
    outcomes = execute([small, small_enough], store, workers=workers)
    assert all(outcome.ok for outcome in outcomes.values())


def test_a_disk_that_fills_up_at_the_very_end_leaves_no_artifact(store, monkeypatch):
    import errno

    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    step = single(draw, seed=1)
    with pytest.raises(DiskFull):
        execute([step], store, workers=0)
    assert not store.has(step.keys["numbers"])
    monkeypatch.setattr(os, "fsync", real)
    assert execute([step], store, workers=0)[step].status == "done"


def test_a_manifest_is_readable_by_anyone(store):
    step = made(store)
    path = store.path(step.keys["numbers"]) / "manifest.json"
    assert json.loads(path.read_text())["created"][:4] == time.strftime("%Y", time.gmtime())
    assert noted(store.root.parent / "log") == ["draw 1"]
