"""CustomConcept101: its index, its prompts, its compositions, and an index that means harm."""

import json
import pickle

import pytest
from attribench.datasets.customconcept101 import INDEX_BYTES, CustomConcept101

from attribench.data import Unusable
from attribench.errors import DatasetError


def refusal(root) -> str:
    with pytest.raises(DatasetError) as caught:
        CustomConcept101(root, "paper")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_concepts_come_from_the_index(customconcept_root):
    dataset = CustomConcept101(customconcept_root, "paper")
    assert [concept.name for concept in dataset.concepts][:2] == ["pet_cat1", "pet_cat2"]
    by_name = {concept.name: concept for concept in dataset.concepts}
    barn = by_name["scene_barn"]
    assert (barn.class_word, barn.prompt, barn.phrase) == ("barn", "photo of a {modifier} barn", "{modifier} barn")
    assert by_name["wearable_sunglasses2"].prompt == "photo of {modifier} sunglasses"
    assert by_name["plushie_dice"].phrase == "{modifier} dice plushie"
    assert dataset.images("scene_barn")[0].id == "benchmark_dataset/scene_barn/0.jpeg"
    assert dataset.images("scene_barn")[0].caption == "a barn"
    assert dataset.verify() == []


def test_the_repository_above_it_is_accepted_with_the_same_ids(customconcept_root, tmp_path):
    direct = CustomConcept101(customconcept_root, "paper")
    (tmp_path / "custom-diffusion").mkdir()
    customconcept_root.rename(tmp_path / "custom-diffusion" / "customconcept101")
    above = CustomConcept101(tmp_path / "custom-diffusion", "paper")
    assert above.images("pet_cat1") == direct.images("pet_cat1")
    assert above.load("benchmark_dataset/pet_cat1/0.jpeg").size == (24, 20)


def test_prompts_are_templates_like_the_monitored_ones(customconcept_root):
    dataset = CustomConcept101(customconcept_root, "paper")
    prompts = dataset.prompts("pet_cat1")
    assert len(prompts) == 20 and prompts[3] == "A {concept} in place 3."
    with pytest.raises(DatasetError, match="no usable concept 'pet_cat9'"):
        dataset.prompts("pet_cat9")


def test_compositions_pair_two_concepts(customconcept_root):
    (composition,) = CustomConcept101(customconcept_root, "paper").compositions()
    assert composition.concepts == ("pet_cat1", "pet_cat2")
    assert composition.templates == ("photo of {concept1} and {concept2}.", "{concept2} beside {concept1}, asleep.")


def test_a_composed_prompt_that_names_one_concept_is_left_out_and_reported(customconcept_root):
    """As the public scene_pet.txt: "A photo of {0} at dawn with {0} sleeping peacefully."."""
    (customconcept_root / "prompts" / "pet_pet.txt").write_text("{0} and {1}.\nA photo of {0} at dawn with {0} sleeping.\n")
    dataset = CustomConcept101(customconcept_root, "paper")
    assert dataset.compositions()[0].templates == ("{concept1} and {concept2}.",)
    (problem,) = dataset.verify()
    assert problem.file == "prompts/pet_pet.txt line 2"


@pytest.mark.parametrize(("kept", "count"), [(0, "none"), (1, "1")])
def test_a_listed_concept_with_no_or_one_picture_is_an_error(customconcept_root, kept, count):
    for file in sorted((customconcept_root / "benchmark_dataset" / "pet_cat2").iterdir())[kept:]:
        file.unlink()
    message = refusal(customconcept_root)
    assert f"fewer than 2 pictures for 1 of 6 concepts (pet_cat2 has {count}); restore" in message
    assert "take their entries out of dataset.json" in message


