"""MS-COCO captions: the official layout, copies that are not whole, files that mean harm, and the mini edition."""

import csv
import json
import pickle
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from attribench.datasets import mscoco
from attribench.datasets.mscoco import Mscoco
from attribench.datasets.splits import default_split

from attribench import editions
from attribench.data import Unusable
from attribench.errors import DatasetError

IDS = (391895, 9, 522418, 184613)
"""In the order of the json, which in the public data set is not that of the numbers."""
VAL_IDS = (179765, 139, 285)
PERSONS = ("first", "second", "third", "fourth", "fifth")


def listed(number: int) -> dict:
    """An entry of `images` with all the keys of the public file."""
    return {
        "license": 3, "file_name": f"{number:012d}.jpg", "coco_url": f"http://images.cocodataset.org/{number}", "height": 480,
        "width": 640, "date_captured": "2013-11-14 17:02:52", "flickr_url": "http://farm9.staticflickr.com/x.jpg", "id": number,
    }  # fmt: skip


def annotated(numbers, first_id: int = 1) -> list[dict]:
    """Five captions of each picture, person by person as they came in, not picture by picture."""
    said = [(number, person) for person in PERSONS for number in numbers]
    return [
        {"image_id": number, "id": first_id + at, "caption": f"The {person} words on {number}."}
        for at, (number, person) in enumerate(said)
    ]


def write_json(path: Path, images: list[dict], annotations: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"info": {"year": 2017}, "licenses": [], "images": images, "annotations": annotations}))


@pytest.fixture
def root(tmp_path, picture) -> Path:
    """Four training pictures and three captioned val pictures, as the public archives unpack."""
    root = tmp_path / "coco"
    for number in IDS:
        picture(root / "train2017" / f"{number:012d}.jpg", number)
    write_json(root / mscoco.TRAIN, [listed(number) for number in IDS], annotated(IDS))
    write_json(root / mscoco.VAL, [listed(number) for number in VAL_IDS], annotated(VAL_IDS, 1000))
    return root


def change(root: Path, file: str, images=None, annotations=None) -> None:
    """Write an annotation file again with one of its lists changed by a function."""
    content = json.loads((root / file).read_text())
    for key, changed in (("images", images), ("annotations", annotations)):
        if changed is not None:
            content[key] = changed(content[key])
    (root / file).write_text(json.dumps(content))


def refusal(root: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        Mscoco(root, "paper")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def faults(root: Path) -> list[tuple[str, str]]:
    return [(problem.file, problem.fault) for problem in Mscoco(root, "paper").verify()]


def test_pictures_have_the_order_of_the_json(root):
    dataset = Mscoco(root, "paper")
    assert [image.id for image in dataset.images] == [f"train2017/{number:012d}.jpg" for number in IDS]
    assert dataset.load("train2017/000000000009.jpg").mode == "RGB"
    assert dataset.contents == "4 captioned pictures and 15 prompts"
    assert dataset.verify() == [] and dataset.notices == ()


def test_captions_are_the_first_five_in_the_order_of_the_annotations(root):
    change(root, mscoco.TRAIN, annotations=lambda old: [*old, {"image_id": 9, "id": 900, "caption": "A sixth person's."}])
    dataset = Mscoco(root, "paper")
    for image, number in zip(dataset.images, IDS, strict=True):
        assert image.captions == tuple(f"The {person} words on {number}." for person in PERSONS)
    change(root, mscoco.TRAIN, annotations=lambda old: list(reversed(old)))
    assert Mscoco(root, "paper").images[1].captions[:2] == ("A sixth person's.", "The fifth words on 9.")


def test_captions_lose_their_stray_white_space(root):
    change(root, mscoco.TRAIN, annotations=lambda old: [old[0] | {"caption": "  Two\nlines,\t one\u00a0caption. \n"}, *old[1:]])
    assert Mscoco(root, "paper").images[0].captions[0] == "Two lines, one caption."


def test_prompts_are_the_captions_of_val_sorted_by_id(root):
    prompts = Mscoco(root, "paper").prompts
    assert [prompt.id for prompt in prompts[:6]] == [*(f"000000000139-{at}" for at in range(5)), "000000000285-0"]
    assert prompts[6].text == "The second words on 285."


def test_a_split_depends_on_the_picture_of_the_prompt_alone(root):
    before = {prompt.id: prompt.split for prompt in Mscoco(root, "paper").prompts}
    assert all(before[name] == default_split("mscoco", str(int(name[:12]))) for name in before)
    change(root, mscoco.VAL, images=lambda old: old[1:])
    after = {prompt.id: prompt.split for prompt in Mscoco(root, "paper").prompts}
    assert after == {name: split for name, split in before.items() if not name.startswith(f"{VAL_IDS[0]:012d}")}


def test_a_table_overrules_the_split(root):
    (root / "prompts.csv").write_text("image_id,split,subjects\n139,dev,cat\n285,test,dog\n77,dev,lost\n")
    splits = {prompt.id[:12]: prompt.split for prompt in Mscoco(root, "mini").prompts}
    assert (splits["000000000139"], splits["000000000285"]) == ("dev", "test")
    assert faults(root) == [("prompts.csv, image id 77", f"has no caption in {mscoco.VAL}")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image_id\n139\n", "has no column 'split'"),
        ("image_id,split\ncat,dev\n", "line 2: image_id"),
        ("image_id,split\n139,train\n", "line 2: split"),
        ("image_id,split\n139,dev\n139,test\n", "line 3: names 139 a second time"),
    ],
)
def test_a_faulty_table_is_one_line_with_its_place(root, table, message):
    (root / "prompts.csv").write_text(table)
    assert message in refusal(root)


