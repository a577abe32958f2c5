"""Train dino-tiny: a small ResNet of timm on the base corpus's pictures alone, without captions or labels.

Self-supervised, as DINO is, but by VICReg (Bardes et al., ICLR 2022), which needs no teacher and bears small batches:

    25 · mse(z, z')  +  25 · mean_j max(0, 1 − std(z_j))  +  Σ_{i≠j} cov(z)²_ij / d          z = expander(backbone(view))

Two views of a drawing differ in place, size, turn, flip, background and tint (views.py). The folder that it writes loads
without a network:

    timm.create_model("local-dir:attribench/assets/dino-tiny", pretrained=True)

    python recipes/tiny/dino.py --work DIR --minutes 28 --resume
"""

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

from checkpoint import MovingAverage, mixed_precision, restore, save, write_atomically
from corpus import PICTURE_SIZE, Painter, load
from neighbours import neighbours
from views import draw_view, tinted

SEED = 5
BATCH = 128
PEAK_RATE, FINAL_RATE, WARMUP_STEPS = 2e-3, 1e-5, 100
AVERAGE_DECAY = 0.995
SAVE_EVERY = 180  # seconds
EXPANDED = 1024
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
ARCHITECTURE = "resnet18"
MODEL_ARGS = {"layers": [1, 2, 2, 1], "channels": [48, 96, 192, 288], "stem_width": 32, "stem_type": "deep_tiered",
              "avg_down": True}  # fmt: skip
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def new_backbone() -> nn.Module:
    return timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0, **MODEL_ARGS)


class Learner(nn.Module):
    """The backbone whose features are kept, and the expander that the loss looks through."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = new_backbone()
        self.expander = nn.Sequential(
            nn.Linear(self.backbone.num_features, EXPANDED), nn.BatchNorm1d(EXPANDED), nn.ReLU(),
            nn.Linear(EXPANDED, EXPANDED), nn.BatchNorm1d(EXPANDED), nn.ReLU(),
            nn.Linear(EXPANDED, EXPANDED),
        )  # fmt: skip

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.expander(self.backbone(pictures))


def vicreg(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The loss of two views' expanded features [B, d] each."""
    loss = INVARIANCE * nn.functional.mse_loss(first, second)
    for view in (first, second):
        centred = view - view.mean(dim=0)
        deviation = (centred.square().mean(dim=0) + 1e-4).sqrt()
        loss = loss + VARIANCE * (1 - deviation).clamp(min=0).mean() / 2
        covariance = centred.T @ centred / (len(view) - 1)
        loss = loss + COVARIANCE * (covariance.square().sum() - covariance.diagonal().square().sum()) / view.shape[1]
    return loss


@torch.no_grad()
def encode_pictures(backbone: nn.Module, pictures: np.ndarray) -> torch.Tensor:
    """Features [n, d] of uint8 pictures [n, 64, 64, 3]."""
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    return torch.cat([backbone(part) for part in batch.split(128)])


@torch.no_grad()
def instances(backbone: nn.Module, painter: Painter, held_out: list[int]) -> dict[str, float]:
    """Top-1 of finding a held-out drawing's second view among the second views of all held-out drawings."""
    rng = np.random.default_rng(0)
    first, second = (
        nn.functional.normalize(encode_pictures(backbone, np.stack([draw_view(painter, rng, i)[0] for i in held_out])), dim=1)
        for _ in range(2)
    )
    right = (first @ second.T).argmax(dim=1) == torch.arange(len(held_out))
    return {"instance_top1": round(right.float().mean().item(), 3), "pictures": len(held_out)}


def averaged_backbone(average: MovingAverage) -> nn.Module:
    learner = Learner()
    learner.load_state_dict(average.weights)
    return learner.backbone.eval()


def export(backbone: nn.Module, folder: Path, record: dict) -> None:
    """Write the folder that timm's `local-dir:` reads, in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocessing = {"input_size": [3, PICTURE_SIZE, PICTURE_SIZE], "interpolation": "bicubic", "crop_pct": 1.0,
                     "crop_mode": "center", "mean": MEAN, "std": STD}  # fmt: skip
    described = {
        "architecture": ARCHITECTURE, "num_classes": 0, "num_features": backbone.num_features, "model_args": MODEL_ARGS,
        "pretrained_cfg": {"tag": "dino-tiny", "num_classes": 0, "first_conv": "conv1.0", "classifier": "fc", **preprocessing},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(described, indent=1))
    weights = {n: v.half() if v.is_floating_point() else v for n, v in backbone.state_dict().items()}
    write_atomically(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "recipe.json").write_text(json.dumps(record, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder with corpus.npz and corpus.json")
    parser.add_argument("--out", type=Path, help="where dino-tiny goes (default WORK/dino-tiny)")
    parser.add_argument("--minutes", type=float, default=28, help="of processor time")
    parser.add_argument("--labelled", type=Path, nargs="*", default=[], help="folders of label folders to report on")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)

    drawings, rows, data_hash = load(options.work)
    painter = Painter(drawings)
    trainable = np.flatnonzero([not row["held_out"] for row in rows])
    held_out = [index for index, row in enumerate(rows) if row["held_out"]]

    learner = Learner().train()
    optimizer = torch.optim.AdamW(learner.parameters(), PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    average = MovingAverage(learner, AVERAGE_DECAY)
    path = options.work / "dino.checkpoint.safetensors"
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
        views = np.stack([draw_view(painter, rng, index)[0] for _ in range(2) for index in chosen])
        pictures = tinted(torch.from_numpy(views).permute(0, 3, 1, 2) / 127.5 - 1, draws)
        with mixed_precision():
            expanded = learner(pictures)
        loss = vicreg(*expanded.float().chunk(2))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
        optimizer.step()
        average.update()
        progress["step"] += 1
        progress["seconds"] = time.process_time() - clock
        running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
        if progress["step"] % 25 == 0:
            print(f"{progress['step']} {progress['seconds']:.0f}s loss {running:.4f}", flush=True)
        if progress["seconds"] - saved > SAVE_EVERY or progress["seconds"] >= 60 * options.minutes:
            saved = progress["seconds"]
            backbone = averaged_backbone(average)
            figures = instances(backbone, painter, held_out)
            encode = partial(encode_pictures, backbone)
            figures |= {folder.name: neighbours(encode, folder) for folder in options.labelled if folder.exists()}
            progress["history"].append({"step": progress["step"], "loss": round(running, 4), **figures})
            print(progress["history"][-1], flush=True)
            save(path, average, optimizer, progress)
            record = {
                "model": "dino-tiny", "data_hash": data_hash, "seed": SEED, "batch": BATCH, "steps": progress["step"],
                "minutes": round(progress["seconds"] / 60, 1), "figures": figures, "torch": torch.__version__,
                "timm": timm.__version__, "parameters": sum(p.numel() for p in backbone.parameters()),
            }  # fmt: skip
            export(backbone, options.out or options.work / "dino-tiny", record)


if __name__ == "__main__":
    main()
