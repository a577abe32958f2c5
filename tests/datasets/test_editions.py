"""Which edition a run reads, and the hashes that its results are stored under."""

from pathlib import Path

import pytest
from attribench.datasets.artchive import Artchive
from attribench.datasets.customconcept101 import CustomConcept101

from attribench import editions
from attribench.data import ConceptDataset
from attribench.data.contents import fingerprint, require_readable
from attribench.errors import DatasetError, UnknownName, UsageError
from attribench.plugins import Plugin

STRANGER = '''
from pathlib import Path
from attribench.datasets.artchive import Artchive

class Stranger(Artchive):
    """A stranger's pictures."""
    name = "stranger"

    @classmethod
    def mini_root(cls):
        return Path({root!r})
'''


def test_a_data_root_means_the_paper_edition(customconcept_root):
    dataset = editions.open_dataset("CustomConcepts101", None, customconcept_root)
    assert isinstance(dataset, CustomConcept101) and dataset.edition == "paper"
    assert editions.open_dataset("customconcept101", "paper", customconcept_root).edition == "paper"


def test_editions_and_roots_that_contradict_each_other_are_refused(artchive_root):
    with pytest.raises(UsageError, match="--edition mini takes no --data-root"):
        editions.open_dataset("artchive", "mini", artchive_root)
    with pytest.raises(UsageError, match="--edition paper needs --data-root.*exemplar/artchive"):
        editions.open_dataset("artchive", "paper", None)


def test_an_unknown_data_set_is_told_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'artchive'"):
        editions.open_dataset("artchiv")


@pytest.mark.parametrize(("make", "what"), [(None, "does not exist"), ("file", "is not a folder"), ("folder", "is empty")])
def test_a_root_that_is_not_there_is_one_line_with_the_layout(tmp_path, make, what):
    root = tmp_path / "root"
    if make == "file":
        root.write_text("")
    elif make == "folder":
        root.mkdir()
    with pytest.raises(DatasetError) as caught:
        editions.open_dataset("artchive", None, root)
    message = str(caught.value)
    assert f"{what}; artchive expects there exemplar/artchive/images/{{artist}}/*.jpg" in message
    assert "\n" not in message


def test_a_missing_mini_edition_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(editions, "files", lambda package: tmp_path)
    with pytest.raises(DatasetError, match="no mini edition at .*--data-root .dataset.json"):
        editions.open_dataset("customconcept101")


def test_a_plugin_may_bring_its_own_mini_edition(artchive_root, tmp_path):
    from attribench import plugins

    file = tmp_path / "stranger.py"
    file.write_text(STRANGER.format(root=str(artchive_root)))
    (plugin,) = plugins.add_file(file)
    dataset = editions.open_dataset(plugin)
    assert (dataset.edition, dataset.name, len(dataset.concepts)) == ("mini", "stranger", 6)


def test_a_plugin_that_raises_is_one_line(artchive_root):
    class Broken(Artchive):
        """Raises."""

        def __init__(self, root: Path, edition) -> None:
            raise KeyError("two\nlines")

    with pytest.raises(DatasetError) as caught:
        editions.open_dataset(Plugin("dataset", "broken", "file x.py", Broken), None, artchive_root)
    assert "'broken' (file x.py) raised KeyError" in str(caught.value) and "\n" not in str(caught.value)


def ids(dataset: ConceptDataset, concept: str) -> list[str]:
    return [image.id for image in dataset.images(concept)]


def test_a_fingerprint_follows_the_bytes_and_nothing_else(artchive_root, tmp_path, picture):
    dataset = Artchive(artchive_root, "paper")
    before = fingerprint(dataset, ids(dataset, "hokusai"))
    assert before == fingerprint(dataset, reversed(ids(dataset, "hokusai")))
    assert before != fingerprint(dataset, ids(dataset, "paul_klee"))
    moved = Artchive(artchive_root.rename(tmp_path / "elsewhere"), "paper")
    assert before == fingerprint(moved, ids(moved, "hokusai"))
    picture(moved.root / "hokusai" / "1.jpg", 999)
    assert before != fingerprint(moved, ids(moved, "hokusai"))


def test_a_fingerprint_of_a_missing_file_is_an_error(artchive_root):
    dataset = Artchive(artchive_root, "paper")
    (dataset.root / "hokusai" / "1.jpg").unlink()
    with pytest.raises(DatasetError, match="hokusai/1.jpg: is missing"):
        fingerprint(dataset, ids(dataset, "hokusai"))


def test_damaged_pictures_are_told_together(artchive_root):
    dataset = Artchive(artchive_root, "paper")
    wanted = [*ids(dataset, "hokusai"), *ids(dataset, "paul_klee")]
    heard = []
    require_readable(dataset, wanted, heard.append)
    assert heard == sorted(wanted)
    (dataset.root / "hokusai" / "1.jpg").write_bytes(b"no picture")
    (dataset.root / "paul_klee" / "0.jpg").unlink()
    require_readable(dataset, ids(dataset, "claude_monet"))
    with pytest.raises(DatasetError) as caught:
        require_readable(dataset, wanted)
    message = str(caught.value)
    assert message.startswith("hokusai/1.jpg: cannot be decoded") and message.endswith(" (and 1 more of 6: paul_klee/0.jpg)")


def test_an_adapter_that_raises_something_else_is_one_line(artchive_root, monkeypatch):
    def load(self, image_id):
        raise KeyError("two\nlines")

    monkeypatch.setattr(Artchive, "load", load)
    dataset = Artchive(artchive_root, "paper")
    with pytest.raises(DatasetError, match="hokusai/0.jpg: artchive raised KeyError") as caught:
        require_readable(dataset, ids(dataset, "hokusai")[:1])
    assert "\n" not in str(caught.value)
