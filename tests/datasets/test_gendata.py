"""GenDataAttribution: models by list, exemplars, what was made, distractors; and what a damaged copy is told."""

import json
from pathlib import Path

import pytest
from attribench.datasets.gendata import STYLE_PROMPT, GenDataAttribution
from attribench.datasets.laion import Laion

from attribench import editions
from attribench.data import Unusable
from attribench.errors import DatasetError

STYLES = {"monet": 3, "klee": 12}
OBJECTS = {"n01518878_0008": "bird", "n01697457_0008": "crocodile"}


def model(root: Path, picture, part: str, class_id: str, n_exemplars: int, families: tuple[str, str], category=None) -> dict:
    """Write one model's pictures; its entry as the public lists have it."""
    seed = sum(map(ord, part + class_id)) * 100
    exemplars = [f"dataset/exemplar/{part}/images/{class_id}/{i}.jpg" for i in range(n_exemplars)]
    synth = {f: [f"dataset/synth/{part}/{f}/{class_id}/samples/{i:05d}.png" for i in range(3)] for f in families}
    for number, path in enumerate([*exemplars, *sum(synth.values(), [])]):
        picture(root / path, seed + number)
    return {"exemplar": exemplars, "synth": synth, "class_id": class_id, "category": category}


@pytest.fixture
def repository(tmp_path, picture) -> Path:
    """The authors' repository with their data in `dataset/`."""
    styles = [model(tmp_path, picture, "artchive", name, n, ("gpt", "object")) for name, n in STYLES.items()]
    objects = [model(tmp_path, picture, "imagenet", name, 1, ("media", "gpt"), word) for name, word in OBJECTS.items()]
    groups = [model(tmp_path, picture, "bamfg", "101549_0", 4, ("gpt", "object"))]
    for split, case, entries in (("test", "artchive", styles), ("test", "observed_imagenet", objects), ("train", "all", groups)):
        write_list(tmp_path, f"{split}_{case}", entries)
    for number in range(5):
        picture(tmp_path / "dataset" / "laion_subset" / f"{number:08d}.png", 90_000 + number)
    return tmp_path


def write_list(root: Path, name: str, entries: object) -> None:
    path = root / "dataset" / "json" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))


def read_list(root: Path, name: str) -> list[dict]:
    return json.loads((root / "dataset" / "json" / f"{name}.json").read_text())


def test_models_are_those_of_the_lists(repository):
    dataset = GenDataAttribution(repository, "paper")
    test = dataset.models("test")
    assert [of.id for of in test] == ["artchive/monet", "artchive/klee", *(f"imagenet/{name}" for name in OBJECTS)]
    assert [of.case for of in test] == ["artchive"] * 2 + ["observed_imagenet"] * 2
    assert [of.id for of in dataset.models("train")] == ["bamfg/101549_0"] and dataset.models("val") == ()
    monet, bird = test[0], test[2]
    assert [image.id for image in monet.exemplars] == [f"exemplar/artchive/images/monet/{i}.jpg" for i in range(3)]
    assert {family: len(made) for family, made in monet.pictures.items()} == {"gpt": 3, "object": 3}
    assert (monet.category, monet.class_word, monet.prompt) == (None, "art", STYLE_PROMPT)
    assert (bird.category, bird.class_word, bird.prompt) == ("bird", "bird", "<new1> bird")
    assert bird.pictures["media"][0].id == "synth/imagenet/media/n01518878_0008/samples/00000.png"
    assert [image.id for image in dataset.distractors] == [f"laion_subset/{i:08d}.png" for i in range(5)]
    assert dataset.load(monet.exemplars[0].id).mode == "RGB"
    assert dataset.verify() == [] and dataset.notices == ()
    assert dataset.contents == "56 pictures of 5 models (1 train, 0 val, 4 test) with 5 distractors"


def test_every_root_gives_the_same(repository):
    above, itself = GenDataAttribution(repository, "paper"), GenDataAttribution(repository / "dataset", "paper")
    assert above.models("test") == itself.models("test") and above.distractors == itself.distractors


