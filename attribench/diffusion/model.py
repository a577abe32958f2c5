"""The model under study: one loading path for the tiny model, a Stable Diffusion folder or a hub id.

`DiffusionModel` wraps the parts of a diffusers `StableDiffusionPipeline` and adds what attribution needs:
modifier tokens with their own parameters, the cross-attention projections by name, a loss per sample, and
batched sampling from fixed noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from attribench.data.pictures import square
from attribench.errors import ModelError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

VALUE_SUFFIX = "attn2.to_v"
KEY_SUFFIX = "attn2.to_k"


class ModifierEmbedding(nn.Module):
    """The frozen token table with one trainable vector per modifier token beside it.

    The public Custom Diffusion script trains the whole table and masks its gradient, which lets weight decay
    move every word and, with several modifiers, loses the last one's gradient (diffusers issues 1009 and
    7294). Here the table has no gradient at all, and a modifier that is not in a batch has `grad is None`,
    so that no optimizer moves it.
    """

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        self.vectors = nn.ParameterList()
        self.token_ids: list[int] = []
        self.of_rows: Tensor | None = None
        """[n, n_modifiers, d_text] in place of `vectors`: other ones for each row of the batch."""

    @property
    def weight(self) -> Tensor:
        """The frozen table, where transformers looks for it."""
        return self.table.weight

    def add(self, token_id: int, initial: Tensor) -> None:
        """One more modifier, [d_text]."""
        self.token_ids.append(token_id)
        self.vectors.append(nn.Parameter(initial.detach().clone()))

    def forward(self, ids: Tensor) -> Tensor:
        """ids [n, length] -> embeddings [n, length, d_text]."""
        embedded = self.table(ids.clamp(max=self.table.num_embeddings - 1))
        for number, token_id in enumerate(self.token_ids):
            here = ids == token_id
            if here.any():
                vector = self.vectors[number] if self.of_rows is None else self.of_rows[:, number, None]
                embedded = torch.where(here[..., None], vector, embedded)
        return embedded


class DiffusionModel:
    """A latent text-to-image diffusion model, frozen and in eval mode. Shapes: latents [n, c, h, w]."""

    def __init__(self, pipeline: StableDiffusionPipeline, device: str) -> None:
        from diffusers import DDIMScheduler  # here, since it takes seconds to import

        self.device = device
        self.vae = pipeline.vae.to(device).eval().requires_grad_(False)
        self.unet = pipeline.unet.to(device).eval().requires_grad_(False)
        self.text_encoder = pipeline.text_encoder.to(device).eval().requires_grad_(False)
        # Plain attention: exact second derivatives for the monitor's correction, without a switch of torch's
        # that other threads of this process would see.
        self.text_encoder.set_attn_implementation("eager")
        self.tokenizer = pipeline.tokenizer
        self.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
        if not self.value_layers():
            raise ModelError(
                "the UNet has no cross-attention value projection (attn2.to_v); use a text-conditional UNet2DConditionModel"
            )
        if self.scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
            raise ModelError(f"prediction type {self.scheduler.config.prediction_type!r} is not supported; use epsilon")
        self._words = ModifierEmbedding(self.text_encoder.get_input_embeddings())
        self.text_encoder.set_input_embeddings(self._words)
        self._modifier_names: list[str] = []

    @classmethod
    def load(cls, reference: str | Path, device: str = "cpu") -> DiffusionModel:
        """From a diffusers folder or a hub id; safetensors only. Raises ModelError with what to do next."""
        from attribench.diffusion.pipelines import read_pipeline  # here, since diffusers takes seconds to import

        return cls(read_pipeline(reference), device)

    # ------------------------------------------------------------------------------------- geometry

    @property
    def resolution(self) -> int:
        """Side of a picture in pixels."""
        return self.unet.config.sample_size * self.downscale

    @property
    def downscale(self) -> int:
        """Pixels per latent cell and side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""
        side = self.unet.config.sample_size
        return (self.unet.config.in_channels, side, side)

    @property
    def n_timesteps(self) -> int:
        return self.scheduler.config.num_train_timesteps

    # ----------------------------------------------------------------------------------------- text

    @property
    def modifiers(self) -> dict[str, nn.Parameter]:
        """Modifier token -> its embedding [d_text]; training updates it in place."""
        return dict(zip(self._modifier_names, self._words.vectors, strict=True))

    def add_modifiers(self, initial_words: Mapping[str, str | None]) -> None:
        """New tokens, each starting from the mean embedding of a word, or, for None, from a rare token.

        Rare tokens stand for the public script's "ktn+pll+ucd", which holds only three: the i-th modifier
        starts from the i-th last entry of the vocabulary, where byte-pair encoding puts what it merged last.
        """
        vocabulary_size = self._words.table.num_embeddings
        special = set(self.tokenizer.all_special_ids)
        rare = [i for i in range(vocabulary_size - 1, -1, -1) if i not in special]
        for token, word in initial_words.items():
            if self.tokenizer.add_tokens([token]) != 1:
                raise ModelError(f"the model's vocabulary already holds {token!r}; choose another modifier token")
            words = None if word is None else self.tokenizer(word, add_special_tokens=False).input_ids
            ids = words or [rare[len(self._modifier_names)]]
            initial = self._words.table.weight[torch.tensor(ids, device=self.device)].mean(dim=0)
            self._words.add(self.tokenizer.convert_tokens_to_ids(token), initial)
            self._modifier_names.append(token)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids [n, length], padded and cut to the model's length."""
        encoded = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return encoded.input_ids.to(self.device)

    def encode_prompts(self, prompts: Sequence[str] | Tensor) -> Tensor:
        """The text encoder's last hidden state, [n, length, d_text]; differentiable in the modifiers."""
        ids = prompts if isinstance(prompts, Tensor) else self.tokenize(prompts)
        return self.text_encoder(ids).last_hidden_state

    # ------------------------------------------------------------------------------------- pictures

    def pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Pictures in [-1, 1], [n, 3, resolution, resolution]: shorter side resized, centre cropped."""
        return torch.stack([_to_tensor(square(picture, self.resolution)) for picture in pictures]).to(self.device)

    @torch.no_grad()
    def latent_moments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled mean and standard deviation of the latents, [n, c, h, w] each."""
        posterior = self.vae.encode(pixels).latent_dist
        scale = self.vae.config.scaling_factor
        return posterior.mean * scale, posterior.std * scale

    # ----------------------------------------------------------------------------------------- loss

    def predict(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """The UNet's output for noisy latents [n, c, h, w]."""
        return self.unet(latents, timesteps, encoder_hidden_states=context).sample

    def loss(self, latents: Tensor, context: Tensor, timesteps: Tensor, noise: Tensor, mask: Tensor | None = None) -> Tensor:
        """Squared error of the prediction, averaged per sample: [n].

        `mask` [n, 1, h, w] limits the average to where the picture is (Custom Diffusion's augmentation).
        """
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        if self.scheduler.config.prediction_type == "epsilon":
            target = noise
        else:
            target = self.scheduler.get_velocity(latents, noise, timesteps)
        error = (self.predict(noisy, timesteps, context) - target).square()
        if mask is None:
            return error.mean(dim=(1, 2, 3))
        channels = error.shape[1]
        return (error * mask).sum(dim=(1, 2, 3)) / (mask.sum(dim=(1, 2, 3)) * channels)

    # ------------------------------------------------------------------------------------- sampling

    def sampling_timesteps(self, steps: int) -> Tensor:
        """The timesteps [steps] int64 at which `sample` asks the UNet, falling."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(steps)
        return scheduler.timesteps

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        noise: Tensor,
        *,
        steps: int,
        guidance: float,
        report: Callable[[], None] = lambda: None,
        estimates: list[Tensor] | None = None,
    ) -> list[Image.Image]:
        """One picture per prompt by DDIM (eta 0) with classifier-free guidance from `noise` [n, c, h, w].

        `estimates` receives, for each of `sampling_timesteps(steps)`, the predicted clean latents [n, c, h, w].
        """
        from attribench.diffusion.pipelines import sampling_pipeline  # here, since diffusers takes seconds to import

        def each_step(_pipeline, _index, _timestep, values):
            report()
            return values

        pipeline = sampling_pipeline(
            self.scheduler.config, estimates, vae=self.vae, text_encoder=self.text_encoder, tokenizer=self.tokenizer,
            unet=self.unet,
        )  # fmt: skip
        return pipeline(
            prompt=list(prompts),
            latents=noise.to(self.device),
            height=self.resolution,
            width=self.resolution,
            num_inference_steps=steps,
            guidance_scale=guidance,
            callback_on_step_end=each_step,
        ).images

    # -------------------------------------------------------------------------------------- weights

    def value_layers(self) -> dict[str, nn.Linear]:
        """Every cross-attention value projection W_v, in module order."""
        return {name: module for name, module in self.unet.named_modules() if name.endswith(VALUE_SUFFIX)}

    def key_value_layers(self) -> dict[str, nn.Linear]:
        """Every cross-attention key and value projection, in module order: what customization trains."""
        suffixes = (KEY_SUFFIX, VALUE_SUFFIX)
        return {name: module for name, module in self.unet.named_modules() if name.endswith(suffixes)}

    def trained_parameters(self) -> dict[str, Tensor]:
        """What training may change, by name: K and V projections and modifier tokens."""
        projections = {f"unet.{name}.weight": layer.weight for name, layer in self.key_value_layers().items()}
        return projections | {f"modifier.{token}": vector for token, vector in self.modifiers.items()}

    def trained_weights(self) -> dict[str, Tensor]:
        """What is kept of a training: `trained_parameters` on the CPU, where they are the model's own memory if it is there."""
        return {name: parameter.detach().cpu().contiguous() for name, parameter in self.trained_parameters().items()}

    @torch.no_grad()
    def load_trained(self, weights: Mapping[str, Tensor]) -> None:
        """Put such weights in place; adds the modifiers that are missing. Raises ModelError for those of another model."""
        tokens = (name.removeprefix("modifier.") for name in sorted(weights) if name.startswith("modifier."))
        self.add_modifiers({token: None for token in tokens if token not in self._modifier_names})
        own = self.trained_parameters()
        require_fitting(weights, own)
        for name, weight in weights.items():
            own[name].copy_(weight)


def require_fitting(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raises ModelError unless a model whose weights are `own` can take these."""
    for name, weight in weights.items():
        if name not in own and name.startswith("modifier."):
            raise ModelError(f"the model has no modifier {name.removeprefix('modifier.')}: call add_modifiers first")
        if name not in own or own[name].shape != weight.shape:
            raise ModelError(f"these weights are of another model: {name} {tuple(weight.shape)} does not fit")


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 127.5 - 1.0).permute(2, 0, 1)
