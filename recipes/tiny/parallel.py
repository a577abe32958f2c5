"""Train on several processes at once: each takes a share of the batch, and gradients are averaged once per step.

On a busy machine this beats as many threads, which wait for each other inside every operation. Start a recipe with
`torchrun --nproc-per-node 2 recipes/tiny/denoiser.py …`; without torchrun there is one process, and nothing changes.
"""

import os

import torch
import torch.distributed as dist

PROCESSES = int(os.environ.get("WORLD_SIZE", 1))
RANK = int(os.environ.get("RANK", 0))


def start(module: torch.nn.Module) -> None:
    """Join the other processes, and take the weights of the first."""
    if PROCESSES > 1:
        dist.init_process_group("gloo")
        for value in module.state_dict().values():
            dist.broadcast(value, 0)


def once(make):
    """`make()`, first in the first process, so that what it leaves on disk is there for the others."""
    if PROCESSES > 1 and RANK > 0:
        dist.barrier()
    made = make()
    if PROCESSES > 1 and RANK == 0:
        dist.barrier()
    return made


def average_gradients(weights: list[torch.nn.Parameter], *scalars: float) -> list[float]:
    """Average the gradients over the processes, in place, and the scalars, returned."""
    if PROCESSES == 1:
        return list(scalars)
    flat = torch.cat([torch.tensor(scalars), *(weight.grad.flatten() for weight in weights)])
    dist.all_reduce(flat)
    flat /= PROCESSES
    averaged, gradients = flat.split([len(scalars), len(flat) - len(scalars)])
    for weight, part in zip(weights, gradients.split([weight.numel() for weight in weights])):
        weight.grad.copy_(part.view_as(weight))
    return averaged.tolist()
