"""Train the tiny AutoencoderKL: 64x64 pictures to 8x8 latents with 8 channels, a factor of 8 as in Stable Diffusion.

Loss: L1 at four scales + MSE + L1 of the hue of small areas + a little L1 of the finite
differences (sharp outlines) + a small KL. One latent channel is tied to red minus green: left alone, all eight are
taken by outlines first, and reds and greens stay brown for thousands of steps. Half of the pictures are
plain views of the corpus, half are `Painter.scene`: recoloured crowds on loud backgrounds, so that drawing styles
which the corpus lacks come back too. The learning rate follows the share of the time budget that is spent.

Two stages. `both` trains encoder and decoder. `decoder` freezes the encoder, so that the latents stay as they are and
the denoiser can train on them meanwhile, and goes on with the decoder alone.

    python recipes/tiny/autoencoder.py --work DIR --stage both --minutes 30 --resume
    python recipes/tiny/autoencoder.py --work DIR --stage decoder --minutes 60 --resume
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from checkpoint import MovingAverage, mixed_precision, restore, save
from corpus import Painter, load

SEED = 1
BATCH = 8
POOL = 14_000  # pictures drawn once, then flipped, shifted and recoloured at random
STAGES = {"both": 1.5e-3, "decoder": 6e-4}  # peak learning rate
FINAL_RATE, WARMUP_STEPS = 2e-5, 150
DECAY_SHARE = 0.35  # the rate stays at its peak, then falls in a line
EDGE_WEIGHT, HUE_WEIGHT, KL_WEIGHT = 0.2, 4.0, 1e-3
RED_GREEN_CHANNEL, ANCHOR_WEIGHT = 7, 1.0
POOLED_SCALES = (2, 4, 8)
AVERAGE_DECAY = 0.998
SAVE_EVERY = 180  # seconds
CONFIG = dict(
    block_out_channels=(24, 48, 96, 128), layers_per_block=1, latent_channels=8, norm_num_groups=8, sample_size=64,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
)  # fmt: skip


def draw_pool(painter: Painter, trainable: np.ndarray, count: int) -> torch.Tensor:
    """`count` training pictures [N, 3, 64, 64] uint8."""
    rng = np.random.default_rng(SEED)
    pictures = np.empty((count, 64, 64, 3), np.uint8)
    for row in range(count):
        view = rng.choice(["scene", "single", "far", "close", "pair"], p=[0.5, 0.3, 0.06, 0.06, 0.08])
        if view == "scene":
            pictures[row] = painter.scene(rng)
        else:
            pictures[row] = getattr(painter, view)(rng, *rng.choice(trainable, 2 if view == "pair" else 1))
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def vary(batch: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Flips, shifts by a few pixels and swapped colour channels, one draw per batch of a picture set in [-1, 1]."""
    if torch.rand((), generator=draws) < 0.5:
        batch = batch.flip(-1)
    if torch.rand((), generator=draws) < 0.15:
        batch = batch[:, torch.randperm(3, generator=draws)]
    down, right = torch.randint(0, 9, (2,), generator=draws).tolist()
    padded = torch.nn.functional.pad(batch, (4, 4, 4, 4), mode="replicate")
    return padded[..., down : down + 64, right : right + 64]


