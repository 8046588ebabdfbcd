"""A model in memory: its parts, and what is known about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from neblina.bundle.index import Kept
from neblina.bundle.pipelines import Pipeline, pipelines
from neblina.bundle.schedulers import Sampling
from neblina.bundle.texts import Texts
from neblina.codecs.codec import Codec, Pixels
from neblina.core.errors import SettingError
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.nets.labelled import LabelledUNet
from neblina.nets.network import Network
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import Schedule


@dataclass(frozen=True)
class Bundle:
    """Everything a model's files say.

    Attributes:
        net: the network, in evaluation mode.
        schedule: of the process it was trained on.
        parameterisation: what it predicts.
        clock: how it is told the time, None for the default.
        label_names: the classes in label order, empty for an unconditional model.
        null_label: the label that means "no class" to the network, None if it never learned one.
        sampling: how it samples when nothing else is asked for.
        card: what else is known: the recipe, the metrics.
        learned_variance: whether the second half of the network's channels says how wide its reverse steps are.
        pipeline: what its folder is made of.
        own_codec: between its pictures and what it diffuses, None for a model of pictures themselves.
        text: reads prompts, None for a model that takes none.
        settings: entries of `model_index.json` that are no components.
        small: the schedule that makes an upscaler's small picture noisy, and its scheduler's configuration; None for
            other models.
        kept: components that are carried along.
    """

    net: Network
    schedule: Schedule
    parameterisation: str
    clock: str | None = None
    label_names: tuple[str, ...] = ()
    null_label: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    card: Mapping[str, Any] = field(default_factory=dict)
    learned_variance: bool = False
    pipeline: Pipeline = field(default_factory=lambda: pipelines["DDPMPipeline"])
    own_codec: Codec | None = None
    text: Texts | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    small: tuple[Schedule, Mapping[str, Any]] | None = None
    kept: Mapping[str, Kept] = field(default_factory=dict)

    @property
    def codec(self) -> Codec:
        """Between its pictures and what it diffuses."""
        return self.own_codec or Pixels(self.channels)

    @property
    def channels(self) -> int:
        """Of what it diffuses: a codec's latents, or pictures."""
        if self.own_codec is not None:
            return self.own_codec.channels
        return self.net.config.made // (2 if self.learned_variance else 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of what it diffuses when no other size is asked for.

        Raises:
            SettingError: its configuration does not say.
        """
        size = self.net.config.sample_size
        if size is None:
            raise SettingError("the model's configuration does not say a sample_size: say which size to make")
        height, width = (size, size) if isinstance(size, int) else size
        return self.channels, height, width

    @property
    def joined(self) -> int:
        """Channels that are joined to what it diffuses: masks, small pictures, depths."""
        return self.net.config.in_channels - self.channels

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Its networks by the names of their components."""
        named: dict[str, nn.Module] = {self.pipeline.network: self.net}
        if isinstance(self.net, LabelledUNet):
            named = {self.pipeline.network: self.net.unet, str(self.pipeline.embedder): self.net.class_embedder}
        codec = getattr(self.own_codec, "net", None)  # pixels have none
        if self.pipeline.codec is not None and isinstance(codec, nn.Module):
            named[self.pipeline.codec] = codec
        return {**named, **({} if self.text is None else self.text.modules)}

    def denoiser(self) -> NetworkDenoiser:
        """The network as a denoiser."""
        config = self.net.config
        return NetworkDenoiser(
            self.net,
            GaussianProcess(self.schedule),
            self.parameterisation,
            self.clock,
            config.num_labels - (self.null_label is not None),
            self.null_label,
            self.learned_variance,
            replace(config.wants, spatial=self.joined),
        )