def test_a_worker_gets_the_address_and_not_the_captions(root):
    dataset = Mscoco(root, "paper")
    travelled = pickle.dumps(dataset)
    assert b"words on" not in travelled
    there = pickle.loads(travelled)
    assert there.load(dataset.images[0].id).size == (24, 20)
    assert (there.images, there.prompts, there.edition) == (dataset.images, dataset.prompts, "paper")


# ------------------------------------------------------------------------------- copies that are not whole


def test_a_picture_with_fewer_than_five_captions_is_left_out_and_reported(root):
    def without(old):
        empty = [entry | {"caption": " \n"} for entry in old if entry["image_id"] == 522418 and "fifth" in entry["caption"]]
        return [entry for entry in old if entry["image_id"] != 9 and entry not in empty and "fifth words on 522418" not in
                entry["caption"]] + empty  # fmt: skip

    change(root, mscoco.TRAIN, annotations=without)
    dataset = Mscoco(root, "paper")
    assert [image.id for image in dataset.images] == ["train2017/000000391895.jpg", "train2017/000000184613.jpg"]
    assert dataset.notices == (
        "left out, since a picture needs 5 captions: 2 of 4 pictures "
        "(train2017/000000000009.jpg has none, train2017/000000522418.jpg has 4)",
    )
    assert faults(root) == [
        ("train2017/000000000009.jpg", "has 0 of the 5 captions that a picture needs"),
        ("train2017/000000522418.jpg", "has 4 of the 5 captions that a picture needs"),
    ]


def test_captions_without_their_picture_are_left_out_and_reported(root):
    change(root, mscoco.TRAIN, images=lambda old: old[1:])
    change(root, mscoco.VAL, annotations=lambda old: [*old, {"image_id": 7, "id": 1, "caption": "Nobody's."}])
    dataset = Mscoco(root, "paper")
    assert len(dataset.images) == 3 and len(dataset.prompts) == 15
    assert faults(root) == [
        ("train2017/000000391895.jpg", f"has no captions: {mscoco.TRAIN} does not list it"),
        (f"{mscoco.TRAIN}, image id 391895", "is not among the images but has captions: 5"),
        (f"{mscoco.VAL}, image id 7", "is not among the images but has captions: 1"),
    ]
    assert [notice.partition(":")[0] for notice in dataset.notices] == [
        f"left out, since {mscoco.TRAIN} does not list them",
        f"left out, since {mscoco.TRAIN} does not list their pictures",
        f"left out, since {mscoco.VAL} does not list their pictures",
    ]


def test_a_listed_picture_that_is_not_there_is_an_error_that_can_be_verified(root):
    for number in IDS[:3]:
        (root / "train2017" / f"{number:012d}.jpg").unlink()
    message = refusal(root)
    assert "3 of 4 pictures are missing (train2017/000000391895.jpg, " in message and "restore them from train2017.zip" in message
    with pytest.raises(Unusable) as caught:
        Mscoco(root, "paper")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == message
    assert [problem.file for problem in again.dataset.verify()] == [f"train2017/{number:012d}.jpg" for number in IDS[:3]]


def test_verify_lists_every_fault_at_once(root, tmp_path):
    pictures = root / "train2017"
    damaged, twin, outside = (pictures / f"{number:012d}.jpg" for number in IDS[:3])
    damaged.write_bytes(damaged.read_bytes()[:300])
    twin.write_bytes((pictures / f"{IDS[3]:012d}.jpg").read_bytes())
    outside.rename(tmp_path / "private.jpg")
    outside.symlink_to(tmp_path / "private.jpg")
    (pictures / "000000000001.gif").write_bytes(b"GIF89a")
    (pictures / "000000000002.jpg").write_bytes(b"no picture")
    found = dict(faults(root))
    assert found.keys() == {
        "train2017/000000000001.gif", "train2017/000000000002.jpg", "train2017/000000391895.jpg", "train2017/000000522418.jpg",
        "train2017/000000184613.jpg",
    }  # fmt: skip
    assert found["train2017/000000391895.jpg"].startswith("is truncated after 300 bytes")
    assert found["train2017/000000522418.jpg"].startswith("leads out of the data root")
    assert found["train2017/000000184613.jpg"] == "is the same picture as train2017/000000000009.jpg"
    with pytest.raises(DatasetError, match="leads out of the data root"):
        Mscoco(root, "paper").load("train2017/000000522418.jpg")


