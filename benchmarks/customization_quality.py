"""Do the pictures that a customized model makes show the concepts that were asked for?

    python benchmarks/customization_quality.py --dataset artchive --dataset customconcept101 --split dev

A probe, multinomial logistic regression on clip-tiny image features, learns to tell the five concepts of a
study from the real training pictures and then names the concept of each generated query. The real pictures
pass through the model's autoencoder first, as every generated one does, so that the probe learns the
concepts and not the blur; it learns from their mirror images too. Of an un-mixed query its first guess is
right or wrong (chance 20 %); of a mixed one its first two, which have to be both concepts (chance 10 %).
Both shares are printed with their intervals over studies, beside the probe's own leave-one-out accuracy
on the real pictures, without which they mean nothing: what it cannot tell apart in real pictures, it
cannot in generated ones. Asked for: un-mixed >= 85 % where real >= 90 %, mixed >= 60 %.
Trains and generates what is not cached, by the same steps as `attribench run`.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from machine import describe
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from attribench.cli.progress import listener_for
from attribench.data.pictures import square
from attribench.diffusion.model import DiffusionModel
from attribench.encoders import load_encoder
from attribench.engine.run import execute
from attribench.run.config import RunConfig
from attribench.run.places import tiny_model
from attribench.run.prepare import prepare
from attribench.run.prepared import Prepared
from attribench.statistics.intervals import estimate
from attribench.study.generated import generated
from attribench.study.plan import StudyPlan

PENALTY = 1e-2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", action="append", help="customconcept101 and artchive without it; can be repeated")
    parser.add_argument("--split", default="test")
    parser.add_argument("--studies", type=int, help="how many; without it those of the preset")
    parser.add_argument("--param", action="append", default=[])
    options = parser.parse_args()
    console = Console(width=140)
    console.print(describe())
    for dataset in options.dataset or ["customconcept101", "artchive"]:
        params = [*options.param, *([f"between-concepts.n_studies={options.studies}"] if options.studies else [])]
        report(console, dataset, options.split, params)


def report(console: Console, dataset: str, split: str, params: list[str]) -> None:
    """Print the table of one data set, and its shares."""
    prepared = prepare(RunConfig.gather(None, methods=["random"], dataset=dataset, split=split, params=params))
    execute([study.pictures for study in prepared.studies.values()], prepared.store, listener=listener_for(False))
    table = Table("study", "concepts", "real, leave one out", "un-mixed", "mixed, both", box=None)
    right: dict[str, list[tuple[str, np.ndarray]]] = {"real": [], "un-mixed": [], "mixed": []}
    for plan in prepared.plans:
        of_study = probe(prepared, plan)
        for kind, values in of_study.items():
            right[kind].append((plan.id, values))
        shares = (f"{100 * values.mean():.0f} % of {len(values)}" for values in of_study.values())
        table.add_row(plan.id, ", ".join(plan.concepts), *shares)
    console.print(table)
    for kind, chance in (("real", 20), ("un-mixed", 20), ("mixed", 10)):
        values = np.concatenate([values for _, values in right[kind]])
        share = estimate(values.tolist(), [study for study, values in right[kind] for _ in values])
        console.print(
            f"{dataset} {split}, {kind}: {100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}] of "
            f"{share.n_queries} pictures of {share.n_studies} studies; chance {chance} %"
        )


def probe(prepared: Prepared, plan: StudyPlan) -> dict[str, np.ndarray]:
    """Right or wrong: real pictures left out one at a time, un-mixed queries, and mixed ones for both concepts."""
    encoder = load_encoder("clip-tiny")
    images = plan.training.images
    labels = np.array([plan.concepts.index(image.concept) for image in images])
    model = DiffusionModel.load(tiny_model())
    real = [reconstructed(model, square(prepared.dataset.load(image.id), model.resolution)) for image in images]
    features = normalised(encoder.encode_images(real))
    mirrored = normalised(encoder.encode_images(ImageOps.mirror(picture) for picture in real))
    right = {
        "real": np.array([
            named(learned(features, mirrored, labels, leave_out=i), features[i : i + 1])[0, 0] == labels[i]
            for i in range(len(real))
        ])
    }  # fmt: skip
    folder = prepared.store.path(prepared.studies[plan.id].pictures.keys["pictures"])
    weights = learned(features, mirrored, labels)
    cases, pictures = plan.roles("query"), generated(plan, folder, "query")
    for variant in ("un-mixed", "mixed"):
        rows = [i for i, case in enumerate(cases) if case.variant == variant]
        guesses = named(weights, normalised(encoder.encode_images(pictures[i] for i in rows)))
        asked = [{plan.concepts.index(concept) for concept in cases[i].concepts} for i in rows]
        right[variant] = np.array([set(row[: len(of)]) == of for row, of in zip(guesses.tolist(), asked, strict=True)])
    return right


def reconstructed(model: DiffusionModel, picture: Image.Image) -> Image.Image:
    """The picture as the autoencoder gives it back."""
    mean, _ = model.latent_moments(model.pixels([picture]))
    with torch.no_grad():
        pixels = model.vae.decode(mean / model.vae.config.scaling_factor).sample[0]
    return Image.fromarray(((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def learned(
    features: np.ndarray, mirrored: np.ndarray, labels: np.ndarray, leave_out: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The probe, learned from all real pictures and their mirror images, or all but one."""
    kept = np.arange(len(labels)) != (-1 if leave_out is None else leave_out)
    return fit(np.concatenate([features[kept], mirrored[kept]]), np.tile(labels[kept], 2), labels.max() + 1)


def normalised(features: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(features, dim=1).double().numpy()


def fit(features: np.ndarray, labels: np.ndarray, n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [d, n_classes] and bias of the penalised multinomial logistic regression, by L-BFGS."""
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    weight = torch.zeros(x.shape[1], n_classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(n_classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight + bias, y) + PENALTY * weight.square().sum() / len(x)
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def named(model: tuple[torch.Tensor, torch.Tensor], features: np.ndarray) -> np.ndarray:
    """[n, n_classes]: the classes of each picture, the likeliest first."""
    return (torch.from_numpy(features) @ model[0] + model[1]).argsort(dim=1, descending=True).numpy()


if __name__ == "__main__":
    main()
