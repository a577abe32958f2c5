"""Train the tiny text-to-image model: a UNet2DConditionModel and its CLIPTextModel, jointly, on 8x8 latents.

About 110 subjects of the corpus are drawn in many views (alone, far, close, two together), encoded once by the tiny
autoencoder, and captioned anew at every step by the grammar of corpus.py. Loss: the noise's squared error with min-SNR
weights (Hang et al. 2023), a tenth of the captions dropped for classifier-free guidance. The learning rate follows the
share of the time budget that is spent, so that a run on a busy machine still ends annealed.

    torchrun --nproc-per-node 2 recipes/tiny/denoiser.py --work DIR --out attribench/assets/tiny --minutes 75 --resume

writes a complete diffusers folder every ten minutes: `StableDiffusionPipeline.from_pretrained(DIR/model)`.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import time
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from checkpoint import MovingAverage, mixed_precision, restore, save
from corpus import EMPTY_RATE, OBJECTS_HOUSE, Painter, caption, load
from parallel import PROCESSES, RANK, average_gradients, once, start

SEED = 4
BATCH = 64
PEAK_RATE, FINAL_RATE, WARMUP_STEPS = 1e-3, 1e-5, 200
AVERAGE_DECAY = 0.998
SNR_LIMIT = 5.0
SAVE_EVERY, EXPORT_EVERY = 180, 600  # seconds
FIRST_EXPORT = 240  # seconds into training: rough, so that others can start
# What the model learns to draw: a part of the corpus's core. Fewer subjects, drawn well, rather than more of them.
SUBJECTS = """
    panda|lion|tiger face|dog face|cat face|fox|koala|rabbit face|pig face|frog|monkey face|elephant|penguin|owl|
    baby chick|turtle|tropical fish|octopus|crab|butterfly|honeybee|lady beetle|
    rose|tulip|sunflower|cactus|evergreen tree|palm tree|mushroom|
    red apple|green apple|banana|lemon|tangerine|strawberry|cherries|watermelon|pineapple|hamburger|french fries|pizza|
    egg|doughnut|birthday cake|soft ice cream|hot beverage|beer mug|
    house|mountain|bus|automobile|bicycle|sailboat|airplane|rocket|alarm clock|sun|star|cloud|snowman|fire|umbrella|
    jack-o-lantern|balloon|wrapped gift|soccer ball|basketball|teddy bear|crown|t-shirt|guitar|television|light bulb|
    books|envelope|key|chair|bed|
    grinning face|smiling face with smiling eyes|face with tears of joy|smiling face with heart-eyes|winking face|
    smiling face with sunglasses|thinking face|sleeping face|crying face|angry face|clown face|ghost|alien|robot|
    baby|boy|girl|man|woman|old woman|man: beard|astronaut|princess|Santa Claus|
    sofa|table|lamp|bench|wooden box
"""
SUBJECT_LABELS = {" ".join(label.split()) for label in SUBJECTS.split("|")}
VIEWS = {"single": 12, "far": 2, "close": 2}  # versions of each drawing
OBJECT_VIEWS = {"single": 4, "far": 1, "close": 1}  # a rendered object has several drawings already
PAIRS = 4000
SAME_HOUSE_PAIRS = 0.75
VIEW_WEIGHTS = {"single": 0.83, "far": 0.04, "close": 0.03, "pair": 0.10}
TEXT_WIDTH = 128
UNET = dict(
    sample_size=8, in_channels=8, out_channels=8, block_out_channels=(96, 128), layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    cross_attention_dim=TEXT_WIDTH, attention_head_dim=4, norm_num_groups=16,
)  # fmt: skip
SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
SAMPLER = dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def new_models(tokenizer: CLIPTokenizer) -> torch.nn.ModuleDict:
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=3 * TEXT_WIDTH, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=tokenizer.model_max_length, projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return torch.nn.ModuleDict({"unet": UNet2DConditionModel(**UNET), "text_encoder": CLIPTextModel(text)})


def draw_views(painter: Painter, rows: list[dict]):
    """Yield (view, first row, second row or -1, picture) for every view of every learned drawing, and the pairs."""
    rng = np.random.default_rng(SEED)
    learned = [index for index, row in enumerate(rows) if row["label"] in SUBJECT_LABELS]
    for index in learned:
        for view, count in (OBJECT_VIEWS if rows[index]["house"] == OBJECTS_HOUSE else VIEWS).items():
            for _ in range(count):
                yield view, index, -1, getattr(painter, view)(rng, index)
    drawn = [index for index in learned if not painter.opaque[index]]
    for _ in range(PAIRS):
        first = rng.choice(drawn)
        same_house = rng.random() < SAME_HOUSE_PAIRS
        second = rng.choice(drawn)
        while rows[second]["label"] == rows[first]["label"] or (
            same_house and rows[second]["house"] != rows[first]["house"]
        ):
            second = rng.choice(drawn)
        yield "pair", first, second, painter.pair(rng, first, second)


@torch.no_grad()
def encoded_views(work: Path, painter: Painter, rows: list[dict], vae: AutoencoderKL) -> dict[str, np.ndarray]:
    """The views' latents (mean, scaled), made once per encoder and kept in `work/latents.safetensors`."""
    path = work / "latents.safetensors"
    encoder = b"".join(weight.numpy().tobytes() for weight in vae.encoder.state_dict().values())
    key = hashlib.sha256(encoder).hexdigest()
    if path.exists():
        with safe_open(path, framework="pt") as stored:
            if stored.metadata()["vae"] == key:
                return {name: stored.get_tensor(name) for name in stored.keys()}
    views, firsts, seconds, pictures = zip(*draw_views(painter, rows))
    latents = []
    for at in range(0, len(pictures), 64):
        batch = torch.from_numpy(np.stack(pictures[at : at + 64])).permute(0, 3, 1, 2) / 127.5 - 1
        with mixed_precision():
            latents.append(vae.encode(batch).latent_dist.mode().float() * vae.config.scaling_factor)
    stored = {
        "latents": torch.cat(latents).contiguous(), "first": torch.tensor(firsts), "second": torch.tensor(seconds),
        "view": torch.tensor([list(VIEW_WEIGHTS).index(view) for view in views]),
    }  # fmt: skip
    save_file(stored, path, metadata={"vae": key})
    return stored


