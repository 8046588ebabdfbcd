"""The codec of Stable Diffusion: latents are drawn from the Gaussian that an encoder says, at unit scale.

With μ and log σ² from the encoder and z = μ + σ · noise, what a model diffuses is

    x = (z − shift) · scale,    or    x = (z − mean) · scale / std

channel by channel where the configuration knows the latents' statistics.

Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, appendix G.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neblina.codecs.running import Frame, NetworkCodec
from neblina.core.errors import SettingError
from neblina.nets.autoencoder import AutoencoderKL

LOG_VARIANCE = (-30.0, 20.0)


@dataclass(frozen=True)
class KLCodec(NetworkCodec[AutoencoderKL]):
    """An autoencoder with Gaussian latents."""

    @property
    def frame(self) -> Frame:
        """How the network is run."""
        config = self.net.config
        return Frame(config.factor, config.latent_channels, config.in_channels, config.force_upcast)

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """As `Codec.encode`.

        Raises:
            SettingError: pictures or noise of a shape that does not fit.
            DivergenceError: latents that are not finite.
        """
        moments = self.reading(AutoencoderKL.encode, pictures)
        mean, log_variance = moments.chunk(2, dim=1)
        if noise is not None:
            if noise.shape != mean.shape:
                raise SettingError(f"noise of shape {tuple(noise.shape)} for latents of shape {tuple(mean.shape)}")
            mean = mean + (log_variance.clamp(*LOG_VARIANCE) / 2).exp() * noise.to(mean)
        shift, scale = self._scale(mean)
        return (mean - shift) * scale

    def decode(self, latents: Tensor) -> Tensor:
        """As `Codec.decode`.

        Raises:
            SettingError: latents of a shape that does not fit.
            DivergenceError: pictures that are not finite.
        """
        shift, scale = self._scale(latents)
        return self.writing(AutoencoderKL.decode, latents.float() / scale + shift)

    def _scale(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        config = self.net.config
        if config.latents_mean is None or config.latents_std is None:
            return config.shift_factor or 0.0, config.scaling_factor
        mean, std = (
            torch.tensor(values, device=like.device)[:, None, None]
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, config.scaling_factor / std
