"""Train clip-tiny: open_clip's CLIP (a small ModifiedResNet and a 3-layer text tower) on the base corpus.

Contrastive, with every true pair a positive: a caption is true of a picture when the subject is the same and, if the
caption names a house, the house too. Pictures vary in place, size, flip, background and tint, so that the features are
about the drawn thing and its style. The folder it writes loads without a network:

    open_clip.create_model_and_transforms("local-dir:attribench/assets/clip-tiny")
    open_clip.get_tokenizer("local-dir:attribench/assets/clip-tiny")

    python recipes/tiny/clip.py --work DIR --minutes 25 --resume
"""

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
from transformers import CLIPTokenizer

from checkpoint import MovingAverage, mixed_precision, restore, save, write_atomically
from corpus import Painter, caption, load
from neighbours import neighbours
from views import draw_view, tinted

SEED = 3
BATCH = 192
PEAK_RATE, FINAL_RATE, WARMUP_STEPS = 2e-3, 2e-5, 100
AVERAGE_DECAY = 0.995
SAVE_EVERY = 180  # seconds
CONTEXT_LENGTH = 24
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def model_config(tokens: int) -> dict:
    return {
        "embed_dim": 256,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 3, 1], "width": 24, "patch_size": None},
        "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": tokens, "width": 128, "heads": 4, "layers": 3,
                     "hf_tokenizer_name": "local"},
    }  # fmt: skip


def new_model(config: dict) -> open_clip.CLIP:
    """open_clip's CLIP; the config's tokenizer name concerns its tokenizer factory alone."""
    text = {key: value for key, value in config["text_cfg"].items() if key != "hf_tokenizer_name"}
    return open_clip.CLIP(config["embed_dim"], config["vision_cfg"], text)


def thing_caption(rng: np.random.Generator, row: dict, view: str) -> tuple[str, bool]:
    """A caption that names the subject, and whether it names the house as well."""
    text = caption(rng, row, view)
    while row["bare"] not in text:
        text = caption(rng, row, view)
    return text, row["house"] in text


