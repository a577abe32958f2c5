"""Many customizations of one model, side by side: the frozen part sees one batch with the rows of all of them.

What differs between S customized models is small: the cross-attention projections and the modifier tokens. Both
depend on the prompt alone, so keys and values of every layer, model and prompt come from one batched product

    KV [S, prompts · length, width]  =  hidden states [S, prompts · length, d_text] × Wᵀ [S, d_text, width]

with the layers' outputs beside each other along `width`. The UNet then runs once over the rows of all models, each
row with its own model's keys and values, at the cost of one model with a batch of as many rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attribench.diffusion.model import DiffusionModel, ModifierEmbedding, require_fitting
from attribench.errors import ModelError


class StackedModel:
    """S customizations of `model`, by their `trained_weights`; a name that is missing keeps the model's own.

    Use it inside `installed()`, which puts stand-ins where the projections of `model` are: until it ends, nobody else
    may use `model`. Raises ModelError when weights do not fit, or when they hold a
    modifier that the model lacks.
    """

    def __init__(self, model: DiffusionModel, weights: Sequence[Mapping[str, Tensor]]) -> None:
        self.model = model
        layers = model.key_value_layers()
        if len({layer.in_features for layer in layers.values()}) > 1:
            raise ModelError("the UNet's cross-attention layers differ in their input width: train its models one by one")
        self._words: ModifierEmbedding = model.text_encoder.get_input_embeddings()
        self._layers = layers
        self._widths = [layer.out_features for layer in layers.values()]
        self._stand_ins = {name: _StandIn(layer) for name, layer in layers.items()}
        own = model.trained_weights()
        for given in weights:
            require_fitting(given, own)
        self._names = list(own)
        projections, modifiers = self._names[: len(layers)], self._names[len(layers) :]
        self.projections = torch.stack(
            [torch.cat([given.get(name, own[name]) for name in projections]).to(model.device) for given in weights]
        )
        """[S, width, d_text]: W_k and W_v of all layers beside each other."""
        self.modifiers = self.projections.new_empty(len(weights), len(modifiers), self.projections.shape[2])
        """[S, M, d_text], in the order of `model.modifiers`."""
        for vectors, given in zip(self.modifiers, weights, strict=True):
            for vector, name in zip(vectors, modifiers, strict=True):
                vector.copy_(given.get(name, own[name]))
        self._tokens: dict[str, Tensor] = {}

    def weights(self, number: int) -> dict[str, Tensor]:
        """One model's weights, with the names and shapes of `DiffusionModel.trained_weights`."""
        parts = (*self.projections[number].split(self._widths), *self.modifiers[number])
        return {name: part.detach().to("cpu", copy=True).contiguous() for name, part in zip(self._names, parts, strict=True)}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put the stand-ins in place; at the end `model` is as it was."""
        try:
            for name, stand_in in self._stand_ins.items():
                self.model.unet.set_submodule(name, stand_in)
            yield
        finally:
            for name, layer in self._layers.items():
                self.model.unet.set_submodule(name, layer)

    def held(self, prompt: str) -> set[int]:
        """The numbers of the modifiers that a prompt holds."""
        present = set(self._ids(prompt).tolist())
        return {number for number, token in enumerate(self._words.token_ids) if token in present}

    def encode(self, prompts: Sequence[Sequence[str]], modifiers: Tensor) -> Tensor:
        """Hidden states [k · c, length, d_text] of c prompts for each of k models with `modifiers` [k, M, d_text]."""
        ids = torch.stack([self._ids(prompt) for some in prompts for prompt in some])
        self._words.of_rows = modifiers[:, None].expand(-1, len(ids) // len(modifiers), -1, -1).flatten(0, 1)
        try:
            return self.model.encode_prompts(ids)
        finally:
            self._words.of_rows = None

    def keys_values(self, states: Tensor, projections: Tensor) -> Tensor:
        """Keys and values [k · c, length, width] from `states` [k · c, length, d_text] and `projections` [k, width, d_text]."""
        per_model = states.reshape(len(projections), -1, states.shape[2])
        return (per_model @ projections.transpose(1, 2)).unflatten(1, (-1, states.shape[1])).flatten(0, 1)

    def loss(self, states: Tensor, keys_values: Tensor, latents: Tensor, timesteps: Tensor, noise: Tensor,
             mask: Tensor | None = None) -> Tensor:  # fmt: skip
        """`DiffusionModel.loss` [n] of n rows, each with its own keys and values [n, length, width]."""
        for stand_in, part in zip(self._stand_ins.values(), keys_values.split(self._widths, dim=2), strict=True):
            stand_in.output = part
        try:
            return self.model.loss(latents, states, timesteps, noise, mask)
        finally:
            for stand_in in self._stand_ins.values():
                stand_in.output = None

    def _ids(self, prompt: str) -> Tensor:
        """Token ids [length]."""
        if prompt not in self._tokens:
            self._tokens[prompt] = self.model.tokenize([prompt])[0]
        return self._tokens[prompt]


class _StandIn(nn.Module):
    """Stands where a key or value projection was, and gives what the stack has computed for it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.bias = layer.bias
        self.output: Tensor | None = None

    def forward(self, _states: Tensor) -> Tensor:
        return self.output if self.bias is None else self.output + self.bias
