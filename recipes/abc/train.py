"""Train the heads of AbC for the small encoders, on the models of a gendata edition's `train` lists.

Pairs are an exemplar of a customized model and a picture that it made (methods/abc/training.py). Temperature, weight of the
orthogonality and number of epochs are those of the highest mAP on the models of the `val` lists, mean over three seeds,
each picture's exemplars looked for among the distractors as in exemplar retrieval. The calibrator learns from the same
models. No model of the `test` lists is looked at.

    python recipes/abc/train.py                                    # the mini edition, into attribench/assets/abc-tiny
    python recipes/abc/train.py --data-root ~/data/gendata --encoder ViT-B-32/openai --device cuda --out ~/abc-clip
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from attribench import encoders
from attribench.data import ExemplarDataset, ExemplarModel
from attribench.data.contents import fingerprint
from attribench.editions import open_dataset
from attribench.encoders.encoder import Encoder
from attribench.data import Pictures
from attribench.methods.abc import SHIPPED
from attribench.methods.abc.calibrator import Calibrator
from attribench.methods.abc.heads import Heads
from attribench.methods.abc.training import Group, Schedule, train_heads
from attribench.statistics.intervals import bootstrap

TEMPERATURES = (0.05, 0.1, 0.2, 0.5, 1.0)
ORTHOGONALITIES = (0.0, 0.1, 1.0, 10.0)
EPOCHS = 20
SEEDS = (0, 1, 2)
BATCH, RATE = 64, 1e-3


@dataclass(frozen=True)
class Judged:
    """Models that the choice is made by, as features."""

    groups: list[Group]
    distractors: Tensor

    def average_precisions(self, heads: Heads) -> tuple[np.ndarray, np.ndarray]:
        """AP of every picture, and the number of its model."""
        of_distractors = heads.embed_training(self.distractors)
        values, models = [], []
        for number, group in enumerate(self.groups):
            made = heads.embed_synthesized(group.synthesized)
            exemplars = made @ heads.embed_training(group.exemplars).T
            values += _average_precision(exemplars, made @ of_distractors.T)
            models += [number] * len(made)
        return np.array(values), np.array(models)

    def scores(self, heads: Heads) -> tuple[Tensor, Tensor]:
        """Similarities of every picture to its pool, and which of these are exemplars; pools are padded to one length."""
        longest = max(len(group.exemplars) for group in self.groups)
        rows, relevant = [], []
        for group in self.groups:
            exemplars = heads.similarity(group.synthesized, group.exemplars)
            padding = torch.full((len(exemplars), longest - exemplars.shape[1]), -2.0)
            rows.append(torch.cat([exemplars, padding, heads.similarity(group.synthesized, self.distractors)], dim=1))
            own = torch.zeros_like(rows[-1], dtype=torch.bool)
            own[:, : exemplars.shape[1]] = True
            relevant.append(own)
        return torch.cat(rows), torch.cat(relevant)


def _average_precision(exemplars: Tensor, distractors: Tensor) -> list[float]:
    """Mean over exemplars of i / place of the i-th found; an exemplar that ties with distractors comes after them."""
    ordered = exemplars.sort(dim=1, descending=True).values
    before = (distractors[:, None, :] >= ordered[:, :, None]).sum(dim=2)
    found = torch.arange(1, ordered.shape[1] + 1)
    return (found / (found + before)).mean(dim=1).tolist()


def groups_of(encoder: Encoder, dataset: ExemplarDataset, models: Iterable[ExemplarModel]) -> list[Group]:
    """The features of each model's exemplars and pictures."""
    found = []
    for model in models:
        made = [picture.id for family in model.pictures.values() for picture in family]
        exemplars = [image.id for image in model.exemplars]
        found.append(Group(*(encoder.encode_images(Pictures(ids, dataset.load)) for ids in (exemplars, made))))
    return found


