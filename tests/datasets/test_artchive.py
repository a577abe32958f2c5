"""Artchive: one folder of pictures per artist, wherever that tree lies."""

import os
from pathlib import Path

import pytest
from attribench.datasets.artchive import Artchive, readable_artist

from attribench.errors import DatasetError


def tree(root: Path) -> Path:
    return root / "exemplar" / "artchive" / "images"


def test_concepts_and_images_are_sorted_and_labelled(artchive_root):
    dataset = Artchive(artchive_root, "paper")
    names = [concept.name for concept in dataset.concepts]
    assert names == sorted(names) and len(names) == 6
    assert [image.id for image in dataset.images("hokusai")] == ["hokusai/0.jpg", "hokusai/1.jpg", "hokusai/2.jpg"]
    assert {image.concept for image in dataset.images("hokusai")} == {"hokusai"}
    assert dataset.load("hokusai/0.jpg").mode == "RGB"
    assert dataset.verify() == []


def test_without_tables_the_documented_defaults_hold(artchive_root):
    dataset = Artchive(artchive_root, "paper")
    van_eyck = next(concept for concept in dataset.concepts if concept.name == "jan_van_eyck")
    assert van_eyck.class_word == "Jan van Eyck"
    assert van_eyck.prompt.format(modifier="<new1>") == "picture in the style of <new1> art"
    assert van_eyck.phrase.format(modifier="<new1>") == "<new1> art"
    assert dataset.images("hokusai")[0].caption == "a painting"
    assert {concept.split for concept in dataset.concepts} <= {"dev", "test"}


def test_tables_overrule_the_defaults(artchive_root):
    (artchive_root / "concepts.csv").write_text("concept,class_word,split,artist\nhokusai,prints,dev,Katsushika Hokusai\n")
    (artchive_root / "images.csv").write_text(
        'file,concept,caption,source\nexemplar/artchive/images/hokusai/1.jpg,hokusai,"a wave, seen from below",museum\n'
    )
    dataset = Artchive(artchive_root, "mini")
    hokusai = next(concept for concept in dataset.concepts if concept.name == "hokusai")
    assert (hokusai.class_word, hokusai.split) == ("Katsushika Hokusai", "dev")
    assert [image.caption for image in dataset.images("hokusai")] == ["a painting", "a wave, seen from below", "a painting"]


def test_ids_are_the_same_from_every_root(artchive_root, tmp_path):
    from_data_root = Artchive(artchive_root, "paper")
    artchive_root.rename(tmp_path / "renamed")
    from_tree = Artchive(tree(tmp_path / "renamed"), "paper")
    assert from_tree.concepts == from_data_root.concepts
    assert from_tree.images("hokusai") == from_data_root.images("hokusai")


def test_the_order_of_the_folder_changes_nothing(artchive_root, monkeypatch):
    forwards = Artchive(artchive_root, "paper")
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(real(self), reverse=True)))
    backwards = Artchive(artchive_root, "paper")
    assert backwards.concepts == forwards.concepts
    assert all(backwards.images(concept.name) == forwards.images(concept.name) for concept in forwards.concepts)


def test_a_split_depends_on_the_concept_alone(artchive_root, picture):
    before = {concept.name: concept.split for concept in Artchive(artchive_root, "paper").concepts}
    for number in range(2):
        picture(tree(artchive_root) / "aaa_new_artist" / f"{number}.jpg", 900 + number)
    after = {concept.name: concept.split for concept in Artchive(artchive_root, "paper").concepts}
    assert before.items() <= after.items()


def test_a_quarter_of_many_concepts_is_dev():
    from attribench.datasets.splits import default_split

    dev = sum(default_split("artchive", f"artist {number}") == "dev" for number in range(4000))
    assert 900 < dev < 1100


def test_thin_concepts_are_left_out_and_reported(artchive_root, picture):
    (tree(artchive_root) / "empty").mkdir()
    picture(tree(artchive_root) / "single" / "only.jpg", 500)
    dataset = Artchive(artchive_root, "paper")
    assert {"empty", "single"}.isdisjoint(concept.name for concept in dataset.concepts)
    assert [(problem.file, problem.fault[:12]) for problem in dataset.verify()] == [
        ("empty", "holds 0 of t"),
        ("single", "holds 1 of t"),
    ]
    with pytest.raises(DatasetError, match="no usable concept 'single'"):
        dataset.images("single")
    assert dataset.notices == ("left out, since a concept needs 2 pictures: 2 of 8 concepts (empty has none, single has 1)",)


def test_a_whole_copy_has_nothing_to_tell(artchive_root):
    assert Artchive(artchive_root, "paper").notices == ()