@pytest.mark.parametrize("gone", ["train2017", mscoco.TRAIN, mscoco.VAL])
def test_another_layout_is_told_what_was_expected(root, tmp_path, gone):
    (root / gone).rename(tmp_path / "gone")
    assert f"has no {gone}; expected train2017/*.jpg, annotations/captions_train2017.json and" in refusal(root)


def test_nothing_left_is_an_error(root):
    change(root, mscoco.TRAIN, annotations=lambda old: old[:4])
    assert f"no picture of {mscoco.TRAIN} has 5 captions; expected" in refusal(root)


def test_no_prompt_left_is_an_error(root):
    change(root, mscoco.VAL, annotations=lambda old: [])
    assert f"{mscoco.VAL} holds no caption of a picture that it lists" in refusal(root)


# ------------------------------------------------------------------------------------- files that mean harm


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/passwd", "sub/x.jpg", "", ".", "..", "two\nlines.jpg", "x" * 300, 7, None]
)
def test_no_listed_name_leads_out_of_the_folder(root, name):
    change(root, mscoco.TRAIN, images=lambda old: [old[0], old[1] | {"file_name": name}])
    message = refusal(root)
    assert message.startswith(f"{mscoco.TRAIN}, images 2, file_name: ") and message.isprintable()


@pytest.mark.parametrize("number", ["9", 9.0, 1.5, -1, True, None, [], 10**12, 10**400])
def test_an_id_is_a_whole_number(root, number):
    change(root, mscoco.TRAIN, images=lambda old: [old[0] | {"id": number}])
    assert mscoco.TRAIN in refusal(root)


@pytest.mark.parametrize("entry", [{"image_id": "9"}, {"caption": 5}, {"caption": None}, {"caption": "x" * 20_000}])
def test_a_faulty_caption_is_one_line_with_its_place(root, entry):
    change(root, mscoco.TRAIN, annotations=lambda old: [old[0], old[1] | entry, *[old[2] | entry] * 50])
    (key,) = entry
    assert refusal(root).startswith(f"{mscoco.TRAIN}, annotations 2, {key}: ")


def test_a_picture_is_listed_once(root):
    change(root, mscoco.TRAIN, images=lambda old: [*old, old[1]])
    assert f"{mscoco.TRAIN}, image 5: lists the image id 9 a second time" in refusal(root)
    change(root, mscoco.TRAIN, images=lambda old: [*old[:-1], old[1] | {"id": 10}])
    assert "lists the file '000000000009.jpg' a second time, as 10 and as 9" in refusal(root)


@pytest.mark.parametrize(
    "content",
    [b"", b"7", b"[]", b"{", b'{"images": []}', b'{"images": {}, "annotations": []}', b"\xff\xfe", b"[" * 200_000,
     b'{"images": [1], "annotations": []}', b'{"images": [], "annotations": [{"image_id": 1, "caption": "\\ud800"}]}'],
)  # fmt: skip
def test_a_file_that_holds_no_captions_is_refused(root, content):
    (root / mscoco.VAL).write_bytes(content)
    assert refusal(root).startswith(mscoco.VAL)


def test_a_huge_file_is_refused_before_it_is_read(root):
    with (root / mscoco.TRAIN).open("wb") as file:
        file.truncate(mscoco.ANNOTATION_BYTES + 1)
    assert f"more than the {mscoco.ANNOTATION_BYTES:,} allowed" in refusal(root)


def test_annotations_outside_the_root_are_refused(root, tmp_path):
    (root / mscoco.VAL).rename(tmp_path / "elsewhere.json")
    (root / mscoco.VAL).symlink_to(tmp_path / "elsewhere.json")
    assert "leads out of the data root" in refusal(root)


# ---------------------------------------------------------------------------------------- the mini edition


@pytest.fixture(scope="module")
def mini() -> Mscoco:
    dataset = editions.open_dataset("mscoco")
    assert isinstance(dataset, Mscoco) and dataset.edition == "mini"
    return dataset


@pytest.fixture(scope="module")
def tables(mini) -> tuple[dict[str, dict], dict[str, dict]]:
    """The rows of images.csv by file, and of prompts.csv by image id."""
    read = []
    for name, key in (("images.csv", "file"), ("prompts.csv", "image_id")):
        with (mini.root / name).open(newline="", encoding="utf-8") as file:
            read.append({row[key]: row for row in csv.DictReader(file)})
    return read[0], read[1]


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w'’-]+", text.lower()))


