"""One resumable training state in one safetensors file: weights, their moving average, and the optimizer."""

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


class MovingAverage:
    """Exponential moving average of a module's parameters, started short so that the first steps are forgotten."""

    def __init__(self, module: torch.nn.Module, decay: float):
        self.module, self.decay, self.steps = module, decay, 0
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - keep)
            else:
                self.weights[name].copy_(value)


def write_atomically(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    beside = path.with_suffix(".part")
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, beside, metadata=metadata)
    beside.chmod(0o644)
    os.replace(beside, path)


def save(path: Path, average: MovingAverage, optimizer: torch.optim.Optimizer, progress: dict) -> None:
    """Write everything that a resumed run needs; `progress` is plain json (step, seconds, history)."""
    tensors = {f"weights/{name}": value for name, value in average.module.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
    write_atomically({n: v.clone() for n, v in tensors.items()}, path, {"progress": json.dumps(progress)})


def restore(path: Path, average: MovingAverage, optimizer: torch.optim.Optimizer) -> dict:
    """Load what `save` wrote into the same objects; return the progress."""
    weights, optimizer_state = {}, {}
    with safe_open(path, framework="pt") as stored:
        progress = json.loads(stored.metadata()["progress"])
        for key in stored.keys():
            kind, _, name = key.partition("/")
            if kind == "weights":
                weights[name] = stored.get_tensor(key)
            elif kind == "average":
                average.weights[name] = stored.get_tensor(key)
            else:
                index, _, field = name.partition("/")
                optimizer_state.setdefault(int(index), {})[field] = stored.get_tensor(key)
    average.module.load_state_dict(weights)
    average.steps = progress["step"]
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": optimizer_state, "param_groups": groups})
    return progress


def mixed_precision() -> torch.autocast:
    """bfloat16 where the processor computes in it; float32 elsewhere, where emulating it is slower by far."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())
