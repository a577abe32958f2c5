"""Small real models for every test: real diffusers parts with random weights, built in milliseconds."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched at run time
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; tests that interrupt would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
def paper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CustomConcept101 as a user would have it on disk, in small."""
    return write_customconcept101(tmp_path_factory.mktemp("customconcept101"))