def test_all_listed_concepts_without_pictures_are_told_at_once(customconcept_root, entry):
    entries = json.loads((customconcept_root / "dataset.json").read_text())
    lost = [entries[0] | {"instance_data_dir": f"benchmark_dataset/lost{number}"} for number in range(8)]
    (customconcept_root / "dataset.json").write_text(json.dumps(entries + lost))
    message = refusal(customconcept_root)
    assert "8 of 14 concepts (lost0 has none, lost1 has none, lost2 has none, lost3 has none, lost4 has none, …)" in message


def test_what_was_refused_can_still_be_verified(customconcept_root):
    """Too few pictures are no reason to hide what else is wrong."""
    folder = customconcept_root / "benchmark_dataset"
    for file in sorted((folder / "pet_cat2").iterdir())[1:]:
        file.unlink()
    (folder / "scene_barn" / "1.jpeg").write_bytes(b"no picture")
    with pytest.raises(Unusable) as caught:
        CustomConcept101(customconcept_root, "paper")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert {problem.file for problem in again.dataset.verify()} == {
        "benchmark_dataset/pet_cat2", "benchmark_dataset/scene_barn/1.jpeg", "dataset_multiconcept.json, entry 1",
    }  # fmt: skip


def test_a_composition_of_a_concept_that_is_not_listed_is_left_out_and_reported(customconcept_root):
    index = customconcept_root / "dataset.json"
    entries = [entry for entry in json.loads(index.read_text()) if not entry["instance_data_dir"].endswith("pet_cat2")]
    index.write_text(json.dumps(entries))
    dataset = CustomConcept101(customconcept_root, "paper")
    assert dataset.compositions() == ()
    assert any("composes pet_cat2" in problem.fault for problem in dataset.verify())


def test_missing_compositions_do_not_stop_the_rest(customconcept_root):
    (customconcept_root / "dataset_multiconcept.json").unlink()
    dataset = CustomConcept101(customconcept_root, "paper")
    assert [problem.file for problem in dataset.verify()] == ["dataset_multiconcept.json"]
    with pytest.raises(DatasetError, match="dataset_multiconcept.json: is missing"):
        dataset.compositions()


def test_missing_prompts_of_a_composition_are_reported_with_the_rest(customconcept_root):
    (customconcept_root / "prompts" / "pet_pet.txt").unlink()
    (customconcept_root / "prompts" / "cat.txt").unlink()
    dataset = CustomConcept101(customconcept_root, "paper")
    assert dataset.compositions() == ()
    assert [str(problem).partition(";")[0] for problem in dataset.verify()] == [
        "prompts/cat.txt: is missing",
        "prompts/pet_pet.txt: is missing",
    ]


def test_every_prompt_without_placeholder_is_named_by_file_and_line(customconcept_root):
    (customconcept_root / "prompts" / "cat.txt").write_text("photo of a {}.\n\na cat on a sofa\n{0} twice {}\n{} {{\n")
    dataset = CustomConcept101(customconcept_root, "paper")
    assert [problem.file for problem in dataset.verify()] == [f"prompts/cat.txt line {line}" for line in (3, 4, 5)]
    with pytest.raises(DatasetError, match=r"prompts/cat.txt line 3: the prompt has not \{\} as its placeholder \(and 2 more\)"):
        dataset.prompts("pet_cat1")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "is missing"),
        ("\n \n", "holds no prompt"),
        ("a {}\n" * 19, "holds 19 prompts, not the 20 of the public data set"),
        (b"caf\xe9 {}", "is not UTF-8 text (byte 3)"),
    ],
)
def test_a_faulty_prompt_file_is_found_and_stops_nothing_else(customconcept_root, content, fault):
    path = customconcept_root / "prompts" / "cat.txt"
    path.unlink() if content is None else path.write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset = CustomConcept101(customconcept_root, "paper")
    (problem,) = dataset.verify()
    assert (problem.file, problem.fault) == ("prompts/cat.txt", fault)
    assert len(dataset.images("pet_cat1")) == 3


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("instance_data_dir", "../private", "entry 2, instance_data_dir: "),
        ("instance_data_dir", "./benchmark_dataset/../../private", "must be a relative path below the data root"),
        ("instance_data_dir", "/etc", "must be a relative path below the data root"),
        ("instance_data_dir", "", "must be a relative path below the data root"),
        ("prompt_filename", "/etc/passwd", "entry 2, prompt_filename: "),
        ("prompt_filename", "prompts/../../secret.txt", "must be a relative path below the data root"),
        ("instance_prompt", "photo of a barn", "must hold one modifier"),
        ("instance_prompt", "photo of a <new1> {0.__class__}", "plain text without braces"),
        ("class_prompt", "", "entry 2, class_prompt: "),
        ("class_prompt", "ba\nrn", "plain text without braces"),
        ("class_prompt", 7, "entry 2, class_prompt: "),
        ("instance_data_dir", "./benchmark_dataset/scene_barn", "lists the concept 'scene_barn' twice"),
    ],
)
def test_a_faulty_entry_is_one_line_with_its_place(customconcept_root, entry, key, value, message):
    entries = [entry("scene_barn"), entry("pet_cat1") | {key: value}]
    (customconcept_root / "dataset.json").write_text(json.dumps(entries))
    assert message in refusal(customconcept_root)


