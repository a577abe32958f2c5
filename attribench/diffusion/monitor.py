"""Monitoring customization: the attribution table M of MONTRAGE (Eq. 6, Algorithm 1).

    M[i, j] += || V_j(after the step) − V_j(before it) ||     for every training image i of the step's batch

V_j = W_v E(p_j) is the cross-attention value tensor of Eq. 5 for the monitored prompt p_j: all value layers
beside each other, for every token. It needs the text encoder and the projections, never the UNet.

Brokman et al., "MONTRAGE: Monitoring training for attribution of generative diffusion models", ECCV 2024.
The authors' code is not available: what the paper leaves open is a field of `ValueMonitor`.

Cost a step: one matrix product [prompts · tokens, d_text] × [d_text, sum of layer widths]. Prompts are
encoded anew only when a modifier that they hold has moved. Memory: the hidden states of the prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from attribench.diffusion.observing import TrainingObserver, Watch
from attribench.errors import MethodError

if TYPE_CHECKING:
    from attribench.diffusion.model import DiffusionModel

BLOCK_FLOATS = 2**17
"""512 KiB of V at a time: what a core keeps in its own cache."""
ENCODED_AT_ONCE = 64
"""Prompts that the text encoder sees together, so that memory is bounded."""
BLOCK_PREFIXES = {"all": "", "down": "down_blocks.", "mid": "mid_block.", "up": "up_blocks."}
ORDERS = {"l1": 1, "l2": 2}


@dataclass(frozen=True, kw_only=True)
class ValueMonitor(TrainingObserver):
    """Records M [n_train, n_prompts]; the observation is {"table": float64, columns in the order of `prompts`}."""

    prompts: tuple[str, ...]
    """P_monitor, each once: cases with the same prompt share a column, since V does not know the noise."""
    layers: Literal["all", "down", "mid", "up"] | tuple[str, ...] = "all"
    """Value layers: all, those of one part of the UNet, or by name (keys of `DiffusionModel.value_layers`)."""
    norm: Literal["l1", "l2"] = "l1"
    """The paper's is l1 (text below Eq. 6)."""
    reduction: Literal["sum", "layer-mean"] = "sum"
    """The norm over everything, or the mean over layers of each layer's mean absolute (l1) or root mean
    square (l2) change, which lets a narrow layer count as much as a wide one."""
    tokens: Literal["all", "no-bos", "words", "modifier"] = "all"
    """Which rows of V count: all; all but the start token; neither start nor end nor padding; modifiers only."""
    first_delta: Literal["count", "skip"] = "count"
    """count: V is recorded before the first step, as in Eq. 6. skip: Algorithm 1, line 17, as printed."""
    correction: Literal["none", "momentum"] = "none"
    """none: the change of V that the step made, the optimizer's memory of earlier samples included.
    momentum: the change of V along the gradient of this step's loss (see `_GradientWatch`)."""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise MethodError("nothing to monitor: the list of prompts is empty; give at least one prompt")
        if len(set(self.prompts)) != len(self.prompts):
            twice = next(prompt for prompt in self.prompts if self.prompts.count(prompt) > 1)
            raise MethodError(f"the prompt {twice!r} is monitored twice; give each prompt once and share its column")

    def start(self, model: DiffusionModel, n_train: int, n_steps: int) -> Watch:
        kind = {"none": _StepWatch, "momentum": _GradientWatch}[self.correction]
        with torch.no_grad():
            return kind(self, model, n_train)