def test_prompts_and_captions_are_taken_where_they_are_known(repository):
    known = "synth/artchive/gpt/monet/samples/00001.png"
    prompts = {f"dataset/{known}": " The wind in the style of <new1> art\n"}
    (repository / "dataset" / "path_to_prompts.json").write_text(json.dumps(prompts))
    (repository / "dataset" / "images.csv").write_text("file,caption\nlaion_subset/00000002.png,a red car\n")
    dataset = GenDataAttribution(repository, "paper")
    assert [picture.prompt for picture in dataset.models("test")[0].pictures["gpt"]] == [
        None, "The wind in the style of <new1> art", None,
    ]  # fmt: skip
    assert [image.caption for image in dataset.distractors] == ["", "", "a red car", "", ""]
    (repository / "dataset" / "path_to_prompts.json").write_text('{"synth/artchive/gpt": ["one", "two"]}')
    (notice,) = GenDataAttribution(repository, "paper").notices
    assert "path_to_prompts.json is not a table of prompts" in notice


def test_a_model_without_one_of_its_exemplars_is_left_out_and_told(repository):
    lost = "exemplar/artchive/images/klee/7.jpg"
    (repository / "dataset" / lost).unlink()
    dataset = GenDataAttribution(repository, "paper")
    assert "artchive/klee" not in [of.id for of in dataset.models("test")]
    (notice,) = dataset.notices
    assert notice.startswith("1 of 4 test models are left out")
    (problem,) = dataset.verify()
    assert problem.file == lost and "the test model klee was customized on it" in problem.fault


def test_a_missing_picture_is_left_out_alone_and_a_model_without_any_as_a_whole(repository):
    folder = repository / "dataset" / "synth" / "artchive" / "gpt" / "monet" / "samples"
    (folder / "00000.png").unlink()
    dataset = GenDataAttribution(repository, "paper")
    assert [len(made) for made in dataset.models("test")[0].pictures.values()] == [2, 3] and dataset.notices == ()
    assert [problem.file for problem in dataset.verify()] == ["synth/artchive/gpt/monet/samples/00000.png"]
    for path in (repository / "dataset" / "synth" / "bamfg").rglob("*.png"):
        path.unlink()
    dataset = GenDataAttribution(repository, "paper")
    assert dataset.models("train") == () and "1 of 1 train models are left out" in dataset.notices[0]


def test_without_distractors_it_says_so(repository):
    (repository / "dataset" / "laion_subset").rename(repository / "elsewhere")
    assert "no laion_subset" in GenDataAttribution(repository, "paper").notices[0]


def test_damaged_and_doubled_pictures_are_found(repository):
    (repository / "dataset" / "laion_subset" / "00000003.png").write_bytes(b"no picture")
    exemplar = repository / "dataset" / "exemplar" / "artchive" / "images" / "monet" / "0.jpg"
    exemplar.with_name("1.jpg").write_bytes(exemplar.read_bytes())
    faults = {problem.file: problem.fault for problem in GenDataAttribution(repository, "paper").verify()}
    assert "cannot be decoded" in faults["laion_subset/00000003.png"]
    assert "is the same picture" in faults["exemplar/artchive/images/monet/1.jpg"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "test_artchive.json"),
        ("{}", "test_artchive.json: Input should be a valid array"),
        ('[{"exemplar": [], "synth": {}, "class_id": "a"}]', "test_artchive.json, entry 1, exemplar"),
        ('[{"exemplar": ["a"], "synth": {"gpt": "b"}, "class_id": "a"}]', "entry 1, synth, gpt"),
        ('[{"exemplar": ["a"], "synth": {}}]', "entry 1, class_id"),
        ('[{"exemplar": ["a"], "synth": {}, "class_id": "../../a"}]', "class_id: cannot be part of a file's name"),
        ('[{"exemplar": ["a"], "synth": {"g\\u0000": []}, "class_id": "a"}]', "cannot be part of a file's name"),
        ("[" * 100_000, "test_artchive.json"),
    ],
)
def test_a_list_that_is_not_in_the_layout_is_one_line(repository, text, says):
    write_list(repository, "test_artchive", text)
    with pytest.raises(DatasetError, match=says) as caught:
        GenDataAttribution(repository, "paper")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../outside.jpg", "dataset/../../outside.jpg", "a\x00b", "x" * 900, "exemplar//a.jpg"]
)
def test_no_path_leaves_the_root(repository, picture, path):
    picture(repository.parent / "outside.jpg", 5)
    entries = read_list(repository, "test_artchive")
    entries[0]["exemplar"] = [path]
    write_list(repository, "test_artchive", entries)
    dataset = GenDataAttribution(repository, "paper")
    assert [of.id for of in dataset.models("test")][:1] == ["artchive/klee"]
    assert len(dataset.verify()) == 1