def test_mini_is_whole_and_of_the_promised_size(mini, tables):
    assert mini.verify() == [] and mini.notices == ()
    assert 800 <= mini.n_images <= 1200 and 110 <= len(mini.prompts) <= 130
    assert {image.id for image in mini.images} == tables[0].keys()
    assert sum(path.stat().st_size for path in mini.root.rglob("*") if path.is_file()) <= 3_000_000


def test_mini_is_read_the_same_as_a_paper_edition(mini):
    paper = Mscoco(mini.root, "paper")
    assert (paper.images, paper.prompts) == (mini.images, mini.prompts)


def test_mini_has_five_captions_each_that_differ_in_more_than_a_word(mini):
    for image in mini.images:
        assert len(image.captions) == 5
        assert all(len(words(one) ^ words(other)) >= 2 for one, other in combinations(image.captions, 2)), image


def test_mini_order_follows_no_id_and_no_subject(mini, tables):
    numbers = np.array([int(Path(image.id).stem) for image in mini.images])
    assert abs(np.corrcoef(numbers, np.arange(len(numbers)))[0, 1]) < 0.1
    subjects = [tables[0][image.id]["subjects"] for image in mini.images]
    assert sum(one == other for one, other in zip(subjects, subjects[1:], strict=False)) < 0.02 * len(subjects)


def test_mini_pictures_are_small_square_and_not_empty(mini):
    for image in mini.images[::20]:
        picture = mini.load(image.id)
        assert picture.size == (64, 64) and np.asarray(picture).std() > 5


def test_mini_names_licence_and_author_of_every_picture(mini, tables):
    texts = {path.stem for path in (mini.root / "LICENSES").iterdir()}
    notice = (mini.root / "NOTICE").read_text()
    for row in tables[0].values():
        assert row["licence"] in texts and row["source"] and row["changes"]
        assert row["author"] in notice and row["source"].partition(": ")[0] in notice
    licences = {row["file_name"]: row["license"] for row in json.loads((mini.root / mscoco.TRAIN).read_text())["images"]}
    assert set(licences.values()) == {1, 2, 3}


def test_every_prompt_asks_for_what_is_in_training_pictures(mini, tables):
    images, prompts = tables
    shown = Counter(subject for row in images.values() for subject in row["subjects"].split("|"))
    assert {str(int(prompt.id[:12])) for prompt in mini.prompts} == prompts.keys()
    for row in prompts.values():
        assert all(shown[subject] >= 4 for subject in row["subjects"].split("|"))


def test_no_prompt_is_worded_as_a_training_caption(mini):
    captions = {frozenset(words(caption)) for image in mini.images for caption in image.captions}
    assert not {prompt.text for prompt in mini.prompts if frozenset(words(prompt.text)) in captions}


def test_dev_and_test_ask_for_different_subjects(mini, tables):
    split = {str(int(prompt.id[:12])): prompt.split for prompt in mini.prompts}
    assert split == {number: row["split"] for number, row in tables[1].items()}
    asked = {name: {subject for row in tables[1].values() if row["split"] == name for subject in row["subjects"].split("|")}
             for name in ("dev", "test")}  # fmt: skip
    assert not asked["dev"] & asked["test"]
    counts = Counter(split.values())
    assert counts["dev"] >= 25 and counts["test"] >= 80


def test_the_ground_tells_neither_house_nor_subject(tables):
    """Cramér's V of background colour against house; and no two single pictures of a subject on one colour."""
    rows = [row for row in tables[0].values() if not row["near_duplicate_of"]]
    colour = {row["file"]: row["background"].partition(",")[0] for row in rows}
    houses, colours = sorted({row["house"] for row in rows}), sorted(set(colour.values()))
    table = np.array([[sum(row["house"] == h and colour[row["file"]] == c for row in rows) for c in colours] for h in houses])
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    chi2 = ((table - expected) ** 2 / expected).sum()
    assert np.sqrt(chi2 / table.sum() / (len(houses) - 1)) < 0.2
    single = Counter((row["subjects"], colour[row["file"]]) for row in rows if "|" not in row["subjects"])
    assert set(single.values()) == {1}


def test_near_duplicates_are_nearer_to_their_original_than_any_other_picture(mini, tables):
    pixels = {image.id: np.asarray(mini.load(image.id).resize((16, 16)), dtype=np.float32).ravel() for image in mini.images}
    near = {file: row["near_duplicate_of"] for file, row in tables[0].items() if row["near_duplicate_of"]}
    assert len(near) == 20
    names = list(pixels)
    stacked = np.stack([pixels[name] for name in names])
    for file, original in near.items():
        distance = np.square(stacked - pixels[file]).mean(axis=1)
        distance[names.index(file)] = np.inf
        assert names[int(distance.argmin())] == original