def row_weights(views: dict[str, torch.Tensor], rows: list[dict]) -> torch.Tensor:
    """How often each view is drawn: VIEW_WEIGHTS between the kinds; within one, every (subject, house) the same.
    A kept view of a subject that is no longer learned is never drawn."""
    names = list(VIEW_WEIGHTS)
    owner = [(int(v), rows[f]["label"], rows[f]["house"]) if names[v] != "pair" else (int(v), i, "")
             for i, (v, f) in enumerate(zip(views["view"].tolist(), views["first"].tolist()))]  # fmt: skip
    counts, owners = {}, {}
    for kind in owner:
        counts[kind] = counts.get(kind, 0) + 1
    for kind in counts:
        owners[kind[0]] = owners.get(kind[0], 0) + 1
    weights = [VIEW_WEIGHTS[names[kind[0]]] / owners[kind[0]] / counts[kind] for kind in owner]
    left_out = {index for index, row in enumerate(rows) if row["label"] not in SUBJECT_LABELS}
    for i, pair in enumerate(zip(views["first"].tolist(), views["second"].tolist())):
        if left_out.intersection(pair):
            weights[i] = 0.0
    return torch.tensor(weights, dtype=torch.float64)


def view_caption(rng: np.random.Generator, views: dict, index: int, rows: list[dict]) -> str:
    """A fresh caption of a view; sometimes none, for classifier-free guidance."""
    if rng.random() < EMPTY_RATE:
        return ""
    other = int(views["second"][index])
    view = list(VIEW_WEIGHTS)[int(views["view"][index])]
    return caption(rng, rows[int(views["first"][index])], view, rows[other] if other >= 0 else None)


def denoising_loss(models, schedule, latents, tokens, draws) -> torch.Tensor:
    """Min-SNR weighted squared error of the predicted noise, for latents [B, 8, 8, 8] and tokens [B, 24]."""
    times = torch.randint(0, schedule.config.num_train_timesteps, (len(latents),), generator=draws)
    noise = torch.randn(latents.shape, generator=draws)
    noisy = schedule.add_noise(latents, noise, times)
    with mixed_precision():
        text = models["text_encoder"](tokens).last_hidden_state
        predicted = models["unet"](noisy, times, text).sample
    kept = schedule.alphas_cumprod[times]
    snr = kept / (1 - kept)
    weight = snr.clamp(max=SNR_LIMIT) / snr
    return (weight * (predicted.float() - noise).square().mean(dim=(1, 2, 3))).mean()


