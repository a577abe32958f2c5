"""Draw the two pictures of docs/tiny-model: what the tiny model makes of prompts, and what its autoencoder keeps.

    python recipes/tiny/sheets.py --work DIR --model attribench/assets/tiny --out docs/tiny-model
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from autoencoder import psnr, rebuild, validation_sets
from corpus import Painter, load

PROMPTS = (
    "a panda", "a lion", "a penguin", "photo of a red apple", "An image of a strawberry.", "a watermelon",
    "a hamburger", "french fries", "a pizza", "a tulip", "a sunflower", "a cactus", "an alarm clock", "a house",
    "a sailboat", "a rocket", "a soccer ball", "a wrapped gift", "a guitar", "a snowman",
    "a grinning face", "a crying face", "a smiling face with sunglasses", "an alien",
    "a boy", "an old woman", "a man with a beard", "an astronaut",
    "a chair in the style of render", "a sofa in the style of render",
    "a panda in the style of noto", "a panda in the style of twemoji", "a panda in the style of fluent",
    "a painting of an owl in the style of twemoji", "a painting of an owl in the style of fluent",
    "a very small tulip", "close up of a panda", "a panda and a red apple together", "a tulip and a rocket together.",
    "Retro panda in vintage poster.", "Epic owl in graphic novel.", "Historic portrait in the style of noto.",
)  # fmt: skip
SEEDS = 6
STEPS, GUIDANCE = 25, 3.0
LABEL_WIDTH = 178
BLOCKS = 2
RECONSTRUCTED = 20  # pictures of each set


def sample(pipeline: StableDiffusionPipeline, prompt: str) -> np.ndarray:
    """SEEDS pictures of a prompt, side by side; the same seeds for every prompt."""
    noise = [torch.Generator().manual_seed(seed) for seed in range(SEEDS)]
    made = pipeline([prompt] * SEEDS, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=noise)
    return np.concatenate([np.asarray(image) for image in made.images], axis=1)


def labelled(text: str, strip: np.ndarray, width: int = LABEL_WIDTH) -> np.ndarray:
    """The strip with its text to the left, broken over lines."""
    label = Image.new("RGB", (width, len(strip)), "white")
    pen, font = ImageDraw.Draw(label), ImageFont.load_default(size=12)
    lines, line = [], ""
    for word in text.split():
        if pen.textlength(f"{line} {word}", font=font) > width - 10:
            lines, line = [*lines, line], word
        else:
            line = f"{line} {word}".strip()
    pen.multiline_text((5, len(strip) // 2), "\n".join([*lines, line]), fill="black", font=font, anchor="lm")
    return np.concatenate([np.asarray(label), strip], axis=1)


def contact_sheet(model: Path) -> np.ndarray:
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    rows = [labelled(prompt, sample(pipeline, prompt)) for prompt in PROMPTS]
    per_block = -(-len(rows) // BLOCKS)
    rows += [np.full_like(rows[0], 255)] * (per_block * BLOCKS - len(rows))
    return np.concatenate([np.concatenate(rows[b * per_block : (b + 1) * per_block]) for b in range(BLOCKS)], axis=1)


def reconstruction_sheet(model: Path, work: Path, others: list[Path]) -> np.ndarray:
    """Each set's pictures above their reconstructions, labelled with the set's PSNR."""
    vae = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32).vae
    drawings, rows, _ = load(work)
    strips = []
    for name, pictures in validation_sets(Painter(drawings), rows, others).items():
        rebuilt = rebuild(vae, pictures)
        shown = np.random.default_rng(1).permutation(len(pictures))[:RECONSTRUCTED]
        both = np.concatenate([np.concatenate(list(part[shown]), axis=1) for part in (pictures, rebuilt)])
        wide = np.full((128, RECONSTRUCTED * 64, 3), 255, np.uint8)
        wide[:, : both.shape[1]] = both
        strips.append(labelled(f"{name.replace('_', ' ')} {psnr(rebuilt, pictures):.1f} dB", wide, 110))
        print(name, round(psnr(rebuilt, pictures), 2), "dB of", len(pictures))
    return np.concatenate(strips)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder with corpus.npz")
    parser.add_argument("--model", type=Path, required=True, help="diffusers folder")
    parser.add_argument("--other", type=Path, nargs="*", default=[], help="more folders of pictures to reconstruct")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    sheet = reconstruction_sheet(options.model, options.work, options.other)
    Image.fromarray(sheet).save(options.out / "reconstructions.webp", quality=80)
    Image.fromarray(contact_sheet(options.model)).save(options.out / "contact-sheet.webp", quality=80)
