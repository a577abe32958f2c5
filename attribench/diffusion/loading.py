"""One lock for building models."""

from __future__ import annotations

import threading

LOADING = threading.Lock()
"""diffusers, transformers and open_clip change global state of torch (default dtype and device, initialisers,
random numbers) while they build a model, and workers may be threads of one process."""