def test_an_entry_without_a_key_is_refused(customconcept_root, entry):
    barn = entry("scene_barn")
    del barn["class_data_dir"]
    (customconcept_root / "dataset.json").write_text(json.dumps([barn]))
    assert "dataset.json, entry 1, class_data_dir: Field required" in refusal(customconcept_root)


@pytest.mark.parametrize("content", [b'{"a": 1}', b"7", b"", b"[", b"\xff\xfe", b"[" * 200_000, b'[{"instance_prompt": NaN}]'])
def test_an_index_that_is_no_list_of_entries_is_refused(customconcept_root, content):
    (customconcept_root / "dataset.json").write_bytes(content)
    assert refusal(customconcept_root).startswith("dataset.json")


def test_a_huge_index_is_refused_before_parsing(customconcept_root):
    with (customconcept_root / "dataset.json").open("wb") as file:
        file.truncate(100 * 2**20)
    assert f"more than the {INDEX_BYTES:,} allowed" in refusal(customconcept_root)


def test_an_index_outside_the_root_is_refused(customconcept_root, tmp_path):
    (customconcept_root / "dataset.json").rename(tmp_path / "elsewhere.json")
    (customconcept_root / "dataset.json").symlink_to(tmp_path / "elsewhere.json")
    assert "leads out of the data root" in refusal(customconcept_root)


def test_another_layout_is_told_what_was_expected(artchive_root):
    message = refusal(artchive_root)
    assert "has no dataset.json; expected dataset.json, prompts/*.txt" in message


def test_an_index_without_its_pictures_says_what_is_missing(customconcept_root, tmp_path):
    (customconcept_root / "benchmark_dataset").rename(tmp_path / "not_unpacked")
    message = refusal(customconcept_root)
    assert "found 0 concepts" in message and "benchmark_dataset.zip unpacked" in message


def test_tables_overrule_the_defaults(customconcept_root):
    (customconcept_root / "concepts.csv").write_text("concept,class_word,split\nscene_barn,barn,dev\npet_cat1,cat,test\n")
    (customconcept_root / "images.csv").write_text(
        "\ufefffile,concept,caption\nbenchmark_dataset/scene_barn/1.jpeg,scene_barn,a red barn\n"
    )
    dataset = CustomConcept101(customconcept_root, "mini")
    splits = {concept.name: concept.split for concept in dataset.concepts}
    assert (splits["scene_barn"], splits["pet_cat1"]) == ("dev", "test")
    assert [image.caption for image in dataset.images("scene_barn")] == ["a barn", "a red barn", "a barn"]


def test_the_monitoring_prompts_are_the_papers():
    templates = CustomConcept101.monitoring_templates
    assert len(templates) == 10
    assert all(template.count("{concept}") == 1 and template.isascii() for template in templates)
    assert templates[7] == "Playful {concept} in children's illustration."
