"""The codec that costs almost nothing: it reads and writes the latents of a large one, a little less faithfully."""

from dataclasses import dataclass

from torch import Tensor

from neblina.codecs.running import Frame, NetworkCodec
from neblina.core.errors import SettingError
from neblina.nets.tiny_autoencoder import AutoencoderTiny


@dataclass(frozen=True)
class TinyCodec(NetworkCodec[AutoencoderTiny]):
    """A tiny autoencoder."""

    def __post_init__(self) -> None:
        """Refuse halves that do not belong together.

        Raises:
            SettingError: pictures would come back at another size; or a tile that is too small.
        """
        config = self.net.config
        if config.factor != config.enlargement:
            raise SettingError(
                f"autoencoder config: num_encoder_blocks shrink pictures {config.factor} times, and num_decoder_blocks "
                f"with upsampling_scaling_factor enlarge them {config.enlargement} times"
            )
        super().__post_init__()

    @property
    def frame(self) -> Frame:
        """How the network is run."""
        config = self.net.config
        return Frame(config.factor, config.latent_channels, config.in_channels)

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """As `Codec.encode`; there is no distribution to draw from, so noise changes nothing.

        Raises:
            SettingError: pictures of a shape that does not fit.
            DivergenceError: latents that are not finite.
        """
        config = self.net.config
        return (self.reading(AutoencoderTiny.encode, pictures) - config.shift_factor) * (config.scaling_factor)

    def decode(self, latents: Tensor) -> Tensor:
        """As `Codec.decode`.

        Raises:
            SettingError: latents of a shape that does not fit.
            DivergenceError: pictures that are not finite.
        """
        config = self.net.config
        z = latents.float() / config.scaling_factor + config.shift_factor
        return self.writing(AutoencoderTiny.decode, z)

    def preview(self, latents: Tensor) -> Tensor:
        """As `Codec.preview`: the picture itself."""
        return self.decode(latents)