def edges(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return pictures.diff(dim=-1), pictures.diff(dim=-2)


def reconstruction_loss(rebuilt: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    error = rebuilt - pictures
    outline = sum(edge.abs().mean() for edge in edges(error))
    scales = sum(torch.nn.functional.avg_pool2d(error, size).abs().mean() for size in POOLED_SCALES)
    hue = torch.nn.functional.avg_pool2d(error - error.mean(dim=1, keepdim=True), 4).abs().mean()
    return error.abs().mean() + error.square().mean() + scales + HUE_WEIGHT * hue + EDGE_WEIGHT * outline


@torch.no_grad()
def rebuild(model: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """Encode (to the mean) and decode [N, 64, 64, 3] uint8 pictures."""
    batches = []
    for part in torch.from_numpy(pictures).permute(0, 3, 1, 2).split(32):
        decoded = model.decode(model.encode(part / 127.5 - 1).latent_dist.mode()).sample
        batches.append(((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(batches)


def psnr(rebuilt: np.ndarray, pictures: np.ndarray) -> float:
    """Mean over pictures of the peak signal to noise ratio, in dB."""
    error = ((rebuilt.astype(np.float64) - pictures) ** 2).mean(axis=(1, 2, 3)).clip(min=0.1)
    return float((10 * np.log10(255**2 / error)).mean())


def validation_sets(painter: Painter, rows: list[dict], others: list[Path]) -> dict[str, np.ndarray]:
    """Pictures never trained on: drawings held out of the corpus, the faces among them, and other folders' pictures."""
    held_out = [index for index, row in enumerate(rows) if row["held_out"]]
    faces = [index for index in held_out if "face" in rows[index]["label"]]
    rng = np.random.default_rng(0)
    sets = {"held_out": np.stack([painter.single(rng, index) for index in held_out])}
    sets["held_out_faces"] = np.stack([painter.single(rng, index) for index in faces])
    for folder in others:
        files = sorted(path for end in ("webp", "png", "jpg") for path in folder.rglob(f"*.{end}"))
        if files:
            chosen = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:96]]
            sets[folder.name] = np.stack([np.asarray(Image.open(f).convert("RGB").resize((64, 64))) for f in chosen])
    return sets


def averaged_model(average: MovingAverage) -> AutoencoderKL:
    model = AutoencoderKL(**CONFIG)
    model.load_state_dict(average.weights)
    return model.eval()


def export(average: MovingAverage, work: Path, pictures: np.ndarray, record: dict) -> None:
    """Write the averaged weights to `work/vae`, with the scaling factor that gives the latents unit variance."""
    model = averaged_model(average)
    with torch.no_grad():
        batch = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
        latents = torch.cat([model.encode(part).latent_dist.mode() for part in batch.split(64)])
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    model.save_pretrained(work / "vae")
    (work / "vae/recipe.json").write_text(json.dumps(record, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder with corpus.npz; the model goes to WORK/vae")
    parser.add_argument("--stage", choices=STAGES, default="both")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--other", type=Path, nargs="*", default=[], help="folders of pictures to report PSNR on")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)

    drawings, rows, data_hash = load(options.work)
    painter = Painter(drawings)
    trainable = np.flatnonzero([not row["held_out"] for row in rows])
    pool = draw_pool(Painter(drawings[trainable]), np.arange(len(trainable)), POOL)
    validation = validation_sets(painter, rows, options.other)

    model = AutoencoderKL(**CONFIG)
    earlier = None
    if options.stage == "decoder":
        kept = json.loads((options.work / "vae/recipe.json").read_text())
        earlier = kept["earlier"] if kept["stage"] == "decoder" else kept
        model.load_state_dict(AutoencoderKL.from_pretrained(options.work / "vae").state_dict())
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    peak_rate = STAGES[options.stage]
    optimizer = torch.optim.AdamW(trained, peak_rate, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    average = MovingAverage(model, AVERAGE_DECAY)
    path = options.work / f"vae-{options.stage}.checkpoint.safetensors"
    progress = {"step": 0, "seconds": 0.0, "history": []}
    if options.resume and path.exists():
        progress = restore(path, average, optimizer)
    draws = torch.Generator().manual_seed(SEED + progress["step"])
    clock, saved, running = time.monotonic() - progress["seconds"], progress["seconds"], None

    while progress["seconds"] < 60 * options.minutes:
        share = progress["seconds"] / (60 * options.minutes)
        rate = FINAL_RATE + (peak_rate - FINAL_RATE) * min(1, (1 - share) / DECAY_SHARE)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (progress["step"] + 1) / WARMUP_STEPS)
        chosen = torch.randint(len(pool), (BATCH,), generator=draws)
        pictures = vary(pool[chosen] / 127.5 - 1, draws)
        with mixed_precision():
            posterior = model.encode(pictures).latent_dist
            rebuilt = model.decode(posterior.sample()).sample
        loss = reconstruction_loss(rebuilt.float(), pictures)
        red_green = 2 * torch.nn.functional.avg_pool2d(pictures[:, 0] - pictures[:, 1], 8)
        anchor = (posterior.mean[:, RED_GREEN_CHANNEL].float() - red_green).square().mean()
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        optimizer.zero_grad()
        (loss + KL_WEIGHT * kl + ANCHOR_WEIGHT * anchor).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update()
        progress["step"] += 1
        progress["seconds"] = time.monotonic() - clock
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if progress["step"] % 50 == 0:
            parts = f"loss {running:.4f} kl {kl.item():.3f} anchor {anchor.item():.3f}"
            print(f"{progress['step']} {progress['seconds']:.0f}s {parts}", flush=True)
        if progress["seconds"] - saved > SAVE_EVERY or progress["seconds"] >= 60 * options.minutes:
            saved = progress["seconds"]
            averaged = averaged_model(average)
            rebuilt_sets = {name: rebuild(averaged, pictures) for name, pictures in validation.items()}
            figures = {name: round(psnr(rebuilt_sets[name], validation[name]), 2) for name in validation}
            progress["history"].append({"step": progress["step"], "loss": round(running, 4), "psnr": figures})
            print(progress["history"][-1], flush=True)
            save(path, average, optimizer, progress)
            record = {
                "model": "autoencoder", "stage": options.stage, "data_hash": data_hash, "seed": SEED,
                "batch": BATCH, "steps": progress["step"],
                "minutes": round(progress["seconds"] / 60, 1), "psnr_db": figures, "torch": torch.__version__,
                "parameters": sum(p.numel() for p in model.parameters()), "earlier": earlier,
            }  # fmt: skip
            sample = pool[:1024].permute(0, 2, 3, 1).numpy()
            export(average, options.work, sample, record)
            strip = [np.concatenate([validation[n][:24], rebuilt_sets[n][:24]]) for n in validation]
            sheet = np.concatenate([s.reshape(2, 24, 64, 64, 3).transpose(0, 2, 1, 3, 4).reshape(128, -1, 3)
                                    for s in strip if len(s) == 48])  # fmt: skip
            Image.fromarray(sheet).save(options.work / "reconstructions.png")


if __name__ == "__main__":
    main()