def test_fewer_than_five_concepts_are_an_error_that_says_what_was_found(artchive_root):
    for artist in ("hokusai", "paul_klee"):
        for file in (tree(artchive_root) / artist).iterdir():
            file.unlink()
    with pytest.raises(DatasetError) as caught:
        Artchive(artchive_root, "paper")
    message = str(caught.value)
    assert "found 4 concepts" in message and "claude_monet" in message and "hokusai holds 0" in message
    assert "exemplar/artchive/images/{artist}/*.jpg" in message and "\n" not in message


@pytest.mark.parametrize("name", ["<script>alert(1)", "édouard 日本", "a&b;$(x)", "[red]x", "{modifier}", "-rf"])
def test_any_readable_folder_name_is_a_concept(artchive_root, picture, name):
    for number in range(2):
        picture(tree(artchive_root) / name / f"{number}.jpg", 700 + number)
    dataset = Artchive(artchive_root, "paper")
    assert [image.id for image in dataset.images(name)] == [f"{name}/0.jpg", f"{name}/1.jpg"]
    assert dataset.verify() == []


@pytest.mark.parametrize("name", [b"bad\xff", b"two\nlines", b"esc\x1b[31m"])
def test_a_folder_name_that_cannot_be_printed_is_left_out(artchive_root, name):
    folder = tree(artchive_root) / os.fsdecode(name)
    folder.mkdir()
    dataset = Artchive(artchive_root, "paper")
    (problem,) = dataset.verify()
    assert len(dataset.concepts) == 6 and str(problem).isprintable() and "rename" in problem.remedy


def test_no_folder_is_read_outside_the_root(artchive_root, tmp_path, picture):
    for number in range(2):
        picture(tmp_path / "private" / f"{number}.jpg", 800 + number)
    (tree(artchive_root) / "linked").symlink_to(tmp_path / "private")
    dataset = Artchive(artchive_root, "paper")
    assert "linked" not in {concept.name for concept in dataset.concepts}
    assert "leads out of the data root" in dataset.verify()[0].fault


def test_no_tree_is_read_outside_the_root(artchive_root, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "exemplar").symlink_to(artchive_root / "exemplar")
    with pytest.raises(DatasetError, match="leads out of the data root"):
        Artchive(tmp_path / "root", "paper")


def test_verify_lists_every_fault_at_once(artchive_root, picture):
    images = tree(artchive_root)
    (images / "hokusai" / "0.jpg").write_bytes((images / "hokusai" / "0.jpg").read_bytes()[:300])
    (images / "paul_klee" / "9.jpg").write_bytes((images / "paul_klee" / "0.jpg").read_bytes())
    (images / "egon_schiele" / "scan.tif").write_bytes(b"II")
    picture(images / "single" / "only.jpg", 500).write_bytes(b"text")
    (artchive_root / "concepts.csv").write_text("concept,class_word,split\nlost,x,dev\nsingle,x,dev\n")
    (artchive_root / "images.csv").write_text("file,caption\nexemplar/artchive/images/lost/0.jpg,x\n../../etc/passwd,y\n")
    faulty = {problem.file for problem in Artchive(artchive_root, "paper").verify()}
    assert faulty == {
        "hokusai/0.jpg", "paul_klee/9.jpg", "egon_schiele/scan.tif", "single", "single/only.jpg",
        "lost", "lost/0.jpg", "../../etc/passwd",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        ("images.csv", "file,caption\nx.jpg,caf\xe9\n".encode("latin-1"), "images.csv: is not UTF-8 text"),
        ("images.csv", b"file,concept\n", "has no column 'caption'"),
        ("images.csv", b"", "has no column 'file'"),
        ("images.csv", b"file,caption\na,b,c\n", "line 2: has more fields"),
        ("images.csv", b"file,caption\na\n", "line 2: caption"),
        ("images.csv", b"file,caption\na,b\na,c\n", "line 3: names 'a' a second time"),
        ("concepts.csv", b"concept,split\nhokusai,train\n", "line 2: split"),
        ("concepts.csv", b'concept,split\n"hokusai,dev\n', "is not CSV"),
    ],
)
def test_a_faulty_table_is_one_line_with_its_place(artchive_root, table, content, message):
    (artchive_root / table).write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        Artchive(artchive_root, "paper")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "artist"),
    [("claude_monet", "Claude Monet"), ("vincent-van-gogh", "Vincent van Gogh"), ("Le Corbusier", "Le Corbusier"), ("mo", "Mo")],
)
def test_artists_are_named_as_people_write_them(folder, artist):
    assert readable_artist(folder) == artist


def test_the_monitoring_prompts_are_the_papers():
    assert len(Artchive.monitoring_templates) == 10
    assert all(template.count("{concept}") == 1 and template.isascii() for template in Artchive.monitoring_templates)
    assert Artchive.monitoring_templates[6] == "City's heartbeat in the style of {concept}."