def test_a_folder_of_exemplars_that_is_a_link_to_outside_is_not_followed(repository, tmp_path_factory, picture):
    outside = tmp_path_factory.mktemp("outside")
    picture(outside / "0.jpg", 5)
    folder = repository / "dataset" / "exemplar" / "imagenet" / "images" / "n01518878_0008"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.symlink_to(outside)
    assert "imagenet/n01518878_0008" not in [of.id for of in GenDataAttribution(repository, "paper").models("test")]


def test_a_model_may_stand_in_two_lists_but_not_with_other_exemplars(repository):
    before = GenDataAttribution(repository, "paper").models("test")
    entries = read_list(repository, "test_artchive")
    write_list(repository, "test_styles", entries)  # as train_all beside the lists that it joins
    assert GenDataAttribution(repository, "paper").models("test") == before
    entries[0]["exemplar"] = entries[0]["exemplar"][:2]
    write_list(repository, "test_styles", entries)
    with pytest.raises(DatasetError, match="lists artchive/monet a second time in this split, with other exemplars"):
        GenDataAttribution(repository, "paper")


def test_a_root_without_a_test_model_says_what_is_expected(tmp_path):
    (tmp_path / "json").mkdir()
    with pytest.raises(Unusable, match="found no test model .*json: no list.*test_\\*.json"):
        GenDataAttribution(tmp_path, "paper")


# ------------------------------------------------------------------------------------------ laion


def test_laion_is_a_folder_of_pictures(repository, tmp_path_factory):
    from_subset = Laion(repository / "dataset", "paper")
    assert [image.id for image in from_subset.images] == [f"laion_subset/{i:08d}.png" for i in range(5)]
    assert from_subset.verify() == [] and from_subset.contents == "5 distractors"
    plain = Laion(repository / "dataset" / "laion_subset", "paper")
    assert [image.id for image in plain.images] == [f"{i:08d}.png" for i in range(5)]
    with pytest.raises(Unusable, match="holds no picture"):
        Laion(tmp_path_factory.mktemp("empty"), "paper")


# --------------------------------------------------------------------------------- the mini edition


@pytest.fixture(scope="module")
def mini():
    return editions.open_dataset("gendata")


def test_the_mini_edition_has_no_fault_and_every_prompt(mini):
    assert [str(problem) for problem in mini.verify()] == [] and mini.notices == ()
    for split in ("train", "val", "test"):
        for of in mini.models(split):
            assert all(made.prompt.count("<new1>") == 1 for pictures in of.pictures.values() for made in pictures)
            assert {len(pictures) for pictures in of.pictures.values()} == {4} and len(of.pictures) == 2
    assert all(image.caption for image in mini.distractors)


def test_it_holds_enough_models_of_every_list(mini):
    counts = {split: len(mini.models(split)) for split in ("train", "val", "test")}
    assert counts["train"] >= 24 and counts["val"] >= 4 and counts["test"] >= 12
    assert len({of.case for of in mini.models("test")}) == 4 and len(mini.distractors) >= 300
    sizes = {len(of.exemplars) for of in mini.models("test")}
    assert 1 in sizes and max(sizes) > 5  # single exemplars, and sets with which recall@5 cannot reach 1


def test_what_is_reported_on_shares_no_picture_with_what_is_learned_from_or_with_the_distractors(mini):
    pixels = {
        name: {mini.load(image_id).tobytes() for image_id in ids}
        for name, ids in {
            "learned": [image.id for split in ("train", "val") for of in mini.models(split) for image in of.exemplars],
            "reported": [image.id for of in mini.models("test") for image in of.exemplars],
            "distractors": [image.id for image in mini.distractors],
        }.items()
    }
    assert not pixels["learned"] & pixels["reported"] and not pixels["distractors"] & (pixels["learned"] | pixels["reported"])


def test_seen_classes_are_those_of_the_train_list(mini):
    learned = {of.category for split in ("train", "val") for of in mini.models(split)}
    seen = {of.category for of in mini.models("test") if of.case == "observed_imagenet"}
    new = {of.category for of in mini.models("test") if of.case == "unobserved_imagenet"}
    assert seen <= learned and not new & learned


def test_it_is_small(mini):
    assert sum(file.stat().st_size for file in mini.root.rglob("*") if file.is_file()) <= 2.5e6