def learn(encoder: Encoder, dataset: ExemplarDataset, out: Path) -> dict:
    """Choose, train, calibrate and write the heads of one encoder; what the recipe records of them."""
    groups = groups_of(encoder, dataset, dataset.models("train"))
    distractors = encoder.encode_images(Pictures([image.id for image in dataset.distractors], dataset.load))
    judged = Judged(groups_of(encoder, dataset, dataset.models("val")), distractors)
    dimension = distractors.shape[1]
    raw, models = judged.average_precisions(Heads("linear", dimension).eval().requires_grad_(False))

    curves = {}
    for temperature, orthogonality in product(TEMPERATURES, ORTHOGONALITIES):
        schedule = Schedule(
            temperature=temperature, orthogonality=orthogonality, epochs=EPOCHS, batch_size=BATCH, learning_rate=RATE
        )
        by_seed = [_curve(groups, judged, dimension, schedule, seed) for seed in SEEDS]
        curves[temperature, orthogonality] = np.mean(by_seed, axis=0)
        best = curves[temperature, orthogonality].max()
        print(f"{encoder.name} τ {temperature} λ {orthogonality}: mAP {best:.4f} (raw {raw.mean():.4f})", flush=True)
    chosen = max(curves, key=lambda key: curves[key].max())
    epochs = int(curves[chosen].argmax()) + 1
    schedule = Schedule(
        temperature=chosen[0], orthogonality=chosen[1], epochs=epochs, batch_size=BATCH, learning_rate=RATE
    )
    heads = Heads("linear", dimension)
    losses = train_heads(heads, groups, schedule, SEEDS[0])
    learned, _ = judged.average_precisions(heads)
    calibrator = Calibrator.fit(*judged.scores(heads))
    gain = bootstrap((learned - raw)[None], models, 10_000, 0)

    out.mkdir(parents=True, exist_ok=True)
    name = encoder.name.replace("/", "-")
    _write({key: value.contiguous() for key, value in heads.state_dict().items()}, out / f"{name}.safetensors")
    scalars = {"inv_tau": torch.tensor(calibrator.inv_tau), "bias": torch.tensor(calibrator.bias)}
    _write(scalars, out / f"{name}.calibrator.safetensors")
    return {
        "encoder": encoders.fingerprint(encoder.name), "schedule": asdict(schedule), "seed": SEEDS[0],
        "models": {split: len(dataset.models(split)) for split in ("train", "val")},
        "pictures": {"train": sum(len(group.synthesized) for group in groups), "val": len(raw)},
        "val mAP": {"raw": round(raw.mean(), 4), "heads": round(learned.mean(), 4), "gain": round(gain.value[0], 4),
                    "gain interval": [round(gain.low[0], 4), round(gain.high[0], 4)]},
        "learning curve (loss, train)": [round(loss, 4) for loss in losses],
        "learning curve (val mAP, mean of seeds)": [round(value, 4) for value in curves[chosen]],
        "best val mAP of (temperature, orthogonality)": {f"{t}, {o}": round(c.max(), 4) for (t, o), c in curves.items()},
        "calibrator": asdict(calibrator),
    }  # fmt: skip


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path)
    path.chmod(0o644)


def _curve(groups: list[Group], judged: Judged, dimension: int, schedule: Schedule, seed: int) -> list[float]:
    """mAP on the judged models after each epoch."""
    heads, curve = Heads("linear", dimension), []

    def judge(epoch: int, loss: float) -> None:
        with torch.no_grad():
            curve.append(judged.average_precisions(heads)[0].mean())

    train_heads(heads, groups, schedule, seed, judge)
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", type=Path, default=None, help="the public data set; without it the mini edition")
    parser.add_argument("--encoder", action="append", default=[], help="default: clip-tiny and dino-tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=encoders.ASSETS / SHIPPED)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = open_dataset("gendata", "paper" if options.data_root else "mini", options.data_root)
    ids = [
        name
        for split in ("train", "val")
        for model in dataset.models(split)
        for name in [*(i.id for i in model.exemplars), *(p.id for made in model.pictures.values() for p in made)]
    ]
    record = {
        "made by": "recipes/abc/train.py", "edition": dataset.edition, "torch": torch.__version__,
        "data_hash": fingerprint(dataset, [*ids, *(image.id for image in dataset.distractors)]), "heads": {},
    }  # fmt: skip
    kept = options.out / "recipe.json"
    before = json.loads(kept.read_text()) if kept.is_file() else {}
    if before.get("data_hash") == record["data_hash"]:  # heads of other encoders, learned from the same models
        record["heads"] = before["heads"]
    for name in options.encoder or [name for name in encoders.SHIPPED if encoders.available(name) is None]:
        started = time.process_time()
        record["heads"][name] = learn(encoders.load_encoder(name, options.device), dataset, options.out)
        record["heads"][name]["minutes"] = round((time.process_time() - started) / 60, 1)
        kept.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
