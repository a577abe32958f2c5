"""Small real models for every test: real diffusers parts with random weights, built in milliseconds."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attribench import plugins

pytest_plugins = ("noise_pictures", "small_record", "small_study")  # of `fixtures/`: what tests of several folders share

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched at run time
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; tests that interrupt would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHORT = {"data", "datasets", "metrics", "report", "retrieval", "statistics"}
"""Folders whose files take seconds each."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: with `--dist loadfile`, one at the end would keep a single process busy."""
    items.sort(key=lambda item: item.path.parent.name in SHORT)


WORDS = [
    "a", "an", "image", "of", "photo", "picture", "in", "the", "style", "art", "cat", "dog", "teddy", "bear", "chair",
    "and", "together", "red", "blue",
]  # fmt: skip


def build_small_model(folder: Path, seed: int = 0) -> Path:
    """A diffusers folder of a random-weight latent diffusion model at 32×32, with its own tokenizer."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in WORDS:  # each word becomes one token, as in a trained vocabulary
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merged = parts[0] + parts[1]
            if merged not in vocabulary:
                vocabulary.append(merged)
                merges.append((parts[0], parts[1]))
            parts = [merged, *parts[2:]]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    token_folder = folder / "tokenizer-source"
    token_folder.mkdir(parents=True)
    (token_folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (token_folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges))
    tokenizer = CLIPTokenizer.from_pretrained(token_folder, model_max_length=16)
    bos, eos = len(vocabulary) - 2, len(vocabulary) - 1
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=16, bos_token_id=bos, eos_token_id=eos, pad_token_id=eos,
        )
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=32,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
                                clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder / "model")  # fmt: skip
    return folder / "model"


def _forget_new_plugins() -> Iterator[None]:
    """What a test added by file is not there for the next one."""
    before = {kind: dict(found) for kind, found in plugins._from_files.items()}
    yield
    for kind, found in before.items():
        plugins._from_files[kind].clear()
        plugins._from_files[kind].update(found)


_plugins_of_a_test = pytest.fixture(autouse=True)(_forget_new_plugins)
_plugins_of_a_file = pytest.fixture(autouse=True, scope="module")(_forget_new_plugins)


@pytest.fixture(scope="session")
def common_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all tests that need no empty store: what is equal between their runs, such as trainings, is made once."""
    return tmp_path_factory.mktemp("common") / "store"


@pytest.fixture
def attribench(tmp_path: Path, common_store: Path, monkeypatch) -> Callable[..., subprocess.CompletedProcess]:
    """Runs `attribench …` in a folder of its own and returns what came out.

    In this process, since another would import torch anew. `attribench_process` of `cli/` starts one.
    """
    from attribench.__main__ import main

    def run(*arguments: str) -> subprocess.CompletedProcess:
        out, err = io.StringIO(), io.StringIO()
        forgotten = contextmanager(_forget_new_plugins)()
        with monkeypatch.context() as as_typed, redirect_stdout(out), redirect_stderr(err), forgotten:
            as_typed.setattr(sys, "argv", ["attribench", *arguments])
            as_typed.setattr(sys, "path", [*sys.path])
            as_typed.chdir(tmp_path)
            as_typed.setenv("ATTRIBENCH_STORE", str(common_store))
            as_typed.setenv("COLUMNS", "150")
            with pytest.raises(SystemExit) as ended:
                main()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def small_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder, 32×32 pictures, random weights."""
    return build_small_model(tmp_path_factory.mktemp("small-model"))


@pytest.fixture
def small_model(small_model_folder: Path):
    """That model, loaded, with the modifiers "<new1>" and "<new2>"."""
    from attribench.diffusion.model import DiffusionModel

    model = DiffusionModel.load(small_model_folder)
    model.add_modifiers({"<new1>": "cat", "<new2>": None})
    return model


@pytest.fixture
def pictures() -> dict[str, Image.Image]:
    """Eight unlike pictures of 32×32 by id."""
    random = np.random.default_rng(0)
    return {
        f"{name}/{i}.png": Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((32, 32))
        for name in ("cat", "dog") for i in range(4)
    }  # fmt: skip


CONCEPT_COLOURS = {"cat": "tan", "dog": "sienna", "bear": "saddlebrown", "chair": "teal", "barn": "firebrick",
                   "lamp": "gold", "plate": "navy"}  # fmt: skip


def write_customconcept101(root: Path, images: int = 3) -> Path:
    """A folder in CustomConcept101's public layout: seven concepts with a few drawn pictures each."""
    from PIL import ImageDraw

    entries = []
    for number, (word, colour) in enumerate(CONCEPT_COLOURS.items()):
        folder = root / "benchmark_dataset" / f"thing_{word}"
        folder.mkdir(parents=True)
        for i in range(images):
            picture = Image.new("RGB", (48, 40), (200 + 10 * i, 220, 230))
            ImageDraw.Draw(picture).regular_polygon((20 + 3 * i, 20, 12 + i), 3 + number, rotation=20 * i, fill=colour)
            picture.save(folder / f"{i}.jpg")
        entries.append({
            "instance_prompt": f"photo of a <new1> {word}", "class_prompt": word,
            "instance_data_dir": f"./benchmark_dataset/thing_{word}", "class_data_dir": f"./regularization/thing_{word}",
            "prompt_filename": "prompts/thing.txt",
        })  # fmt: skip
    (root / "prompts").mkdir()
    (root / "prompts" / "thing.txt").write_text("\n".join(f"a {{}} in place {i}" for i in range(20)))
    (root / "dataset.json").write_text(json.dumps(entries))
    return root


