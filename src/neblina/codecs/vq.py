"""The codec of the first latent-diffusion models and of discrete diffusion: latents near the codes of a codebook.

A Gaussian model diffuses the continuous latents z · scale, and decoding takes them to their nearest codes; a discrete
model diffuses the numbers of the codes.

Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, section 3.1 (VQ-reg.).
Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022.
"""

from dataclasses import dataclass

from torch import Tensor

from neblina.codecs.running import Frame, NetworkCodec
from neblina.core.errors import SettingError
from neblina.nets.vq_autoencoder import VQAutoencoder


@dataclass(frozen=True)
class VQCodec(NetworkCodec[VQAutoencoder]):
    """An autoencoder with a codebook.

    Attributes:
        net, tile, upcasts: as of `NetworkCodec`.
        quantise: whether decoding takes latents to their nearest codes (diffusers' force_not_quantize is the opposite).
        scaled: whether what is diffused is z · scaling_factor; diffusers' LDMSuperResolutionPipeline decodes what its
            network made as it is.
    """

    quantise: bool = True
    scaled: bool = True

    def __post_init__(self) -> None:
        """Refuse what contradicts the configuration.

        Raises:
            SettingError: a tile that is too small; or not quantising where what is decoded are numbers of codes.
        """
        super().__post_init__()
        if not self.quantise and self.net.config.lookup_from_codebook:
            raise SettingError(
                "this autoencoder's lookup_from_codebook says that it decodes numbers of codes where it does not "
                "quantise: use decode_codes, or quantise"
            )

    @property
    def frame(self) -> Frame:
        """How the network is run."""
        config = self.net.config
        return Frame(config.factor, config.code_channels, config.in_channels, config.force_upcast)

    @property
    def scale(self) -> float:
        """What latents are multiplied by to be diffused."""
        return self.net.config.scaling_factor if self.scaled else 1.0

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """As `Codec.encode`; there is no distribution to draw from, so noise changes nothing.

        Raises:
            SettingError: pictures of a shape that does not fit.
            DivergenceError: latents that are not finite.
        """
        return self.reading(VQAutoencoder.encode, pictures) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """As `Codec.decode`.

        Raises:
            SettingError: latents of a shape that does not fit.
            DivergenceError: pictures that are not finite.
        """
        half = VQAutoencoder.decode if self.quantise else VQAutoencoder.decode_codes
        return self.writing(half, latents.float() / self.scale)

    def codes(self, pictures: Tensor) -> Tensor:
        """Numbers of the codes nearest to the pictures' latents, shape (B, H / factor, W / factor).

        Raises:
            SettingError: pictures of a shape that does not fit.
            DivergenceError: latents that are not finite.
        """
        latents = self.reading(VQAutoencoder.encode, pictures)
        return self.net.quantize.nearest(latents.to(self.net.quantize.embedding.weight))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Pictures of codes by number, shape (B, h, w).

        Raises:
            SettingError: codes that there are not, or of a shape that does not fit.
            DivergenceError: pictures that are not finite.
        """
        entries = self.net.config.num_vq_embeddings
        if codes.ndim != 3:
            raise SettingError(f"numbers of codes have shape (B, height, width), not {tuple(codes.shape)}")
        wrong = codes[(codes < 0) | (codes >= entries)]
        if len(wrong):
            raise SettingError(f"code {int(wrong[0])} is not in a codebook of 0 … {entries - 1}")
        latents = self.net.quantize.look_up(codes.to(self.net.quantize.embedding.weight.device))
        return self.writing(VQAutoencoder.decode_codes, latents)