def export(average: MovingAverage, tokenizer, work: Path, record: dict, folders: list[Path]) -> None:
    """Write the averaged weights, with the autoencoder as it is now (its decoder may still be training), as a whole
    diffusers folder in float16, and swap it into each of `folders`."""
    vae = AutoencoderKL.from_pretrained(work / "vae")
    models = new_models(tokenizer)
    models.load_state_dict(average.weights)
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=models["text_encoder"], tokenizer=tokenizer, unet=models["unet"],
        scheduler=DDIMScheduler(**SCHEDULE, **SAMPLER), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.to(torch.float16)
    for folder in folders:
        beside, old = folder.with_name(folder.name + ".part"), folder.with_name(folder.name + ".old")
        for stale in (beside, old):
            shutil.rmtree(stale, ignore_errors=True)
        pipeline.save_pretrained(beside, safe_serialization=True)
        config = beside / "text_encoder/config.json"  # transformers loads in the dtype named here, diffusers in float32
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2))
        config = beside / "vae/config.json"  # diffusers notes the folder that it was read from
        kept = {name: value for name, value in json.loads(config.read_text()).items() if name != "_name_or_path"}
        config.write_text(json.dumps(kept, indent=2))
        for weights in beside.rglob("*.safetensors"):
            weights.chmod(0o644)
        (beside / "recipe.json").write_text(json.dumps(record, indent=1))
        if folder.exists():
            os.replace(folder, old)
        os.replace(beside, folder)
        shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder with corpus.npz, tokenizer and vae")
    parser.add_argument("--out", type=Path, help="a second folder for each export (WORK/model is the first)")
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.backends.cuda.enable_flash_sdp(False)  # its backward is slow on a processor for short sequences

    drawings, rows, data_hash = load(options.work)
    tokenizer = CLIPTokenizer.from_pretrained(options.work / "tokenizer")
    vae = AutoencoderKL.from_pretrained(options.work / "vae").eval()

    models = new_models(tokenizer).train()
    trained = list(models.parameters())
    optimizer = torch.optim.AdamW(trained, PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    average = MovingAverage(models, AVERAGE_DECAY)
    schedule = DDPMScheduler(**SCHEDULE)
    path = options.work / "denoiser.checkpoint.safetensors"
    progress = {"step": 0, "seconds": 0.0, "history": []}
    if options.resume and path.exists():
        progress = restore(path, average, optimizer)
    start(models)
    views = once(lambda: encoded_views(options.work, Painter(drawings), rows, vae))
    weights = row_weights(views, rows)
    rng = np.random.default_rng([SEED, progress["step"], RANK])
    draws = torch.Generator().manual_seed(SEED + PROCESSES * progress["step"] + RANK)
    clock, saved, running = time.monotonic() - progress["seconds"], progress["seconds"], None
    exported = progress["seconds"] - EXPORT_EVERY + FIRST_EXPORT
    folders = [options.work / "model"] + ([options.out] if options.out else [])
    budget = 60 * options.minutes

    while progress["seconds"] < budget:
        rate = FINAL_RATE + (PEAK_RATE - FINAL_RATE) * (1 + math.cos(math.pi * progress["seconds"] / budget)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (progress["step"] + 1) / WARMUP_STEPS)
        chosen = torch.multinomial(weights, BATCH // PROCESSES, replacement=True, generator=draws)
        texts = [view_caption(rng, views, index, rows) for index in chosen]
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        loss = denoising_loss(models, schedule, views["latents"][chosen], tokens, draws)
        optimizer.zero_grad()
        loss.backward()
        loss, progress["seconds"] = average_gradients(trained, loss.item(), time.monotonic() - clock)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update()
        progress["step"] += 1
        running = loss if running is None else 0.99 * running + 0.01 * loss
        if RANK > 0:
            continue
        if progress["step"] % 50 == 0:
            progress["history"].append([progress["step"], round(progress["seconds"]), round(running, 4)])
            print(f"{progress['step']} {progress['seconds']:.0f}s loss {running:.4f} rate {rate:.2e}", flush=True)
        done = progress["seconds"] >= budget
        if done or progress["seconds"] - saved > SAVE_EVERY:
            saved = progress["seconds"]
            save(path, average, optimizer, progress)
        if done or progress["seconds"] - exported > EXPORT_EVERY:
            exported = progress["seconds"]
            learned = [row for row in rows if row["label"] in SUBJECT_LABELS]
            record = {
                "model": "tiny", "data_hash": data_hash, "seed": SEED, "batch": BATCH, "processes": PROCESSES,
                "steps": progress["step"],
                "minutes": round(progress["seconds"] / 60, 1), "loss": round(running, 4),
                "subjects": len({row["article"] for row in learned}), "drawings": len(learned),
                "views": len(views["latents"]), "finished": done,
                "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in models.items()},
                "versions": {lib.__name__: lib.__version__ for lib in (torch, diffusers, transformers)},
                "autoencoder": json.loads((options.work / "vae/recipe.json").read_text()),
            }  # fmt: skip
            export(average, tokenizer, options.work, record, folders)
            print(f"exported at step {progress['step']}", flush=True)


if __name__ == "__main__":
    main()