class _ValueWatch(Watch):
    """Keeps the prompts' hidden states and M; a subclass says what change of V a step is credited with.

    A change is a product [n · length, inner] × [inner, sum of layer widths], made in blocks of rows that stay
    in the processor's cache while their norms are taken, so that no V is ever written to memory.
    """

    def __init__(self, monitor: ValueMonitor, model: DiffusionModel, n_train: int) -> None:
        self.model = model
        self.order = ORDERS[monitor.norm]
        layers = _chosen(model.value_layers(), monitor.layers)
        self.weights = [layer.weight for layer in layers]
        widths = [len(weight) for weight in self.weights]
        self.layer_mean = monitor.reduction == "layer-mean"
        self.blocks = widths if self.layer_mean else [sum(widths)]
        self.projection = self._projection()
        self.ids = model.tokenize(monitor.prompts)
        self.counts = _counted_tokens(model, self.ids, monitor.tokens)  # [n_prompts, length] of 0.0 and 1.0
        self.modifiers = model.modifiers
        self.seen = {token: vector.clone() for token, vector in self.modifiers.items()}
        self.holders = {token: [j for j, prompt in enumerate(monitor.prompts) if token in prompt] for token in self.modifiers}
        self.rows_at_once = max(1, BLOCK_FLOATS // sum(widths))
        self.states = self._encode(self.ids)
        self.table = torch.zeros(n_train, len(self.ids), dtype=torch.float64, device=self.ids.device)
        self.counts_next = monitor.first_delta == "count"

    @torch.no_grad()
    def after_step(self, rows: Sequence[int]) -> None:
        changes = self._changes()
        if self.counts_next:
            self.table[sorted(set(rows))] += changes  # Eq. 6: all of it, for every i in the batch
        self.counts_next = True

    def finish(self) -> dict[str, np.ndarray]:
        return {"table": self.table.cpu().numpy()}

    def _changes(self) -> Tensor:
        """The norm of each prompt's change of V, [n_prompts] float64."""
        raise NotImplementedError

    def _moved(self) -> list[int]:
        """The prompts that hold a modifier which has moved since the last call.

        Values are compared, since fused optimizers do not raise `Tensor._version`.
        """
        moved = [token for token, vector in self.modifiers.items() if not torch.equal(vector, self.seen[token])]
        for token in moved:
            self.seen[token].copy_(self.modifiers[token])
        return sorted({j for token in moved for j in self.holders[token]})

    def _projection(self) -> Tensor:
        """W_v of all layers as it is now, [sum of widths, d_text]."""
        return torch.cat([weight.detach() for weight in self.weights]).float()

    def _encode(self, ids: Tensor) -> Tensor:
        """Hidden states [n, length, d_text] of prompts [n, length], a bounded number at a time."""
        return torch.cat([self.model.encode_prompts(some).float() for some in ids.split(ENCODED_AT_ONCE)])

    def _changes_along(self, step: Tensor, fresh: Tensor, held: Sequence[int], states_step: Tensor) -> Tensor:
        """|| E stepᵀ ||, and of the prompts `held`, whose states change too, || [E, states_step] [step, fresh]ᵀ ||."""
        changes = self._norms(self.states, step, self.counts)
        factors = torch.cat([self.states[held], states_step], dim=2)
        changes[held] = self._norms(factors, torch.cat([step, fresh], dim=1), self.counts[held])
        return changes

    def _norms(self, left: Tensor, right: Tensor, counts: Tensor) -> Tensor:
        """The norm of each prompt's left @ rightᵀ: [n] float64.

        left [n, length, inner], right [sum of widths, inner], counts [n, length].
        """
        power = Tensor.abs_ if self.order == 1 else Tensor.square_  # in place
        sums = [
            torch.stack([part.sum(dim=1) for part in power(rows @ right.T).split(self.blocks, dim=1)], dim=1)
            for rows in left.flatten(0, 1).split(self.rows_at_once)
        ]
        per_token = torch.cat(sums).double().unflatten(0, (-1, left.shape[1]))  # [n, length, blocks]
        sums = (per_token * counts[:, :, None]).sum(dim=1)
        if self.layer_mean:
            widths = torch.tensor(self.blocks, dtype=torch.float64, device=sums.device)
            sums = sums / (counts.sum(dim=1, keepdim=True).clamp(min=1) * widths)
        return sums.pow(1 / self.order).mean(dim=1)


class _StepWatch(_ValueWatch):
    """|| V − V before the step ||, as Eq. 6 has it, from the changes of its factors.

        V = E Wᵀ:   V' − V = E ΔWᵀ                    where the prompt holds no modifier that moved
                    V' − V = [E, ΔE] [ΔW, W']ᵀ        where it does

    which is exact, and more accurate than the difference of two products, since a step is small beside V.
    """

    def _changes(self) -> Tensor:
        fresh = self._projection()
        step, self.projection = fresh - self.projection, fresh
        moved = self._moved()
        if not moved:
            return self._norms(self.states, step, self.counts)
        states = self._encode(self.ids[moved])
        changes = self._changes_along(step, fresh, moved, states - self.states[moved])
        self.states[moved] = states
        return changes


class _GradientWatch(_ValueWatch):
    """|| dV/ds || along (W_v, v*) − s · gradient: what a plain gradient step on this batch alone would change.

    Adam's step on one image carries the momentum of the images before it, so that Eq. 6 credits each image
    with its forerunners' changes. Here the optimizer's step is not looked at. With d the derivative along the
    step's gradient g, taken at the weights after the step,

        dV = E(p) g_Wᵀ + (J_E g_v*) W_vᵀ

    which is exact: no step size, no difference quotient. J_E g_v* is a forward derivative from two backward
    ones. Since τ divides each column by its sum, a constant learning rate cancels. The parameters' `.grad`
    must still be that of the step when the observer is called.
    """

    def _changes(self) -> Tensor:
        gradients = [weight.grad for weight in self.weights]
        moving = [token for token, vector in self.modifiers.items() if vector.grad is not None]
        if not moving and all(gradient is None for gradient in gradients):
            raise MethodError(
                "correction=momentum found no gradients after the step; call observers before gradients are cleared"
            )
        if moved := self._moved():
            self.states[moved] = self._encode(self.ids[moved])
        step = torch.cat([torch.zeros_like(w) if g is None else g for w, g in zip(self.weights, gradients, strict=True)]).float()
        held = sorted({j for token in moving for j in self.holders[token]})
        if not held:
            return self._norms(self.states, step, self.counts)
        along = torch.cat([self._states_along_gradient(some, moving) for some in self.ids[held].split(ENCODED_AT_ONCE)])
        return self._changes_along(step, self._projection(), held, along)

    def _states_along_gradient(self, ids: Tensor, moving: Sequence[str]) -> Tensor:
        """J_E g, [n, length, d_text]: derivative of u -> Jᵀu, which is linear in u, applied to g."""
        vectors: list[nn.Parameter] = [self.modifiers[token] for token in moving]
        with torch.enable_grad():
            states = self.model.encode_prompts(ids)
            u = torch.zeros_like(states, requires_grad=True)
            pulled = torch.autograd.grad(states, vectors, u, create_graph=True, materialize_grads=True)
            along = torch.autograd.grad(pulled, u, [vector.grad for vector in vectors])[0]
        return along.float()


def _chosen(layers: dict[str, nn.Linear], which: str | tuple[str, ...]) -> list[nn.Linear]:
    if isinstance(which, str):
        chosen = [layer for name, layer in layers.items() if name.startswith(BLOCK_PREFIXES[which])]
    else:
        unknown = [name for name in which if name not in layers]
        if unknown:
            raise MethodError(f"no value layer is called {unknown[0]!r}; the model has: {', '.join(layers)}")
        chosen = [layers[name] for name in which]
    if not chosen:
        raise MethodError(f"the model has no value layer in layers={which!r}; it has: {', '.join(layers)}")
    return chosen


def _counted_tokens(model: DiffusionModel, ids: Tensor, which: str) -> Tensor:
    """1.0 where a token [n_prompts, length] counts."""
    start, end = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    if which == "all":
        counted = torch.ones_like(ids, dtype=torch.bool)
    elif which == "no-bos":
        counted = ids != start
    elif which == "words":
        before_end = (ids == end).long().cumsum(dim=1) == 0
        counted = before_end & (ids != start)
    else:
        modifier_ids = model.tokenizer.convert_tokens_to_ids(list(model.modifiers))
        counted = torch.isin(ids, torch.tensor(modifier_ids, dtype=ids.dtype, device=ids.device))
    return counted.double()
