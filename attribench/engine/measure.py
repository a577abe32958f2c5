"""What a piece of work costs: seconds and peak memory.

with measure("cpu") as cost:
    method.fit(study, state)
cost.seconds, cost.peak_bytes
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

SAMPLING_SECONDS = 0.02


@dataclass
class Cost:
    """Filled in when the measured block ends."""

    seconds: float = 0.0
    peak_bytes: int = 0


@contextmanager
def measure(device: str) -> Iterator[Cost]:
    """Time the block, and the most memory it held above what was held at its start.

    On the CPU, memory is the growth of this process's resident set, sampled every 20 ms: an upper bound
    when other steps run in the same process, and blind to memory that an earlier step freed and this one
    takes again. On CUDA it is the growth of torch's allocator (`torch.cuda.max_memory_allocated`), exact.
    """
    cost = Cost()
    memory = _cuda_growth(device) if device.startswith("cuda") else _resident_growth()
    with memory as growth:
        start = time.perf_counter()
        try:
            yield cost
        finally:
            cost.peak_bytes = growth()
            cost.seconds = time.perf_counter() - start


@contextmanager
def _resident_growth() -> Iterator:
    process = psutil.Process()
    start = peak = process.memory_info().rss
    ended = threading.Event()

    def sample() -> int:
        nonlocal peak
        peak = max(peak, process.memory_info().rss)
        return peak - start

    def sample_until_ended() -> None:
        while not ended.wait(SAMPLING_SECONDS):
            sample()

    sampler = threading.Thread(target=sample_until_ended, daemon=True, name="attribench-measure")
    sampler.start()
    try:
        yield sample
    finally:
        ended.set()
        sampler.join()


@contextmanager
def _cuda_growth(device: str) -> Iterator:
    import torch

    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    start = torch.cuda.memory_allocated(device)

    def growth() -> int:
        torch.cuda.synchronize(device)  # work still queued belongs to this block's time as well
        return torch.cuda.max_memory_allocated(device) - start

    yield growth