@pytest.fixture(scope="session")
def shipped_world_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the study of `attribench check` is made once for all tests."""
    return tmp_path_factory.mktemp("shipped-world")


@pytest.fixture(scope="session")
def paper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CustomConcept101 as a user would have it on disk, in small."""
    return write_customconcept101(tmp_path_factory.mktemp("customconcept101"))


@pytest.fixture(scope="session")
def small_clip_folder(tmp_path_factory, small_model_folder) -> Path:
    """A random CLIP for 32×32 pictures with the small model's tokenizer, as recipes/tiny/clip.py writes it."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("small-clip")
    tokenizer = CLIPTokenizer.from_pretrained(small_model_folder / "tokenizer")
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": len(tokenizer), "width": 32, "heads": 2, "layers": 2}
    torch.manual_seed(0)
    model = open_clip.CLIP(16, vision, text)
    with torch.no_grad():  # every picture alike otherwise: a fresh projection is too small to tell them apart
        model.visual.proj.mul_(10)
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {**text, "hf_tokenizer_name": "local"}}
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(folder)
    return folder


SUBJECTS = {"cat": "tan", "dog": "sienna", "bear": "saddlebrown", "chair": "teal"}


def write_mscoco(root: Path, images: int = 3) -> Path:
    """A folder in MSCOCO's public layout: four subjects with a few drawn pictures each, five captions of every picture."""
    from PIL import ImageDraw

    def captions(word: str) -> list[str]:
        return [f"a {word}", f"picture of a {word}", f"image of a {word}", f"a {word} in blue", f"photo of the {word}"]

    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    listed = {"train": [], "val": []}
    annotations = {"train": [], "val": []}
    for number, (word, colour) in enumerate(SUBJECTS.items()):
        for i in range(images + 3):
            split = "train" if i < images else "val"
            image_id = 10 * number + i + 1
            listed[split].append({"id": image_id, "file_name": f"{image_id:012d}.jpg"})
            annotations[split] += [
                {"id": 5 * image_id + at, "image_id": image_id, "caption": text} for at, text in enumerate(captions(word))
            ]
            if split == "train":
                picture = Image.new("RGB", (48, 40), (200 + 10 * i, 220, 230))
                ImageDraw.Draw(picture).regular_polygon((20 + 3 * i, 20, 12 + i), 3 + number, rotation=20 * i, fill=colour)
                picture.save(root / "train2017" / f"{image_id:012d}.jpg")
    for split in listed:
        content = {"images": listed[split], "annotations": annotations[split]}
        (root / "annotations" / f"captions_{split}2017.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MSCOCO as a user would have it on disk, in small: twelve pictures."""
    return write_mscoco(tmp_path_factory.mktemp("mscoco"))


# ------------------------------------------------------------------------- a finished run, and its submission

SMALL_RUN = {
    "n_studies": 2, "images_per_concept": 3, "templates": 4, "fit_pictures": 1, "method_seeds": "[4, 16]",
    "query_pictures.un-mixed": 3, "query_pictures.mixed": 2, "customization.epochs": 1, "sampling.steps": 2,
}  # fmt: skip


@pytest.fixture(scope="session")
def run_folder(small_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of seconds: the pixel baseline and all controls, two studies of a shipped mini edition."""
    return finished_run(small_model_folder, tmp_path_factory.mktemp("finished"))


def finished_run(model: Path, place: Path, *params: str) -> Path:
    """The same with other parameters; what is in `place` already is not made again."""
    from attribench.engine.listener import Listener
    from attribench.run.config import RunConfig
    from attribench.run.execute import execute
    from attribench.run.prepare import prepare

    small = [f"between-concepts.{name}={value}" for name, value in SMALL_RUN.items()] + ["shuffled-queries.encoder=clip-tiny"]
    config = RunConfig.gather(
        None, dataset="customconcept101", model=str(model), methods=["pixel"], workers=0, params=[*small, *params],
        store=place / "store", out=place / f"run{len(params)}",
    )  # fmt: skip
    result = execute(prepare(config), Listener())
    assert result.failure is None
    return result.folder


@pytest.fixture(scope="session")
def other_run_folder(run_folder: Path, small_model_folder: Path) -> Path:
    """The same studies, the pixel baseline with another parameter."""
    return finished_run(small_model_folder, run_folder.parent, "pixel.size=4")


@pytest.fixture(scope="session")
def experiment(run_folder: Path):
    """What the run did, as a board would define it."""
    from attribench.run.config import RunConfig
    from attribench.run.experiment import experiment_of

    return experiment_of(RunConfig.gather(run_folder / "run.toml"))


@pytest.fixture(scope="session")
def packed(run_folder: Path) -> bytes:
    """The run as a submission."""
    from attribench.submissions.pack import submission_of

    return submission_of(run_folder, submitter="A. Tester", links={"code": "https://example.org/code"})