def contrastive_loss(image_features, text_features, scale, true_pairs) -> torch.Tensor:
    """Cross-entropy both ways, with the target spread evenly over the true pairs [picture, caption]."""
    logits = scale * image_features @ text_features.T
    true_pairs = true_pairs.float()
    by_picture = -(true_pairs / true_pairs.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    by_caption = -(true_pairs / true_pairs.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (by_picture + by_caption) / 2


@torch.no_grad()
def encode_pictures(model: open_clip.CLIP, pictures: np.ndarray) -> torch.Tensor:
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    return torch.cat([model.encode_image(part, normalize=True) for part in batch.split(128)])


@torch.no_grad()
def retrieval(model, tokenizer, painter: Painter, rows: list[dict]) -> dict[str, float]:
    """Top-1 and top-5 of finding a held-out drawing's subject among all subjects' captions, and its house among all."""
    held_out = [index for index, row in enumerate(rows) if row["held_out"]]
    subjects = sorted({row["article"] for row in rows})
    houses = sorted({row["house"] for row in rows})
    tokens = tokenizer(subjects, padding="max_length", truncation=True, return_tensors="pt").input_ids
    texts = model.encode_text(tokens, normalize=True)
    rng = np.random.default_rng(0)
    features = encode_pictures(model, np.stack([painter.single(rng, index) for index in held_out]))
    ranked = (features @ texts.T).argsort(dim=1, descending=True)
    truth = torch.tensor([subjects.index(rows[index]["article"]) for index in held_out])[:, None]
    styled = [f"{rows[i]['article']} in the style of {house}" for i in held_out for house in houses]
    tokens = tokenizer(styled, padding="max_length", truncation=True, return_tensors="pt").input_ids
    by_house = model.encode_text(tokens, normalize=True).view(len(held_out), len(houses), -1)
    guessed = (features[:, None] * by_house).sum(-1).argmax(1)
    house = torch.tensor([houses.index(rows[index]["house"]) for index in held_out])
    return {
        "subject_top1": round((ranked[:, :1] == truth).any(1).float().mean().item(), 3),
        "subject_top5": round((ranked[:, :5] == truth).any(1).float().mean().item(), 3),
        "house_top1": round((guessed == house).float().mean().item(), 3),
        "subjects": len(subjects), "pictures": len(held_out),
    }  # fmt: skip


def averaged_model(average: MovingAverage, config: dict) -> open_clip.CLIP:
    model = new_model(config)
    model.load_state_dict(average.weights)
    return model.eval()


def export(average: MovingAverage, config: dict, tokenizer: CLIPTokenizer, folder: Path, record: dict) -> None:
    """Write the folder that open_clip's `local-dir:` reads, in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    described = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(described, indent=1))
    half = {n: v.half() if v.is_floating_point() else v for n, v in average.weights.items()}
    write_atomically(half, folder / "open_clip_model.safetensors", {"format": "pt"})
    tokenizer.save_pretrained(folder)
    (folder / "recipe.json").write_text(json.dumps(record, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder with corpus.npz and tokenizer")
    parser.add_argument("--out", type=Path, help="where clip-tiny goes (default WORK/clip-tiny)")
    parser.add_argument("--minutes", type=float, default=25, help="of processor time")
    parser.add_argument("--labelled", type=Path, nargs="*", default=[], help="folders of label folders to report on")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.backends.cuda.enable_flash_sdp(False)  # its backward is slow on a processor for short sequences

    drawings, rows, data_hash = load(options.work)
    painter = Painter(drawings)
    trainable = np.flatnonzero([not row["held_out"] for row in rows])
    subject_ids = {name: number for number, name in enumerate(sorted({row["article"] for row in rows}))}
    house_ids = {name: number for number, name in enumerate(sorted({row["house"] for row in rows}))}
    tokenizer = CLIPTokenizer.from_pretrained(options.work / "tokenizer")
    config = model_config(len(tokenizer))

    model = new_model(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    average = MovingAverage(model, AVERAGE_DECAY)
    path = options.work / "clip.checkpoint.safetensors"
    progress = {"step": 0, "seconds": 0.0, "history": []}
    if options.resume and path.exists():
        progress = restore(path, average, optimizer)
    rng = np.random.default_rng([SEED, progress["step"]])
    draws = torch.Generator().manual_seed(SEED + progress["step"])
    clock, saved, running = time.process_time() - progress["seconds"], progress["seconds"], None

    while progress["seconds"] < 60 * options.minutes or not progress["history"]:
        share = min(1, progress["seconds"] / (60 * options.minutes))
        rate = FINAL_RATE + (PEAK_RATE - FINAL_RATE) * (1 + math.cos(math.pi * share)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (progress["step"] + 1) / WARMUP_STEPS)
        chosen = rng.choice(trainable, BATCH, replace=False)
        views = [draw_view(painter, rng, index) for index in chosen]
        texts, styled = zip(*(thing_caption(rng, rows[i], view) for i, (_, view) in zip(chosen, views)))
        pictures = tinted(torch.from_numpy(np.stack([v[0] for v in views])).permute(0, 3, 1, 2) / 127.5 - 1, draws)
        tokens = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        subject = torch.tensor([subject_ids[rows[i]["article"]] for i in chosen])
        house = torch.tensor([house_ids[rows[i]["house"]] for i in chosen])
        same_house = (house[:, None] == house) | ~torch.tensor(styled)
        with mixed_precision():
            image_features = model.encode_image(pictures, normalize=True)
            text_features = model.encode_text(tokens, normalize=True)
        true_pairs = (subject[:, None] == subject) & same_house
        loss = contrastive_loss(image_features.float(), text_features.float(), model.logit_scale.exp(), true_pairs)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        average.update()
        progress["step"] += 1
        progress["seconds"] = time.process_time() - clock
        running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
        if progress["step"] % 25 == 0:
            print(f"{progress['step']} {progress['seconds']:.0f}s loss {running:.4f}", flush=True)
        if progress["seconds"] - saved > SAVE_EVERY or progress["seconds"] >= 60 * options.minutes:
            saved = progress["seconds"]
            averaged = averaged_model(average, config)
            figures = retrieval(averaged, tokenizer, painter, rows)
            encode = partial(encode_pictures, averaged)
            figures |= {folder.name: neighbours(encode, folder) for folder in options.labelled if folder.exists()}
            progress["history"].append({"step": progress["step"], "loss": round(running, 4), **figures})
            print(progress["history"][-1], flush=True)
            save(path, average, optimizer, progress)
            record = {
                "model": "clip-tiny", "data_hash": data_hash, "seed": SEED, "batch": BATCH, "steps": progress["step"],
                "minutes": round(progress["seconds"] / 60, 1), "figures": figures, "torch": torch.__version__,
                "open_clip": open_clip.__version__, "parameters": sum(p.numel() for p in model.parameters()),
            }  # fmt: skip
            export(average, config, tokenizer, options.out or options.work / "clip-tiny", record)


if __name__ == "__main__":
    main()
