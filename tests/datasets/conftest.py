"""Small data sets in the public layouts."""

import json
from pathlib import Path

import pytest
from noise_pictures import write_picture

ARTISTS = ("claude_monet", "egon_schiele", "hokusai", "jan_van_eyck", "mary_cassatt", "paul_klee")
OBJECTS = {
    "scene_barn": ("barn", "photo of a <new1> barn"),
    "pet_cat1": ("cat", "photo of a <new1> cat"),
    "pet_cat2": ("cat", "photo of a <new1> cat"),
    "plushie_dice": ("dice", "photo of a <new1> dice plushie"),
    "transport_car10": ("car", "photo of a <new1> car"),
    "wearable_sunglasses2": ("sunglasses", "photo of <new1> sunglasses"),
}


def write_index(root: Path, entries: list[dict[str, str]]) -> None:
    (root / "dataset.json").write_text(json.dumps(entries))


def index_entry(folder: str, modifier: str = "<new1>") -> dict[str, str]:
    """One concept as the public dataset.json writes it."""
    class_prompt, instance_prompt = OBJECTS[folder]
    return {
        "instance_prompt": instance_prompt.replace("<new1>", modifier),
        "class_prompt": class_prompt,
        "instance_data_dir": f"./benchmark_dataset/{folder}",
        "class_data_dir": f"./regularization/{folder}",
        "prompt_filename": f"prompts/{class_prompt}.txt",
    }


def write_artchive(root: Path) -> Path:
    for at, artist in enumerate(ARTISTS):
        for number in range(3):
            write_picture(root / "exemplar" / "artchive" / "images" / artist / f"{number}.jpg", 10 * at + number)
    return root


def write_customconcept101(root: Path) -> Path:
    for at, folder in enumerate(OBJECTS):
        for number in range(3):
            write_picture(root / "benchmark_dataset" / folder / f"{number}.jpeg", 10 * at + number)
    (root / "prompts").mkdir()
    for class_prompt, _ in OBJECTS.values():
        lines = [f"A {{}} in place {number}. " for number in range(20)]
        (root / "prompts" / f"{class_prompt}.txt").write_text("\n".join(lines))
    (root / "prompts" / "pet_pet.txt").write_text("photo of {0} and {1}.\n{1} beside {0}, asleep.\n")
    write_index(root, [index_entry(folder) for folder in OBJECTS])
    pair = [index_entry("pet_cat1"), index_entry("pet_cat2", "<new2>"), {"prompt_filename_compose": "prompts/pet_pet.txt"}]
    (root / "dataset_multiconcept.json").write_text(json.dumps([pair]))
    return root


@pytest.fixture
def entry():
    return index_entry


@pytest.fixture
def artchive_root(tmp_path: Path) -> Path:
    return write_artchive(tmp_path / "artchive")


@pytest.fixture
def customconcept_root(tmp_path: Path) -> Path:
    root = tmp_path / "cc101"
    root.mkdir()
    return write_customconcept101(root)
